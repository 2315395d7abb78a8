package linuxpkg_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
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

// sixHelpers is a build for three architectures.
func sixHelpers() []string {
	return []string{"alpine-x86_64", "alpine-x86_64-pwsh", "alpine-arm", "alpine-arm64", "ubuntu-x86_64", "ubuntu-arm64"}
}

// options are those of a split build of the fixtures into out.
func options(tb testing.TB, out string) linuxpkg.Options {
	tb.Helper()
	return linuxpkg.Options{
		Files:      packaging.Files,
		Formats:    []string{release.RPM, release.Deb},
		Layout:     linuxpkg.Split,
		Version:    version(tb, testutil.Version),
		Release:    1,
		MTime:      testutil.Created(),
		Out:        out,
		Helpers:    testutil.Catalogue(tb).Helpers(),
		Maintainer: "Pat Packager <pat@example.com>",
		Vendor:     "Example",
		Homepage:   "https://example.com/pretag",
	}
}

func fixtureCompression() archive.Compression {
	return archive.Compression{Method: "zstd", Level: "fastest"}
}

func version(tb testing.TB, s string) catalogue.Version {
	tb.Helper()
	v, err := catalogue.ParseVersion(s, "0123abcd")
	if err != nil {
		tb.Fatal(err)
	}
	return v
}

func build(tb testing.TB, opts linuxpkg.Options, archives []release.Archive) linuxpkg.Result {
	tb.Helper()
	result, err := linuxpkg.Build(context.Background(), opts, archives)
	if err != nil {
		tb.Fatal(err)
	}
	return result
}

// find is the package of that format, name and arch ("" for any).
func find(tb testing.TB, packages []release.Package, format, name, arch string) release.Package {
	tb.Helper()
	i := slices.IndexFunc(packages, func(p release.Package) bool {
		return p.Format == format && p.Name == name && (arch == "" || p.Arch == arch)
	})
	if i < 0 {
		tb.Fatalf("no %s %s %s among %v", format, name, arch, packages)
	}
	return packages[i]
}

func metadata(tb testing.TB, path string) pkgread.Metadata {
	tb.Helper()
	r, err := pkgread.Open(tb.Context(), path)
	if err != nil {
		tb.Fatal(err)
	}
	defer r.Close()
	return r.Metadata
}

// run runs a program in the C locale and returns what it prints.
func run(tb testing.TB, program string, args ...string) string {
	tb.Helper()
	out, err := try(program, args...)
	if err != nil {
		tb.Fatalf("%s %s: %v\n%s", program, strings.Join(args, " "), err, out)
	}
	return out
}

