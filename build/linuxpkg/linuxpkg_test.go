package linuxpkg_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"

	"pretag/build/archive"
	"pretag/build/catalogue"
	"pretag/build/linuxpkg"
	"pretag/build/linuxpkg/pkgread"
	"pretag/build/release"
	"pretag/build/testutil"
	"pretag/build/testutil/archivetest"
	"pretag/packaging"
)

var update = flag.Bool("update", false, "write the golden files of TestGolden")

// TestGolden compares all that packages declare and hold with testdata.
func TestGolden(t *testing.T) {
	loader := standIns(t, "arm64")
	for _, test := range []struct {
		name, runner, release, layout string
		helpers                       []string
	}{
		{"split", "19.3.0", "1", linuxpkg.Split, append(sixHelpers(), "ubuntu-ppc64le", "ubi-fips-x86_64")},
		{"single", "19.3.0", "1", linuxpkg.Single, append(sixHelpers(), "ubi-fips-x86_64")},
		// The runner is one package with its own images; its default flavor on
		// riscv64 is another one; its tags carry the revision.
		{"split-16.3.0", "16.3.0", "1~bpo12+1", linuxpkg.Split, []string{"alpine-edge-riscv64", "alpine-edge-x86_64", "alpine-x86_64"}},
		{"single-15.8.0", "15.8.0", "2.el9", linuxpkg.Single, []string{"alpine-x86_64"}},
		{"split-latest", "latest", "1", linuxpkg.Split, []string{"alpine-x86_64", "concrete-x86_64"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			opts := options(t, dir)
			opts.Version, opts.Release, opts.Layout, opts.Loaders = version(t, test.runner), test.release, test.layout, loader
			result := build(t, opts, archivetest.ArchivesOf(t, dir, test.runner, fixtureCompression(), test.helpers...))
			var texts []string
			for _, p := range result.Packages {
				texts = append(texts, describe(t, p))
			}
			slices.Sort(texts)
			text := strings.Join(texts, "\n") + "\n"
			for _, warning := range result.Warnings {
				text += "warning: " + warning + "\n"
			}
			golden := filepath.Join("testdata", test.name+".golden")
			if *update {
				write(t, golden, []byte(text))
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), text); diff != "" {
				t.Errorf("%s (-want +got), go test -update writes it:\n%s", golden, diff)
			}
			if left, err := filepath.Glob(filepath.Join(dir, "*", ".*")); err != nil || len(left) > 0 {
				t.Errorf("left behind: %q, %v", left, err)
			}
		})
	}
}

