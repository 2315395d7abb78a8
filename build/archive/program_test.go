package archive_test

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"pretag/build/archive"
	"pretag/build/release"
	"pretag/build/testutil"
)

const (
	helper = "usr/bin/gitlab-runner-helper"
	dumb   = "usr/bin/dumb-init"
)

func amd64Program(name string) testutil.Entry { return program(name, elf.EM_X86_64, elf.ELFDATA2LSB) }

func arm64Program(name string) testutil.Entry { return program(name, elf.EM_AARCH64, elf.ELFDATA2LSB) }

func symbolic(name, target string) testutil.Entry { return link(name, target, tar.TypeSymlink) }

// ownEntrypoint is the one that the catalogue puts back.
func ownEntrypoint() []string { return []string{"/usr/bin/dumb-init", "/entrypoint"} }

func configWith(change func(*v1.Config)) func([]v1.Hash) ([]byte, error) {
	return func(diffIDs []v1.Hash) ([]byte, error) {
		c := v1.ConfigFile{OS: "linux", Architecture: "amd64", RootFS: v1.RootFS{DiffIDs: diffIDs}}
		change(&c.Config)
		return json.Marshal(c)
	}
}

// The helper program and those of the entrypoint are looked up as the engine
// does: through links, over all layers, with whiteouts.
func TestPrograms(t *testing.T) {
	whole := []testutil.Entry{amd64Program(helper), amd64Program(dumb), symbolic("entrypoint", "usr/bin/gitlab-runner-helper")}
	opaque := testutil.File("usr/bin/.wh..wh..opq", "")
	entries := func(more ...testutil.Entry) []testutil.Entry { return more }
	for name, row := range map[string]struct {
		layers [][]testutil.Entry
		config func(*v1.Config)
		want   string // of the error if missing programs are errors
		anyway bool   // it is an error in any case
	}{
		"whole":                       {layers: [][]testutil.Entry{whole}},
		"in two layers":               {layers: [][]testutil.Entry{whole[:1], whole[1:]}},
		"an empty layer on top":       {layers: [][]testutil.Entry{whole, nil}},
		"usr/bin is a link":           {layers: [][]testutil.Entry{{symbolic("usr/bin", "../bin"), amd64Program("bin/gitlab-runner-helper"), amd64Program("bin/dumb-init"), testutil.File("entrypoint", "#!")}}},
		"usr/bin is an absolute link": {layers: [][]testutil.Entry{{symbolic("usr", "/x/y"), testutil.Dir("x/y/bin"), amd64Program("x/y/bin/gitlab-runner-helper"), amd64Program("x/y/bin/dumb-init"), testutil.File("entrypoint", "#!")}}},
		"helper behind two links":     {layers: [][]testutil.Entry{{symbolic(helper, "../../opt/a"), symbolic("opt/a", "/opt/b"), amd64Program("opt/b"), amd64Program(dumb), testutil.File("entrypoint", "#!")}}},
		"no helper":                   {layers: [][]testutil.Entry{{amd64Program(dumb), testutil.File("entrypoint", "#!")}}, want: "has no /usr/bin/gitlab-runner-helper, which GitLab Runner calls"},
		"helper is a directory":       {layers: [][]testutil.Entry{{testutil.Dir(helper), amd64Program(dumb), testutil.File("entrypoint", "#!")}}, want: "has no /usr/bin/gitlab-runner-helper"},
		"no dumb-init":                {layers: [][]testutil.Entry{{whole[0], whole[2]}}, want: "has no /usr/bin/dumb-init, which its entrypoint starts"},
		"no entrypoint":               {layers: [][]testutil.Entry{whole[:2]}, want: "has no /entrypoint, which its entrypoint starts"},
		"entrypoint leads nowhere":    {layers: [][]testutil.Entry{{whole[0], whole[1], symbolic("entrypoint", "usr/bin/none")}}, want: "has no /entrypoint"},
		"links in a circle":           {layers: [][]testutil.Entry{{whole[0], whole[1], symbolic("entrypoint", "b"), symbolic("b", "entrypoint")}}, want: "has no /entrypoint"},
		"helper removed":              {layers: [][]testutil.Entry{whole, entries(testutil.File("usr/bin/.wh.gitlab-runner-helper", ""))}, want: "has no /usr/bin/gitlab-runner-helper"},
		"directory removed":           {layers: [][]testutil.Entry{whole, entries(testutil.File("usr/.wh.bin", ""))}, want: "has no /usr/bin/gitlab-runner-helper"},
		"directory emptied":           {layers: [][]testutil.Entry{whole, entries(opaque)}, want: "has no /usr/bin/gitlab-runner-helper"},
		"emptied and filled again":    {layers: [][]testutil.Entry{whole, entries(opaque, whole[0], whole[1])}},
		"removed and back":            {layers: [][]testutil.Entry{whole, entries(testutil.File("usr/.wh.bin", "")), whole[:2]}},
		"directory becomes a file":    {layers: [][]testutil.Entry{whole, entries(testutil.File("usr", "x"))}, want: "has no /usr/bin/gitlab-runner-helper"},
		"helper for arm64":            {layers: [][]testutil.Entry{{arm64Program(helper), whole[1], testutil.File("entrypoint", "#!")}}, want: "/usr/bin/gitlab-runner-helper is a program for arm64, want amd64", anyway: true},
		"helper for arm64, hard link": {layers: [][]testutil.Entry{{arm64Program("opt/helper"), link(helper, "opt/helper", tar.TypeLink), whole[1], testutil.File("entrypoint", "#!")}}, want: "/usr/bin/gitlab-runner-helper is a program for arm64, want amd64", anyway: true},
		"helper for arm64, link":      {layers: [][]testutil.Entry{{arm64Program("opt/helper"), symbolic(helper, "/opt/helper"), whole[1], testutil.File("entrypoint", "#!")}}, want: "/usr/bin/gitlab-runner-helper (it is /opt/helper) is a program for arm64, want amd64", anyway: true},
		"helper for arm64 on top":     {layers: [][]testutil.Entry{whole, entries(arm64Program(helper))}, want: "is a program for arm64, want amd64", anyway: true},
		"helper for arm64 below":      {layers: [][]testutil.Entry{{arm64Program(helper), whole[1]}, whole}},
		"dumb-init for arm64":         {layers: [][]testutil.Entry{{whole[0], arm64Program(dumb), whole[2]}}, want: "/usr/bin/dumb-init is a program for arm64, want amd64", anyway: true},
		"another entrypoint":          {layers: [][]testutil.Entry{whole}, config: func(c *v1.Config) { c.Entrypoint = []string{"/usr/bin/tini", "--", "/x"} }, want: "has no /usr/bin/tini, which its entrypoint starts"},
		"the rest of another one":     {layers: [][]testutil.Entry{whole}, config: func(c *v1.Config) { c.Entrypoint = []string{"/usr/bin/dumb-init", "/x"} }},
		"by PATH":                     {layers: [][]testutil.Entry{whole}, config: func(c *v1.Config) { c.Entrypoint = []string{"dumb-init"} }},
		"not in PATH":                 {layers: [][]testutil.Entry{whole}, config: func(c *v1.Config) { c.Entrypoint, c.Env = []string{"dumb-init"}, []string{"PATH=/opt:/bin"} }, want: "has no dumb-init"},
		"by working directory":        {layers: [][]testutil.Entry{whole}, config: func(c *v1.Config) { c.Entrypoint, c.WorkingDir = []string{"bin/dumb-init"}, "/usr" }},
		"none":                        {layers: [][]testutil.Entry{whole[:1]}, config: func(c *v1.Config) { c.Entrypoint = nil }},
	} {
		t.Run(name, func(t *testing.T) {
			change := row.config
			if change == nil {
				change = func(c *v1.Config) { c.Entrypoint = ownEntrypoint() }
			}
			for _, strict := range []bool{true, false} {
				var layers [][]byte
				for _, entries := range row.layers {
					layers = append(layers, testutil.Tar(t, entries...))
				}
				s := archive.Spec{GoArch: "amd64", Strict: strict, Config: configWith(change), Layers: layersOf(layers...)}
				found, err := archive.Examine(t.Context(), s)
				got := strings.Join(found.Warnings, "; ")
				if err != nil {
					got = err.Error()
				}
				if row.want == "" && got != "" || !strings.Contains(got, row.want) {
					t.Errorf("strict %t: %q, want %q", strict, got, row.want)
				}
				if wantErr := row.want != "" && (strict || row.anyway); (err != nil) != wantErr {
					t.Errorf("strict %t: error %v, want one: %t", strict, err, wantErr)
				}
			}
		})
	}
}

