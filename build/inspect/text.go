package inspect

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"pretag/build/internal/text"
)

// Text returns the findings as lines for people.
func (f *Findings) Text() string {
	var b strings.Builder
	line := func(key string, values ...string) {
		for _, value := range values {
			if value != "" {
				fmt.Fprintf(&b, "%-12s %s\n", key, value)
				key = ""
			}
		}
	}
	line("file", f.File)
	line("helper", f.Helper)
	line("layout", strings.TrimSuffix(f.Layout+", "+f.Compression, ", none"))
	line("size", text.Bytes(f.Size))
	line("sha256", f.SHA256)
	f.image(line)
	if f.Unpacked > 0 {
		line("unpacked", text.Bytes(f.Unpacked))
	}
	if f.Config != nil {
		line("entrypoint", words(f.Config.Entrypoint))
		line("cmd", words(f.Config.Cmd))
		line("env", f.Config.Env...)
		line("user", f.Config.User)
		line("workdir", f.Config.WorkingDir)
		for _, key := range slices.Sorted(maps.Keys(f.Config.Labels)) {
			line("label", key+"="+f.Config.Labels[key])
		}
	}
	if p := f.Package; p != nil {
		line("name", p.Name)
		line("version", p.Version)
		line("arch", p.Arch)
		for _, s := range p.Signatures {
			line("signature", s.Place+", by key "+s.KeyID+", not checked")
		}
		for _, archive := range p.Archives {
			line("archive", archive.File)
			archive.image(func(key string, values ...string) { line("  "+key, values...) })
		}
	}
	line("runner", f.RunnerVersion, f.RunnerRevision)
	line("warning", f.Warnings...)
	line("PROBLEM", f.Problems...)
	return b.String()
}

// image writes what identifies an image.
func (f *Findings) image(line func(key string, values ...string)) {
	line("RepoTag", f.RepoTags...)
	line("platform", f.Platform)
	line("image ID", f.ImageID)
	line("digest", f.Digest)
	line("base", f.Base)
	line("source", f.Source)
	line("diff IDs", f.DiffIDs...)
	if f.Contents != nil {
		line("contents", f.Contents.String())
	}
}

// words formats an argument list as Dockerfiles do.
func words(args []string) string {
	if len(args) == 0 {
		return ""
	}
	quoted := make([]string, len(args))
	for i, arg := range args {
		quoted[i] = strconv.Quote(arg)
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}