// describe returns what a package declares and holds, and checks what is alike in all.
func describe(t *testing.T, p release.Package) string {
	t.Helper()
	var contents strings.Builder
	m := eachEntry(t, p.Path, func(e pkgread.Entry) {
		config := ""
		if e.Config {
			config = " (config)"
		}
		fmt.Fprintf(&contents, "    %v %s%s\n", e.Mode, e.Path, config)
		if e.MTime != testutil.Created().Unix() {
			t.Errorf("%s: %s: mtime %d", p.File, e.Path, e.MTime)
		}
		if (e.Owner != "root" && e.Owner != "0") || (e.Group != "root" && e.Group != "0") {
			t.Errorf("%s: %s: owner %s:%s", p.File, e.Path, e.Owner, e.Group)
		}
	})
	if got := m.Version + "-" + m.Release; p.Version != got {
		t.Errorf("%s: recorded as version %s, is %s", p.File, p.Version, got)
	}
	if m.Compression != "gzip" {
		t.Errorf("%s: payload is %s, want gzip, which every rpm and dpkg reads", p.File, m.Compression)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n  %s\n", p.File, m.Summary)
	for line := range strings.Lines(m.Description) {
		fmt.Fprintf(&b, "  | %s\n", strings.TrimSpace(line))
	}
	for _, kind := range slices.Sorted(maps.Keys(m.Relations)) {
		for _, relation := range m.Relations[kind] {
			fmt.Fprintf(&b, "  %s: %s\n", kind, relation)
			if name := strings.Fields(relation)[0]; kind == "obsoletes" && !strings.HasPrefix(name, ours+"-") {
				t.Errorf("%s obsoletes %s: rpm -U would remove it", p.File, relation)
			}
		}
	}
	if len(m.Scripts) > 0 {
		fmt.Fprintf(&b, "  scripts: %s\n", strings.Join(slices.Sorted(maps.Keys(m.Scripts)), " "))
	}
	return b.String() + "  contents:\n" + contents.String()
}

// TestArchiveInPackage compares archive and record byte by byte.
func TestArchiveInPackage(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	archives := archivetest.Archives(t, dir, "alpine-x86_64")
	body, err := os.ReadFile(archives[0].Path)
	if err != nil {
		t.Fatal(err)
	}
	for _, format := range []string{release.RPM, release.Deb} {
		p := find(t, build(t, options(t, dir), archives).Packages, format, ours, map[string]string{release.RPM: "x86_64", release.Deb: "amd64"}[format])
		found := 0
		eachEntry(t, p.Path, func(e pkgread.Entry) {
			switch filepath.Base(e.Path) {
			case archives[0].Name:
				if got, err := io.ReadAll(e.Body); err != nil || !bytes.Equal(got, body) {
					t.Errorf("%s: %s differs from the archive: %v", format, e.Path, err)
				}
				found++
			case archives[0].Name + release.InfoSuffix:
				f, err := release.ParseInfo(e.Body)
				f.Path = archives[0].Path
				if err != nil || !cmp.Equal(f, archives[0]) {
					t.Errorf("%s: %s: %v, %s", format, e.Path, err, cmp.Diff(archives[0], f))
				}
				found++
			}
		})
		if found != 2 {
			t.Errorf("%s: %d of 2 files found", format, found)
		}
	}
}

func TestVersions(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ runner, want string }{
		{"v19.3.0", "19.3.0-2"},
		{"latest", "0.0.0~latest-2"},
		{"19.3.0~beta.1", "19.3.0~beta.1-2"},
		{"19.3.0-rc1", "19.3.0~rc1-2"},
		{"19.3.0~beta.42-gabc", "19.3.0~beta.42.gabc-2"},
		{"19.3.0+fips-1", "19.3.0+fips.1-2"},
	} {
		t.Run(test.runner, func(t *testing.T) {
			dir := t.TempDir()
			opts := options(t, dir)
			opts.Version, opts.Release = version(t, test.runner), "2"
			for _, p := range build(t, opts, archivetest.ArchivesOf(t, dir, test.runner, fixtureCompression(), "alpine-x86_64")).Packages {
				m := metadata(t, p.Path)
				if got := m.Version + "-" + m.Release; got != test.want || p.Version != test.want {
					t.Errorf("%s: version %s, recorded as %s, want %s", p.File, got, p.Version, test.want)
				}
				if !strings.Contains(p.File, test.want) {
					t.Errorf("file name %s does not hold %s", p.File, test.want)
				}
			}
		})
	}
}

// TestHosts compares the hosts of a build of Runner's own helpers with the
// architectures that gitlab-runner is packaged for.
func TestHosts(t *testing.T) {
	for runner, want := range map[string][]string{
		"15.8.0": {"386", "amd64", "arm", "arm64", "ppc64le", "s390x"},
		"16.3.0": {"386", "amd64", "arm", "arm64", "ppc64le", "riscv64", "s390x"},
		"18.5.0": {"386", "amd64", "arm", "arm64", "ppc64le", "riscv64", "s390x"},
		"18.6.0": {"386", "amd64", "arm", "arm64", "loong64", "ppc64le", "riscv64", "s390x"},
		"19.3.0": {"386", "amd64", "arm", "arm64", "loong64", "ppc64le", "riscv64", "s390x"},
	} {
		v := version(t, runner)
		if diff := cmp.Diff(want, linuxpkg.Hosts(v, testutil.Catalogue(t).Default(v))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", runner, diff)
		}
	}
	if got := linuxpkg.Hosts(version(t, "19.3.0"), []catalogue.Helper{{Flavor: "debian12", Arch: "x86_64"}}); len(got) > 0 {
		t.Errorf("a flavor that no host asks for by default: hosts %q", got)
	}
}

