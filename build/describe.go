package build

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"path"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"

	"pretag/build/archive"
	"pretag/build/internal/atomicfile"
	"pretag/build/provenance"
	"pretag/build/release"
	"pretag/build/sign"
)

// describe writes the files that describe a delivery into the directory stage, which
// holds the packages and SBOMs: provenance.json, manifest.json, SHA256SUMS and, if
// there is a signer, the signature and the public key. It returns the names of the
// files that SHA256SUMS lists.
func (c Config) describe(ctx context.Context, stage string, archives []release.Archive, packages []release.Package, signer *sign.Signer) ([]string, error) {
	m := release.Manifest{
		Version:  c.Version.String(),
		Revision: c.Version.Revision(),
		Release:  c.Release,
		Created:  c.Time.Unix(),
		Tools:    tools(c.Compression),
		Archives: archives,
		Packages: packages,
	}
	sums, err := release.SHA256Tree(ctx, stage)
	if err != nil {
		return nil, err
	}
	maps.DeleteFunc(sums, func(name, _ string) bool { return path.Dir(name) == loaderDir }) // loaders are in packages
	for _, f := range archives {
		for _, name := range []string{f.Name, f.Name + release.InfoSuffix} {
			file := path.Join(release.ArchivesDir, name)
			if sums[file], err = release.SHA256File(ctx, filepath.Join(c.Out, file)); err != nil {
				return nil, err
			}
		}
	}
	statement, err := provenance.Build{Outputs: sums, Archives: m.Archives, Parameters: c.parameters(), Tools: m.Tools, Builder: c.Builder}.Statement().JSON()
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{release.ProvenanceName: statement}
	if signer != nil {
		m.Signer = signer.KeyID()
		if files[release.KeyName], err = signer.Public(); err != nil {
			return nil, err
		}
	}
	if files[release.ManifestName], err = release.JSON(m); err != nil {
		return nil, err
	}
	for name, data := range files {
		sums[name] = fmt.Sprintf("%x", sha256.Sum256(data))
	}
	files[release.SumsName] = release.Sums(sums)
	if signer != nil {
		if files[release.SignatureName], err = signer.Armored(bytes.NewReader(files[release.SumsName])); err != nil {
			return nil, err
		}
	}
	for name, data := range files {
		if err := atomicfile.WriteBytes(filepath.Join(stage, name), data); err != nil {
			return nil, err
		}
	}
	return slices.Collect(maps.Keys(sums)), nil
}

// tools returns the versions of what decides the bytes of archives and packages:
// Go, the modules that are built in, and the zstd program if it is used.
func tools(compression archive.Compression) map[string]string {
	tools := map[string]string{"go": runtime.Version(), "pretag": strconv.Itoa(archive.FormatVersion)}
	if name, version, ok := strings.Cut(compression.Program(), "/"); ok {
		tools[name] = version
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, module := range info.Deps {
			tools[module.Path] = module.Version
		}
	}
	return tools
}