func try(program string, args ...string) (string, error) {
	cmd := exec.Command(program, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestSplit(t *testing.T) {
	dir := t.TempDir()
	result := build(t, options(t, dir), archivetest.Archives(t, dir, sixHelpers()...))
	var files []string
	for _, p := range result.Packages {
		files = append(files, p.File)
		if p.Version != "19.3.0-1" {
			t.Errorf("%s: version %s", p.File, p.Version)
		}
	}
	slices.Sort(files)
	want := []string{
		"gitlab-runner-helper-images-19.3.0-1.aarch64.rpm",
		"gitlab-runner-helper-images-19.3.0-1.armv7hl.rpm",
		"gitlab-runner-helper-images-19.3.0-1.x86_64.rpm",
		"gitlab-runner-helper-images-all-19.3.0-1.noarch.rpm",
		"gitlab-runner-helper-images-all_19.3.0-1_all.deb",
		"gitlab-runner-helper-images-alpine-amd64-19.3.0-1.noarch.rpm",
		"gitlab-runner-helper-images-alpine-amd64-pwsh-19.3.0-1.noarch.rpm",
		"gitlab-runner-helper-images-alpine-amd64-pwsh_19.3.0-1_all.deb",
		"gitlab-runner-helper-images-alpine-amd64_19.3.0-1_all.deb",
		"gitlab-runner-helper-images-alpine-arm-19.3.0-1.noarch.rpm",
		"gitlab-runner-helper-images-alpine-arm64-19.3.0-1.noarch.rpm",
		"gitlab-runner-helper-images-alpine-arm64_19.3.0-1_all.deb",
		"gitlab-runner-helper-images-alpine-arm_19.3.0-1_all.deb",
		"gitlab-runner-helper-images-loader-19.3.0-1.noarch.rpm",
		"gitlab-runner-helper-images-loader_19.3.0-1_all.deb",
		"gitlab-runner-helper-images-ubuntu-amd64-19.3.0-1.noarch.rpm",
		"gitlab-runner-helper-images-ubuntu-amd64_19.3.0-1_all.deb",
		"gitlab-runner-helper-images-ubuntu-arm64-19.3.0-1.noarch.rpm",
		"gitlab-runner-helper-images-ubuntu-arm64_19.3.0-1_all.deb",
		"gitlab-runner-helper-images_19.3.0-1_amd64.deb",
		"gitlab-runner-helper-images_19.3.0-1_arm64.deb",
		"gitlab-runner-helper-images_19.3.0-1_armhf.deb",
	}
	if diff := cmp.Diff(want, files); diff != "" {
		t.Errorf("packages (-want +got):\n%s", diff)
	}
	if len(result.Warnings) > 0 {
		t.Errorf("warnings: %q", result.Warnings)
	}
	left, err := filepath.Glob(filepath.Join(dir, "*", ".*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %q, %v", left, err)
	}
}

// TestRelations is what each package requires and replaces. gitlab-runner is
// never obsoleted: rpm -U would remove it.
func TestRelations(t *testing.T) {
	dir := t.TempDir()
	archives := archivetest.Archives(t, dir, append(sixHelpers(), "ubi-fips-x86_64")...)
	split := build(t, options(t, dir), archives)
	opts := options(t, filepath.Join(dir, "single"))
	opts.Layout = linuxpkg.Single
	single := build(t, opts, archives)

	const base = "gitlab-runner-helper-images"
	tests := []struct {
		packages   []release.Package
		format     string
		name, arch string
		want       map[string][]string
	}{
		{split.Packages, release.RPM, base, "x86_64", map[string][]string{
			"provides":   {base + " = 19.3.0-1"},
			"requires":   {base + "-loader = 19.3.0-1", base + "-alpine-amd64 = 19.3.0-1"},
			"recommends": {base + "-ubuntu-amd64 = 19.3.0-1"},
			"suggests":   {base + "-alpine-amd64-pwsh = 19.3.0-1", base + "-ubi-fips-amd64 = 19.3.0-1"},
		}},
		{split.Packages, release.Deb, base, "amd64", map[string][]string{
			"depends":    {base + "-loader (= 19.3.0-1)", base + "-alpine-amd64 (= 19.3.0-1)"},
			"recommends": {base + "-ubuntu-amd64 (= 19.3.0-1)"},
			"suggests":   {base + "-alpine-amd64-pwsh (= 19.3.0-1)", base + "-ubi-fips-amd64 (= 19.3.0-1)"},
		}},
		{split.Packages, release.Deb, base, "armhf", map[string][]string{
			"depends": {base + "-loader (= 19.3.0-1)", base + "-alpine-arm (= 19.3.0-1)"},
		}},
		{split.Packages, release.RPM, base + "-alpine-arm", "noarch", map[string][]string{
			"provides":  {base + "-alpine-arm = 19.3.0-1"},
			"conflicts": {"gitlab-runner > 19.3.0-1", "gitlab-runner-fips > 19.3.0-1"},
		}},
		{split.Packages, release.Deb, base + "-alpine-arm", "all", map[string][]string{
			"replaces": {"gitlab-runner (<< 17.7.0-1)", base},
			"breaks":   {"gitlab-runner (<< 17.7.0-1)", base + "-single (<< 19.3.0-1)", "gitlab-runner (>> 19.3.0-1)", "gitlab-runner-fips (>> 19.3.0-1)"},
		}},
		{split.Packages, release.Deb, base + "-loader", "all", map[string][]string{
			"depends":  {"zstd"},
			"suggests": {"podman"},
			"replaces": {base},
			"breaks":   {base + "-single (<< 19.3.0-1)"},
		}},
		{single.Packages, release.RPM, base, "noarch", map[string][]string{
			"provides":  {base + " = 19.3.0-1"},
			"requires":  {"zstd"},
			"suggests":  {"podman"},
			"conflicts": {"gitlab-runner-fips > 19.3.0-1"},
			"obsoletes": {
				base + "-loader <= 19.3.0-1", base + "-all <= 19.3.0-1",
				base + "-alpine-amd64 <= 19.3.0-1", base + "-alpine-amd64-pwsh <= 19.3.0-1", base + "-alpine-arm <= 19.3.0-1",
				base + "-alpine-arm64 <= 19.3.0-1", base + "-ubuntu-amd64 <= 19.3.0-1", base + "-ubuntu-arm64 <= 19.3.0-1",
				base + "-ubi-fips-amd64 <= 19.3.0-1",
			},
		}},
	}
	for _, test := range tests {
		p := find(t, test.packages, test.format, test.name, test.arch)
		got := metadata(t, p.Path).Relations
		if requires, ok := got["requires"]; ok { // scriptlets add theirs
			got["requires"] = slices.DeleteFunc(requires, func(s string) bool { return s == "/bin/sh" })
			if len(got["requires"]) == 0 {
				delete(got, "requires")
			}
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", p.File, diff)
		}
	}
	for _, p := range slices.Concat(split.Packages, single.Packages) {
		for _, relation := range metadata(t, p.Path).Relations["obsoletes"] {
			if strings.Fields(relation)[0] == "gitlab-runner" {
				t.Errorf("%s obsoletes %s", p.File, relation)
			}
		}
	}
}

// TestOldRunner: GitLab Runner below 17.7.0 is one package, which must be
// installable beside the images that are made for it.
func TestOldRunner(t *testing.T) {
	dir := t.TempDir()
	opts := options(t, dir)
	opts.Version = version(t, "15.8.0")
	archives := archivetest.ArchivesOf(t, dir, "15.8.0", fixtureCompression(), "alpine-x86_64")
	result := build(t, opts, archives)
	const name = "gitlab-runner-helper-images-alpine-amd64"
	want := map[string][]string{
		"breaks":   {"gitlab-runner-helper-images-single (<< 15.8.0-1)", "gitlab-runner (>= 17.9.0)", "gitlab-runner-fips (>= 17.9.0)"},
		"replaces": {"gitlab-runner-helper-images"},
	}
	if diff := cmp.Diff(want, metadata(t, find(t, result.Packages, release.Deb, name, "").Path).Relations); diff != "" {
		t.Errorf("deb (-want +got):\n%s", diff)
	}
	if got := metadata(t, find(t, result.Packages, release.RPM, name, "").Path).Relations["conflicts"]; !slices.Equal(got, []string{"gitlab-runner >= 17.9.0", "gitlab-runner-fips >= 17.9.0"}) {
		t.Errorf("rpm conflicts: %q", got)
	}
}

func TestVersions(t *testing.T) {
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
			opts.Version, opts.Release = version(t, test.runner), 2
			archives := archivetest.ArchivesOf(t, dir, test.runner, fixtureCompression(), "alpine-x86_64")
			for _, p := range build(t, opts, archives).Packages {
				m := metadata(t, p.Path)
				if got := m.Version + "-" + m.Release; got != test.want || p.Version != test.want {
					t.Errorf("%s: version %s, recorded as %s, want %s", p.File, got, p.Version, test.want)
				}
				if !strings.Contains(p.File, test.want) {
					t.Errorf("file name %s does not hold %s", p.File, test.want)
				}
				switch p.Format {
				case release.RPM:
					if _, err := exec.LookPath("rpm"); err == nil {
						if got := run(t, "rpm", "-qp", "--qf", "%{VERSION}-%{RELEASE}", p.Path); got != test.want {
							t.Errorf("rpm reads %s, want %s", got, test.want)
						}
					}
				case release.Deb:
					if _, err := exec.LookPath("dpkg-deb"); err == nil {
						if got := strings.TrimSpace(run(t, "dpkg-deb", "-f", p.Path, "Version")); got != test.want {
							t.Errorf("dpkg reads %s, want %s", got, test.want)
						}
					}
				}
			}
		})
	}
}