// TestArches compares the words of both formats for each architecture.
func TestArches(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	result := build(t, options(t, dir), archivetest.Archives(t, dir,
		"alpine-x86_64", "alpine-arm", "alpine-arm64", "alpine-s390x", "alpine-ppc64le", "alpine-riscv64"))
	got := map[string][]string{}
	for _, p := range result.Packages {
		got[p.Format] = append(got[p.Format], p.Arch)
	}
	want := map[string][]string{
		release.RPM: {"x86_64", "armv7hl", "aarch64", "s390x", "ppc64le", "riscv64", "i686", "loongarch64"},
		release.Deb: {"amd64", "armhf", "arm64", "s390x", "ppc64el", "riscv64", "i386", "loong64"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("arches (-want +got):\n%s", diff)
	}
}

// TestLicenses: the license texts of every module that is linked into the loader
// are those of the module, and are in its package.
func TestLicenses(t *testing.T) {
	t.Parallel()
	modules := map[string]string{"std": strings.TrimSpace(run(t, "go", "env", "GOROOT"))}
	linked := run(t, "go", "list", "-deps", "-f", "{{with .Module}}{{.Path}} {{.Dir}}{{end}}", "pretag/build/loader/gitlab-runner-helper-images")
	for line := range strings.Lines(linked) {
		if fields := strings.Fields(line); len(fields) == 2 && fields[0] != "pretag" {
			modules[fields[0]] = fields[1]
		}
	}
	license := regexp.MustCompile(`^(LICEN[CS]E|COPYING|NOTICE)(\.(txt|md))?$`)
	for module, dir := range modules {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for _, entry := range entries {
			if !license.MatchString(entry.Name()) {
				continue
			}
			found = true
			text, err := os.ReadFile(filepath.Join(dir, entry.Name()))
			if err != nil {
				t.Fatal(err)
			}
			packaged, err := fs.ReadFile(packaging.Files, "licenses/"+module)
			if err != nil || !strings.Contains(string(packaged), strings.TrimSpace(string(text))) {
				t.Errorf("packaging/licenses/%s does not hold %s of the module: %v", module, entry.Name(), err)
			}
		}
		if !found {
			t.Errorf("%s: no license in %s", module, dir)
		}
	}

	dir := t.TempDir()
	opts := options(t, dir)
	opts.Loaders = standIns(t, "amd64")
	p := find(t, build(t, opts, archivetest.Archives(t, dir, "alpine-x86_64")).Packages, release.Deb, ours+"-loader", "amd64")
	eachEntry(t, p.Path, func(e pkgread.Entry) {
		if filepath.Base(e.Path) != "copyright" {
			return
		}
		text, err := io.ReadAll(e.Body)
		if err != nil {
			t.Fatal(err)
		}
		for module := range modules {
			if !strings.Contains(string(text), " ==== "+module+" ") {
				t.Errorf("%s does not name %s", e.Path, module)
			}
		}
	})
}

// TestTexts: the texts in a package name only packages of the build.
func TestTexts(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	archives := archivetest.Archives(t, dir, append(sixHelpers(), "concrete-x86_64")...)
	loader := standIns(t, "amd64")
	name := regexp.MustCompile("(^|[^/])(" + ours + "-[a-z0-9-]+)")
	for _, layout := range []string{linuxpkg.Split, linuxpkg.Single} {
		opts := options(t, filepath.Join(dir, layout))
		opts.Layout, opts.Loaders = layout, loader
		packages := build(t, opts, archives).Packages
		var names, read []string
		for _, p := range packages {
			names = append(names, p.Name)
		}
		for _, p := range packages {
			eachEntry(t, p.Path, func(e pkgread.Entry) {
				if filepath.Base(e.Path) != "README.md" {
					return
				}
				text, err := io.ReadAll(e.Body)
				if err != nil {
					t.Fatal(err)
				}
				read = append(read, e.Path)
				for _, found := range name.FindAllStringSubmatch(string(text), -1) {
					if !slices.Contains(names, found[2]) {
						t.Errorf("%s: %s names %s, which is not in the build", p.File, e.Path, found[2])
					}
				}
			})
		}
		for _, path := range []string{"/usr/share/doc/" + ours + "/README.md", "/usr/share/doc/" + ours + "-loader/README.md"} {
			if !slices.Contains(read, path) {
				t.Errorf("%s: no %s", layout, path)
			}
		}
	}
}

// TestReproducible builds twice from equal inputs, with everything else unequal.
func TestReproducible(t *testing.T) {
	loader := standIns(t, "amd64")
	digests := func(layout string) map[string]string {
		dir := t.TempDir()
		archives := archivetest.Archives(t, dir, sixHelpers()...)
		opts := options(t, filepath.Join(dir, "out"))
		opts.Layout, opts.Loaders = layout, loader
		got := map[string]string{}
		for _, p := range build(t, opts, archives).Packages {
			got[p.File] = p.SHA256
		}
		return got
	}
	for _, layout := range []string{linuxpkg.Split, linuxpkg.Single} {
		first := digests(layout)

		dir := filepath.Join(t.TempDir(), "a [folder]*")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		archives := archivetest.Archives(t, dir, sixHelpers()...)
		for i, f := range archives {
			if err := errors.Join(os.Chmod(f.Path, 0o400), os.Chtimes(f.Path, time.Unix(1, 0), time.Unix(2, 0))); err != nil {
				t.Fatal(err)
			}
			link := filepath.Join(dir, fmt.Sprint("link", i))
			if err := os.Symlink(f.Path, link); err != nil {
				t.Fatal(err)
			}
			archives[i].Path = link
		}
		umask := syscall.Umask(0o077)
		procs := runtime.GOMAXPROCS(1)
		local := time.Local
		time.Local = time.FixedZone("far", 13*3600)
		t.Setenv("SOURCE_DATE_EPOCH", "soon")
		opts := options(t, filepath.Join(dir, "out"))
		opts.Layout, opts.Loaders = layout, loader
		opts.MTime = opts.MTime.In(time.Local)
		result := build(t, opts, archives)
		time.Local = local
		runtime.GOMAXPROCS(procs)
		syscall.Umask(umask)

		second := map[string]string{}
		for _, p := range result.Packages {
			second[p.File] = p.SHA256
			if stat, err := os.Stat(p.Path); err != nil || stat.Mode() != 0o644 {
				t.Errorf("%s: mode %v, %v", p.File, stat.Mode(), err)
			}
		}
		if diff := cmp.Diff(first, second); diff != "" {
			t.Errorf("%s: (-first +second):\n%s", layout, diff)
		}
	}
}

// TestTooBig: what rpm's packager cannot count is refused before it is called.
func TestTooBig(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	archives := archivetest.Archives(t, dir, "alpine-x86_64")
	if err := os.Truncate(archives[0].Path, 2<<30); err != nil { // sparse
		t.Fatal(err)
	}
	archives[0].Size = 2 << 30
	_, err := linuxpkg.Build(context.Background(), options(t, filepath.Join(dir, "out")), archives)
	if err == nil || !strings.Contains(err.Error(), "2 GiB") {
		t.Errorf("error %v, want one about 2 GiB", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "out")); err == nil {
		t.Error("something was written")
	}
}

func TestRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	archives := archivetest.Archives(t, dir, "alpine-x86_64")
	definition := func(name, data string) func(*linuxpkg.Options) {
		return func(o *linuxpkg.Options) {
			files := overlay(t)
			files[name] = &fstest.MapFile{Data: []byte(data)}
			o.Files = files
		}
	}
	for name, test := range map[string]struct {
		change   func(*linuxpkg.Options)
		archives []release.Archive
		want     string
	}{
		"no archives":       {func(*linuxpkg.Options) {}, nil, "no archives"},
		"no time":           {func(o *linuxpkg.Options) { o.MTime = time.Time{} }, archives, "no time"},
		"no maintainer":     {func(o *linuxpkg.Options) { o.Maintainer = "" }, archives, "no maintainer"},
		"release":           {func(o *linuxpkg.Options) { o.Release = "0" }, archives, `release "0": want a number above 0`},
		"format":            {func(o *linuxpkg.Options) { o.Formats = []string{"apk"} }, archives, `format "apk": want rpm or deb`},
		"layout":            {func(o *linuxpkg.Options) { o.Layout = "both" }, archives, `layout "both": want split or single`},
		"other version":     {func(o *linuxpkg.Options) { o.Version = version(t, "19.3.1") }, archives, "archive is for GitLab Runner 19.3.0, want 19.3.1"},
		"unknown helper":    {func(o *linuxpkg.Options) { o.Helpers = nil }, archives, "alpine-x86_64: the catalogue has no such helper"},
		"twice":             {func(*linuxpkg.Options) {}, append(archives, archives...), "two archives of one helper"},
		"unknown key":       {definition("other.yaml", "layouts: [split]\nnaem: x\n"), archives, "other.yaml: yaml: unmarshal errors:\n  line 2: field naem not found"},
		"bad each":          {definition("other.yaml", "layouts: [split]\neach: host arch\n"), archives, `other.yaml: each: "host arch": want helper, host, loader or nothing`},
		"bad template":      {definition("other.yaml", "layouts: [split]\nname: '{{.Nmae}}'\n"), archives, "can't evaluate field Nmae"},
		"missing file":      {definition("other.yaml", "layouts: [split]\nname: xy\ncontents: [{src: nothing, dst: /x}]\n"), archives, "open nothing: file does not exist"},
		"bad name":          {definition("other.yaml", "layouts: [split]\nname: X_Y\n"), archives, `name "X_Y" is not of the form`},
		"one name twice":    {definition("other.yaml", "layouts: [split]\narch: amd64\nname: gitlab-runner-helper-images\n"), archives, "two packages are called gitlab-runner-helper-images"},
		"host name leaks":   {definition("other.yaml", "layouts: [split]\nname: xy\nrpm: {buildhost: ''}\n"), archives, "no rpm.buildhost"},
		"rpm compression":   {definition("other.yaml", "layouts: [split]\nname: xy\nrpm: {compression: 'zstd:3'}\n"), archives, `xy: rpm.compression: "zstd:3", want gzip:0 to gzip:9`},
		"two documents":     {definition("other.yaml", "name: xy\n---\nname: xz\n"), archives, "other.yaml: more than one YAML document"},
		"own version":       {definition("other.yaml", "layouts: [split]\nname: xy\nversion: '1'\n"), archives, "xy: version 1-1, want 19.3.0-1"},
		"not a loader":      {func(o *linuxpkg.Options) { o.Loaders = map[string]string{"amd64": archives[0].Path} }, archives, "loader for amd64: "},
		"loader elsewhere":  {definition("other.yaml", "layouts: [split]\nname: xy\ncontents: [{src: loader, dst: /x}]\n"), archives, "takes a loader, but is not one for each loader"},
		"size not recorded": {func(*linuxpkg.Options) {}, []release.Archive{grown(archives[0])}, "as recorded"},
	} {
		t.Run(name, func(t *testing.T) {
			opts := options(t, filepath.Join(t.TempDir(), "out"))
			opts.Files = overlay(t)
			test.change(&opts)
			_, err := linuxpkg.Build(context.Background(), opts, test.archives)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want %q in it", err, test.want)
			}
			if _, err := os.Stat(opts.Out); err == nil {
				t.Error("something was written")
			}
		})
	}
}