// goProgram is a program with Go's build information at an offset
// (go1.26, debug/buildinfo/buildinfo.go).
func goProgram(name string, offset int, info string) testutil.Entry {
	const marker = "0123456789abcdef"
	b := bytes.Repeat([]byte("\xff Go buildinf:  "), offset/16+1)[:offset] // no information follows these
	copy(b, amd64Program("").Body)
	b = append(b, "\xff Go buildinf:\x08\x02"...)
	b = append(b, make([]byte, 16)...)
	for _, text := range []string{"go1.26.0", marker + info + marker} {
		b = append(binary.AppendUvarint(b, uint64(len(text))), text...)
	}
	return testutil.File(name, string(append(b, make([]byte, 5000)...)))
}

// The version that the helper program records is compared with the one asked for.
func TestRunnerVersion(t *testing.T) {
	const common = "gitlab.com/gitlab-org/gitlab-runner/common"
	ldflags := func(flags string) string {
		return "path\tgitlab.com/gitlab-org/gitlab-runner/apps/gitlab-runner-helper\nmod\tgitlab.com/gitlab-org/gitlab-runner\t(devel)\t\nbuild\t-ldflags=" + fmt.Sprintf("%q", flags) + "\n"
	}
	vcs := func(revision string) string {
		return "path\tgitlab.com/gitlab-org/gitlab-runner\nmod\tgitlab.com/gitlab-org/gitlab-runner\t(devel)\t\nbuild\tvcs=git\nbuild\tvcs.revision=" + revision + "\n"
	}
	const of1790 = "c4cbe9dd" // GitLab Runner 17.9.0
	long := of1790 + strings.Repeat("0", 32)
	flags := func(version, revision string) string {
		return ldflags("-X " + common + ".NAME=gitlab-runner -X " + common + ".VERSION=" + version + " -X " + common + ".REVISION=" + revision + " -s -w")
	}
	for name, row := range map[string]struct {
		info string
		want archive.Runner // asked for
		got  archive.Runner
		err  string
	}{
		"equal":                {flags("17.9.0", of1790), archive.Runner{Version: "17.9.0"}, archive.Runner{Version: "17.9.0", Revision: of1790}, ""},
		"equal, revision":      {flags("17.9.0", of1790), archive.Runner{Version: "17.9.0", Revision: of1790}, archive.Runner{Version: "17.9.0", Revision: of1790}, ""},
		"a pre-release":        {flags("17.9.0~pre.88.gabc", of1790), archive.Runner{Version: "17.9.0"}, archive.Runner{Version: "17.9.0~pre.88.gabc", Revision: of1790}, ""},
		"other version":        {flags("19.3.0", "9cbf0074"), archive.Runner{Version: "19.2.0"}, archive.Runner{Version: "19.3.0", Revision: "9cbf0074"}, "/usr/bin/gitlab-runner-helper is from GitLab Runner 19.3.0, RUNNER_VERSION is 19.2.0"},
		"other revision":       {flags("15.8.0", "0badcafe"), archive.Runner{Version: "15.8.0", Revision: "12335144"}, archive.Runner{Version: "15.8.0", Revision: "0badcafe"}, "is from revision 0badcafe of GitLab Runner, want 12335144"},
		"latest":               {flags("19.3.0", "9cbf0074"), archive.Runner{Version: "latest"}, archive.Runner{Version: "19.3.0", Revision: "9cbf0074"}, ""},
		"development":          {flags("development version", "HEAD"), archive.Runner{Version: "17.9.0"}, archive.Runner{}, ""},
		"vcs, equal":           {vcs(long), archive.Runner{Version: "17.9.0"}, archive.Runner{Revision: long}, ""},
		"vcs, other release":   {vcs(long), archive.Runner{Version: "18.0.0"}, archive.Runner{Revision: long}, "is from revision " + long + ", which is GitLab Runner 17.9.0; RUNNER_VERSION is 18.0.0"},
		"vcs, own build":       {vcs(strings.Repeat("d", 40)), archive.Runner{Version: "18.0.0"}, archive.Runner{Revision: strings.Repeat("d", 40)}, ""},
		"vcs, RUNNER_REVISION": {vcs(long), archive.Runner{Version: "18.0.0", Revision: "d7f2cea7"}, archive.Runner{Revision: long}, "RUNNER_VERSION is 18.0.0"},
		"another program":      {strings.ReplaceAll(vcs(long), "gitlab-runner", "other"), archive.Runner{Version: "18.0.0"}, archive.Runner{}, ""},
		"nothing recorded":     {"path\tx\n", archive.Runner{Version: "18.0.0"}, archive.Runner{}, ""},
		"not build info":       {"\x00", archive.Runner{Version: "18.0.0"}, archive.Runner{}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			for _, offset := range []int{64, 4096, 128<<10 - 16, 128 << 10, 300_000 / 16 * 16} {
				s := archive.Spec{GoArch: "amd64", Runner: row.want, Layers: layersOf(testutil.Tar(t, goProgram(helper, offset, row.info)))}
				found, err := archive.Examine(t.Context(), s)
				if row.err == "" && err != nil || row.err != "" && (err == nil || !strings.Contains(err.Error(), row.err)) {
					t.Errorf("at %d: error %v, want %q", offset, err, row.err)
				}
				if diff := cmp.Diff(row.got, found.Runner); diff != "" {
					t.Errorf("at %d: (-want +got):\n%s", offset, diff)
				}
			}
		})
	}
	// Information that is not where Go puts it is not Go's.
	shifted := goProgram(helper, 65, flags("19.3.0", of1790))
	if found, err := archive.Examine(t.Context(), archive.Spec{Layers: layersOf(testutil.Tar(t, shifted))}); err != nil || found.Runner != (archive.Runner{}) {
		t.Errorf("not aligned: %v, %v", found.Runner, err)
	}
}