// TestArches: each word is one that rpm and dpkg know.
func TestArches(t *testing.T) {
	dir := t.TempDir()
	result := build(t, options(t, dir), archivetest.Archives(t, dir,
		"alpine-x86_64", "alpine-arm", "alpine-arm64", "alpine-s390x", "alpine-ppc64le", "alpine-riscv64"))
	got := map[string][]string{}
	for _, p := range result.Packages {
		if p.Name == "gitlab-runner-helper-images" {
			got[p.Format] = append(got[p.Format], p.Arch)
		}
	}
	want := map[string][]string{
		release.RPM: {"x86_64", "armv7hl", "aarch64", "s390x", "ppc64le", "riscv64"},
		release.Deb: {"amd64", "armhf", "arm64", "s390x", "ppc64el", "riscv64"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("arches (-want +got):\n%s", diff)
	}
	testutil.Tool(t, "dpkg-architecture")
	for _, arch := range got[release.Deb] {
		run(t, "dpkg-architecture", "-a"+arch, "-qDEB_HOST_ARCH")
	}
	testutil.Tool(t, "rpm")
	for _, arch := range got[release.RPM] {
		if canon := run(t, "rpm", "--target", arch+"-linux", "--eval", "%{_target_cpu}"); strings.TrimSpace(canon) != arch {
			t.Errorf("rpm makes %q of %s", canon, arch)
		}
		// rpm knows an architecture that is compatible with itself and noarch.
		known, err := os.ReadFile("/usr/lib/rpm/rpmrc")
		if err == nil && !bytes.Contains(known, []byte("arch_compat: "+arch+":")) && !bytes.Contains(known, []byte(" "+arch+": ")) {
			t.Errorf("rpmrc knows no %s", arch)
		}
	}
}

// TestLonelyArch: a host package needs its default flavor.
func TestLonelyArch(t *testing.T) {
	dir := t.TempDir()
	result := build(t, options(t, dir), archivetest.Archives(t, dir, "alpine-x86_64", "ubuntu-arm64"))
	if len(result.Warnings) != 1 || !strings.Contains(result.Warnings[0], "arm64") {
		t.Errorf("warnings: %q, want one about arm64", result.Warnings)
	}
	for _, p := range result.Packages {
		if p.Arch == "arm64" || p.Arch == "aarch64" {
			t.Errorf("%s requires a package that is not there", p.File)
		}
	}
}

// TestContents is every path of a helper package with mode, owner and time,
// and the archive byte by byte.
func TestContents(t *testing.T) {
	dir := t.TempDir()
	archives := archivetest.Archives(t, dir, "alpine-x86_64")
	body, err := os.ReadFile(archives[0].Path)
	if err != nil {
		t.Fatal(err)
	}
	const name = "gitlab-runner-helper-images-alpine-amd64"
	result := build(t, options(t, dir), archives)
	for format, want := range map[string][]string{
		release.RPM: {
			"drwxr-xr-x /usr/lib/gitlab-runner",
			"drwxr-xr-x /usr/lib/gitlab-runner/helper-images",
			"-rw-r--r-- /usr/lib/gitlab-runner/helper-images/prebuilt-alpine-x86_64.docker.tar.zst",
			"-rw-r--r-- /usr/lib/gitlab-runner/helper-images/prebuilt-alpine-x86_64.docker.tar.zst.info",
			"drwxr-xr-x /usr/share/doc/" + name,
			"-rw-r--r-- /usr/share/doc/" + name + "/README.md",
			"drwxr-xr-x /usr/share/licenses/" + name,
			"-rw-r--r-- /usr/share/licenses/" + name + "/copyright",
		},
		release.Deb: {
			"drwxr-xr-x /usr",
			"drwxr-xr-x /usr/lib",
			"drwxr-xr-x /usr/lib/gitlab-runner",
			"drwxr-xr-x /usr/lib/gitlab-runner/helper-images",
			"-rw-r--r-- /usr/lib/gitlab-runner/helper-images/prebuilt-alpine-x86_64.docker.tar.zst",
			"-rw-r--r-- /usr/lib/gitlab-runner/helper-images/prebuilt-alpine-x86_64.docker.tar.zst.info",
			"drwxr-xr-x /usr/share",
			"drwxr-xr-x /usr/share/doc",
			"drwxr-xr-x /usr/share/doc/" + name,
			"-rw-r--r-- /usr/share/doc/" + name + "/README.md",
			"-rw-r--r-- /usr/share/doc/" + name + "/changelog.Debian.gz",
			"-rw-r--r-- /usr/share/doc/" + name + "/copyright",
			"drwxr-xr-x /usr/share/lintian",
			"drwxr-xr-x /usr/share/lintian/overrides",
			"-rw-r--r-- /usr/share/lintian/overrides/" + name,
		},
	} {
		p := find(t, result.Packages, format, name, "")
		r, err := pkgread.Open(t.Context(), p.Path)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		var got []string
		for e, err := range r.Contents() {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, fmt.Sprintf("%v %s", e.Mode, e.Path))
			if e.MTime != testutil.Created().Unix() {
				t.Errorf("%s: %s: mtime %d", format, e.Path, e.MTime)
			}
			if (e.Owner != "root" && e.Owner != "0") || (e.Group != "root" && e.Group != "0") {
				t.Errorf("%s: %s: owner %s:%s", format, e.Path, e.Owner, e.Group)
			}
			if filepath.Base(e.Path) == archives[0].Name {
				var b bytes.Buffer
				if _, err := b.ReadFrom(e.Body); err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(b.Bytes(), body) {
					t.Errorf("%s: %s differs from the archive", format, e.Path)
				}
			}
			if strings.HasSuffix(e.Path, release.InfoSuffix) {
				f, err := release.ParseInfo(e.Body)
				f.Path = archives[0].Path
				if err != nil || !cmp.Equal(f, archives[0]) {
					t.Errorf("%s: %s: %v, %s", format, e.Path, err, cmp.Diff(archives[0], f))
				}
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", format, diff)
		}
	}
}

// overlay is the definitions with a loader made for the test in place of root/
// and scriptlets/.
func overlay(tb testing.TB) fs.FS {
	tb.Helper()
	files := fstest.MapFS{
		"root/usr/bin/gitlab-runner-helper-images":                        {Data: []byte("#!/bin/sh\nexit 0\n")},
		"root/usr/share/man/man8/gitlab-runner-helper-images.8":           {Data: []byte(".TH X 8\n")},
		"root/etc/gitlab-runner/helper-images.conf":                       {Data: []byte("USERS=\n")},
		"root/usr/lib/systemd/system/gitlab-runner-helper-images.service": {Data: []byte("[Unit]\nDescription=x\n")},
	}
	err := fs.WalkDir(packaging.Files, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasPrefix(name, "root/") || strings.HasPrefix(name, "scriptlets/") {
			return err
		}
		data, err := fs.ReadFile(packaging.Files, name)
		files[name] = &fstest.MapFile{Data: data}
		return err
	})
	if err != nil {
		tb.Fatal(err)
	}
	return files
}