func grown(f release.Archive) release.Archive { f.Size++; return f }

// TestPayload: archives are stored, not compressed again, in what every rpm and
// dpkg of the supported distributions reads; plain archives are compressed.
func TestPayload(t *testing.T) {
	t.Parallel()
	for method, stored := range map[string]bool{"zstd": true, "gzip": true, "none": false} {
		dir := t.TempDir()
		archives := archivetest.ArchivesOf(t, dir, testutil.Version, archive.Compression{Method: method}, "alpine-x86_64")
		for _, p := range build(t, options(t, dir), archives).Packages {
			if p.Arch != "x86_64" && p.Arch != "amd64" {
				continue
			}
			file, err := os.ReadFile(p.Path)
			if err != nil {
				t.Fatal(err)
			}
			body, err := os.ReadFile(archives[0].Path)
			if err != nil {
				t.Fatal(err)
			}
			if got := bytes.Contains(file, body[:min(len(body), 512)]); got != stored {
				t.Errorf("%s of %s: archive stored as it is: %v, want %v", p.Format, method, got, stored)
			}
			// The last field of a cpio header is followed by the file's name.
			if p.Format == release.RPM && stored && (!bytes.Contains(file, []byte("00000000./usr/")) || bytes.Contains(file, []byte("00000000/"))) {
				t.Error("the file names in the rpm's payload are not relative")
			}
		}
	}
}

// TestScriptlets: each file below scriptlets/ is in a package. IfExists would
// ignore a misspelled name.
func TestScriptlets(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	opts := options(t, dir)
	opts.Loaders = standIns(t, "amd64")
	packaged := map[string]bool{}
	for _, p := range build(t, opts, archivetest.Archives(t, dir, sixHelpers()...)).Packages {
		for _, text := range metadata(t, p.Path).Scripts {
			packaged[strings.TrimSpace(text)] = true
		}
	}
	err := fs.WalkDir(packaging.Files, "scriptlets", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := fs.ReadFile(packaging.Files, name)
		if !packaged[strings.TrimSpace(string(text))] {
			t.Errorf("%s is in no package", name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