func TestEmptyLayers(t *testing.T) {
	rootfs := testutil.Rootfs(t, "one")
	empty := make([]byte, 1024) // buildah commit and BuildKit write it: sha256:5f70bf18...
	padded := make([]byte, 10240)
	for _, compression := range []string{"zstd:fastest", "gzip", "none"} {
		s := spec(t, rootfs, empty, padded, testutil.Tar(t, testutil.Entry{Header: tar.Header{Typeflag: tar.TypeXGlobalHeader, PAXRecords: map[string]string{"comment": "x"}}}))
		f, err := write(t, compression, s)
		if err != nil {
			t.Fatal(err)
		}
		if err := archive.Check(t.Context(), f); err != nil {
			t.Error(err)
		}
		if want := "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"; f.DiffIDs[1] != want {
			t.Errorf("diff ID %s, want %s", f.DiffIDs[1], want)
		}
	}
	for _, flat := range [][]byte{empty, padded} {
		if _, err := write(t, "none", spec(t, flat)); err == nil || err.Error() != "no entries" {
			t.Errorf("empty root filesystem: error %v", err)
		}
	}
}

// kaniko writes the root as "/".
func TestRootEntry(t *testing.T) {
	for _, name := range []string{"/", "//", "./", "/."} {
		if err := examine(testutil.Rootfs(t, "x"), testutil.Tar(t, testutil.Dir(name), testutil.Dir("etc"), testutil.File("etc/x", ""))); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	for want, e := range map[string]testutil.Entry{
		"the root is not a directory": {Header: tar.Header{Name: "/", Typeflag: tar.TypeSymlink, Linkname: "etc"}},
		"dangling hard link":          {Header: tar.Header{Name: "l", Typeflag: tar.TypeLink, Linkname: "/"}},
		"absolute path":               testutil.File("/etc", ""),
	} {
		testutil.WantError(t, examine(testutil.Rootfs(t, "x"), testutil.Tar(t, e)), want)
	}
}

// An image may have 1000 layers, which its record holds too, and no more.
func TestManyLayers(t *testing.T) {
	layers := [][]byte{testutil.Rootfs(t, "x")}
	for range 999 {
		layers = append(layers, make([]byte, 1024))
	}
	f, err := write(t, "none", spec(t, layers...))
	if err != nil {
		t.Fatal(err)
	}
	if want := "has 1000 layers, of which Docker's own store takes at most 125"; f.Warning != want {
		t.Errorf("warning %q, want %q", f.Warning, want)
	}
	if err := archive.Check(t.Context(), f); err != nil {
		t.Error(err)
	}
	f.Helper, f.Name = "alpine-x86_64", "a"
	got, err := release.ParseInfo(bytes.NewReader(f.Info()))
	if err != nil || len(got.DiffIDs) != 1000 {
		t.Errorf("record: %d diff IDs, %v", len(got.DiffIDs), err)
	}
	if _, err := write(t, "none", spec(t, append(layers, make([]byte, 1024))...)); err == nil || err.Error() != "1001 layers, at most 1000 are allowed" {
		t.Errorf("1001 layers: error %v", err)
	}
}

// podman takes no config above 4 MiB.
func TestLargeConfig(t *testing.T) {
	for size, want := range map[int]string{4<<20 - 400: "", 4 << 20: "config of 41"} {
		s := spec(t, testutil.Rootfs(t, "x"))
		s.Config = configWith(func(c *v1.Config) {
			c.Entrypoint = ownEntrypoint()
			c.Labels = map[string]string{"x": strings.Repeat("x", size)}
		})
		_, err := write(t, "none", s)
		testutil.WantError(t, err, want)
	}
}