// TestOverlay: what the loader package makes of the files below root/, and the
// scriptlets with what runs them.
func TestOverlay(t *testing.T) {
	dir := t.TempDir()
	opts := options(t, dir)
	files := overlay(t).(fstest.MapFS)
	for _, format := range opts.Formats {
		files["scriptlets/"+format+"/loader-postinstall.sh"] = &fstest.MapFile{Data: []byte("#!/bin/sh\ntrue " + format + "\n")}
	}
	opts.Files = files
	result := build(t, opts, archivetest.Archives(t, dir, "alpine-x86_64"))
	for format, script := range map[string]string{release.RPM: "postin", release.Deb: "postinst"} {
		p := find(t, result.Packages, format, "gitlab-runner-helper-images-loader", "")
		r, err := pkgread.Open(t.Context(), p.Path)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if got, want := r.Scripts, map[string]string{script: "#!/bin/sh\ntrue " + format + "\n"}; !maps.Equal(got, want) {
			t.Errorf("%s: scripts %q, want %q", format, got, want)
		}
		if format == release.RPM && !slices.Contains(r.Relations["requires"], "/bin/sh") {
			t.Errorf("rpm: scriptlets, but requires %q", r.Relations["requires"])
		}
		got := map[string]string{}
		for e, err := range r.Contents() {
			if err != nil {
				t.Fatal(err)
			}
			got[e.Path] = fmt.Sprintf("%v config=%v", e.Mode, e.Config)
		}
		for path, want := range map[string]string{
			"/usr/bin/gitlab-runner-helper-images":                        "-rwxr-xr-x config=false",
			"/usr/share/man/man8/gitlab-runner-helper-images.8.gz":        "-rw-r--r-- config=false",
			"/etc/gitlab-runner/helper-images.conf":                       "-rw-r--r-- config=true",
			"/usr/lib/systemd/system/gitlab-runner-helper-images.service": "-rw-r--r-- config=false",
		} {
			if got[path] != want {
				t.Errorf("%s: %s is %q, want %q", format, path, got[path], want)
			}
		}
		if _, ok := got["/etc/gitlab-runner"]; ok && format == release.RPM {
			t.Error("rpm: /etc/gitlab-runner is GitLab Runner's, with a mode of its own")
		}
	}
}

// TestTexts: the texts in a package speak of no package that its layout has not.
func TestTexts(t *testing.T) {
	dir := t.TempDir()
	archives := archivetest.Archives(t, dir, sixHelpers()...)
	name := regexp.MustCompile("(^|[^/])(" + ours + "-[a-z0-9-]+)")
	for _, layout := range []string{linuxpkg.Split, linuxpkg.Single} {
		opts := options(t, filepath.Join(dir, layout))
		opts.Layout = layout
		packages := build(t, opts, archives).Packages
		var names, speaks []string
		for _, p := range packages {
			names = append(names, p.Name)
		}
		for _, p := range packages {
			r, err := pkgread.Open(t.Context(), p.Path)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			for e, err := range r.Contents() {
				if err != nil {
					t.Fatal(err)
				}
				if filepath.Base(e.Path) != "README.md" {
					continue
				}
				text, err := io.ReadAll(e.Body)
				if err != nil {
					t.Fatal(err)
				}
				speaks = append(speaks, e.Path)
				for _, found := range name.FindAllStringSubmatch(string(text), -1) {
					if !slices.Contains(names, found[2]) {
						t.Errorf("%s: %s speaks of %s", p.File, e.Path, found[2])
					}
				}
			}
		}
		for _, path := range []string{"/usr/share/doc/" + ours + "/README.md", "/usr/share/doc/" + ours + "-loader/README.md"} {
			if !slices.Contains(speaks, path) {
				t.Errorf("%s: no %s", layout, path)
			}
		}
	}
}

// TestReproducible builds twice from equal inputs, with everything else unequal.
func TestReproducible(t *testing.T) {
	digests := func(layout string) map[string]string {
		dir := t.TempDir()
		archives := archivetest.Archives(t, dir, sixHelpers()...)
		opts := options(t, filepath.Join(dir, "out"))
		opts.Layout = layout
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
		opts.Layout = layout
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
	dir := t.TempDir()
	archives := archivetest.Archives(t, dir, "alpine-x86_64")
	definition := func(name, data string) func(*linuxpkg.Options) {
		return func(o *linuxpkg.Options) {
			files := overlay(t).(fstest.MapFS)
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
		"release":           {func(o *linuxpkg.Options) { o.Release = 0 }, archives, "release 0: want more than 0"},
		"format":            {func(o *linuxpkg.Options) { o.Formats = []string{"apk"} }, archives, `format "apk": want rpm or deb`},
		"layout":            {func(o *linuxpkg.Options) { o.Layout = "both" }, archives, `layout "both": want split or single`},
		"other version":     {func(o *linuxpkg.Options) { o.Version = version(t, "19.3.1") }, archives, "archive is for GitLab Runner 19.3.0, want 19.3.1"},
		"unknown helper":    {func(o *linuxpkg.Options) { o.Helpers = nil }, archives, "alpine-x86_64: the catalogue has no such helper"},
		"twice":             {func(*linuxpkg.Options) {}, append(archives, archives...), "two archives of one helper"},
		"unknown key":       {definition("all.yaml", "layouts: [split]\nnaem: x\n"), archives, "all.yaml: yaml: unmarshal errors:\n  line 2: field naem not found"},
		"bad each":          {definition("all.yaml", "layouts: [split]\neach: host arch\n"), archives, `all.yaml: each: "host arch": want helper, host or nothing`},
		"bad template":      {definition("all.yaml", "layouts: [split]\nname: '{{.Nmae}}'\n"), archives, "can't evaluate field Nmae"},
		"missing file":      {definition("all.yaml", "layouts: [split]\nname: xy\ncontents: [{src: nothing, dst: /x}]\n"), archives, "open nothing: file does not exist"},
		"bad name":          {definition("all.yaml", "layouts: [split]\nname: X_Y\n"), archives, `name "X_Y" is not of the form`},
		"one name twice":    {definition("other.yaml", "layouts: [split]\nname: gitlab-runner-helper-images-loader\n"), archives, "two packages are called gitlab-runner-helper-images-loader"},
		"host name leaks":   {definition("all.yaml", "layouts: [split]\nname: xy\nrpm: {buildhost: ''}\n"), archives, "no rpm.buildhost"},
		"two documents":     {definition("all.yaml", "name: xy\n---\nname: xz\n"), archives, "all.yaml: more than one YAML document"},
		"own version":       {definition("all.yaml", "layouts: [split]\nname: xy\nversion: '1'\n"), archives, "xy: version 1-1, want 19.3.0-1"},
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
	for method, stored := range map[string]bool{"zstd": true, "gzip": true, "none": false} {
		dir := t.TempDir()
		archives := archivetest.ArchivesOf(t, dir, testutil.Version, archive.Compression{Method: method}, "alpine-x86_64")
		for _, p := range build(t, options(t, dir), archives).Packages {
			if got := metadata(t, p.Path).Compression; got != "gzip" {
				t.Errorf("%s of %s: payload is %s, want gzip", p.Format, method, got)
			}
			if p.Name != "gitlab-runner-helper-images-alpine-amd64" {
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
		}
	}
	if _, err := exec.LookPath("rpm"); err == nil {
		dir := t.TempDir()
		for _, p := range build(t, options(t, dir), archivetest.Archives(t, dir, "alpine-x86_64")).Packages {
			if p.Format == release.RPM {
				if got := run(t, "rpm", "-qp", "--qf", "%{PAYLOADCOMPRESSOR} %{BUILDHOST} %{BUILDTIME}", p.Path); got != fmt.Sprint("gzip localhost ", testutil.Created().Unix()) {
					t.Errorf("%s: %s", p.File, got)
				}
			}
		}
	}
}

// TestScriptlets: each file below scriptlets/ is in a package. IfExists would
// pass over a name that is misspelt.
func TestScriptlets(t *testing.T) {
	dir := t.TempDir()
	opts := options(t, dir)
	packaged := map[string]bool{}
	for _, p := range build(t, opts, archivetest.Archives(t, dir, sixHelpers()...)).Packages {
		m, _, err := readAll(p.Path)
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range m.Scripts {
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

func write(tb testing.TB, path string, data []byte) {
	tb.Helper()
	err := os.MkdirAll(filepath.Dir(path), 0o755)
	if err == nil {
		err = os.WriteFile(path, data, 0o644)
	}
	if err != nil {
		tb.Fatal(err)
	}
}

// readAll reads a package to its end.
func readAll(path string) (pkgread.Metadata, []pkgread.Entry, error) {
	r, err := pkgread.Open(context.Background(), path)
	if err != nil {
		return pkgread.Metadata{}, nil, err
	}
	defer r.Close()
	var entries []pkgread.Entry
	for e, err := range r.Contents() {
		if err != nil {
			return r.Metadata, entries, err
		}
		entries = append(entries, e)
	}
	return r.Metadata, entries, nil
}
