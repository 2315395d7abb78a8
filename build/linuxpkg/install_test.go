package linuxpkg_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/goreleaser/nfpm/v2"
	"github.com/goreleaser/nfpm/v2/files"

	"pretag/build/linuxpkg"
	"pretag/build/release"
	"pretag/build/testutil"
	"pretag/build/testutil/archivetest"
)

const ours = "gitlab-runner-helper-images"

// standIn makes a package that somebody else would: GitLab Runner's own, or
// what a distribution has.
func standIn(tb testing.TB, format, dir, name, version string, edit func(*nfpm.Info), paths ...string) string {
	tb.Helper()
	arch := map[string]string{release.RPM: "noarch", release.Deb: "all"}[format]
	info := &nfpm.Info{Name: name, Arch: arch, Platform: "linux", Version: version, Release: "1", Maintainer: "x <x@example.com>", Description: "Stand-in", MTime: testutil.Created()}
	source := filepath.Join(dir, "stand-in")
	write(tb, source, []byte(name+version))
	for _, path := range paths {
		info.Contents = append(info.Contents, &files.Content{
			Source: source, Destination: path, FileInfo: &files.ContentFileInfo{Owner: "root", Group: "root", Mode: 0o644},
		})
	}
	if edit != nil {
		edit(info)
	}
	packager, err := nfpm.Get(format)
	if err != nil {
		tb.Fatal(err)
	}
	path := filepath.Join(dir, packager.ConventionalFileName(info))
	f, err := os.Create(path)
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	if err := packager.Package(info, f); err != nil {
		tb.Fatal(err)
	}
	return path
}

// A packager makes the stand-in of one package.
type packager func(tb testing.TB, format, dir, version string) string

// base is what the packages need of a distribution.
func base(tb testing.TB, format, dir string) string {
	return standIn(tb, format, dir, "base", "1", func(info *nfpm.Info) {
		info.Provides = []string{"zstd"}
		if format == release.RPM {
			info.Provides = append(info.Provides, "/bin/sh")
		}
	}, "/usr/bin/zstd")
}

// runner is gitlab-runner 17.7.0 and later.
func runner(tb testing.TB, format, dir, version string) string {
	return standIn(tb, format, dir, "gitlab-runner", version, func(info *nfpm.Info) {
		info.Depends = []string{ours + " = " + version + "-1"}
		if format == release.Deb {
			info.Depends = []string{ours + " (= " + version + "-1)"}
		}
	}, "/usr/bin/gitlab-runner")
}

// fips is gitlab-runner-fips, which requires no package of helper images.
func fips(tb testing.TB, format, dir, version string) string {
	return standIn(tb, format, dir, "gitlab-runner-fips", version, nil, "/usr/bin/gitlab-runner")
}

// runnersOwn is Runner's own package of helper images, with the files of 17.7.0 to 19.3.0.
func runnersOwn(tb testing.TB, format, dir, version string) string {
	return standIn(tb, format, dir, ours, version, nil, ownFiles()...)
}

func ownFiles() (paths []string) {
	for _, name := range []string{
		"alpine-arm", "alpine-arm64", "alpine-riscv64", "alpine-s390x", "alpine-x86_64", "alpine-x86_64-pwsh",
		"ubuntu-arm", "ubuntu-arm64", "ubuntu-ppc64le", "ubuntu-s390x", "ubuntu-x86_64", "ubuntu-x86_64-pwsh",
	} {
		paths = append(paths, "/usr/lib/gitlab-runner/helper-images/prebuilt-"+name+".tar.xz")
	}
	return paths
}

// later is a package of Runner's that one day carries files named like ours.
func later(tb testing.TB, format, dir, version string) string {
	return standIn(tb, format, dir, ours, version, nil, "/usr/lib/gitlab-runner/helper-images/prebuilt-alpine-x86_64.docker.tar.zst")
}

// A host is a root of its own with rpm or dpkg on it.
type host struct {
	testing.TB
	format, root string
}

func newHost(t *testing.T, format string) host {
	testutil.Root(t, format+" changes its root")
	h := host{t, format, t.TempDir()}
	switch format {
	case release.RPM:
		testutil.Tool(t, "rpm")
		run(t, "rpm", "--root", h.root, "--initdb")
	case release.Deb:
		testutil.Tool(t, "dpkg")
		for _, dir := range []string{"info", "updates", "parts", "triggers", "alternatives"} {
			if err := os.MkdirAll(filepath.Join(h.root, "var/lib/dpkg", dir), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		write(t, filepath.Join(h.root, "var/lib/dpkg/status"), nil)
		write(t, filepath.Join(h.root, "var/lib/dpkg/available"), nil)
	}
	return h
}

// install installs, upgrades or downgrades in one call.
func (h host) install(paths ...string) {
	h.Helper()
	if h.format == release.RPM {
		run(h, "rpm", append([]string{"--root", h.root, "-U", "--oldpackage", "--ignorearch", "--nosignature"}, paths...)...)
		return
	}
	run(h, "dpkg", append([]string{"--root=" + h.root, "--log=/dev/null", "--force-architecture", "--auto-deconfigure", "-i"}, paths...)...)
}

// try installs or upgrades where nothing stands in the way.
func (h host) try(paths ...string) (string, error) {
	if h.format == release.RPM {
		return try("rpm", append([]string{"--root", h.root, "-U", "--nosignature"}, paths...)...)
	}
	return try("dpkg", append([]string{"--root=" + h.root, "--log=/dev/null", "-i"}, paths...)...)
}

// apt runs apt-get on a deb host.
func (h host) apt(args ...string) {
	h.Helper()
	for _, dir := range []string{"etc/apt/preferences.d", "etc/apt/apt.conf.d", "etc/apt/sources.list.d", "etc/apt/trusted.gpg.d", "var/lib/apt/lists/partial", "var/cache/apt/archives/partial", "var/log/apt"} {
		if err := os.MkdirAll(filepath.Join(h.root, dir), 0o755); err != nil {
			h.Fatal(err)
		}
	}
	run(h, "apt-get", append([]string{
		"-y", "-o", "Dir=" + h.root, "-o", "Dir::State::status=" + filepath.Join(h.root, "var/lib/dpkg/status"), "-o", "Dir::Bin::dpkg=/usr/bin/dpkg",
		"-o", "Dpkg::Options::=--root=" + h.root, "-o", "Dpkg::Options::=--log=/dev/null",
		"-o", "APT::Architecture=amd64", "-o", "APT::Architectures=amd64", "-o", "APT::Sandbox::User=root", "-o", "APT::Install-Recommends=true",
	}, args...)...)
}

// remove removes, and purges where the format tells the two apart.
func (h host) remove(names ...string) {
	h.Helper()
	if h.format == release.RPM {
		run(h, "rpm", append([]string{"--root", h.root, "-e", "--nodeps"}, names...)...)
		return
	}
	run(h, "dpkg", append([]string{"--root=" + h.root, "--log=/dev/null", "--force-depends", "-r"}, names...)...)
}

// installed lists the installed packages as name version.
func (h host) installed() []string {
	h.Helper()
	var out string
	if h.format == release.RPM {
		out = run(h, "rpm", "--root", h.root, "-qa", "--qf", "%{NAME} %{VERSION}-%{RELEASE}\n")
	} else {
		out = run(h, "dpkg-query", "--admindir="+filepath.Join(h.root, "var/lib/dpkg"), "-W", "-f", "${db:Status-Abbrev}${Package} ${Version}\n")
		var lines strings.Builder
		for line := range strings.Lines(out) {
			if installed, ok := strings.CutPrefix(line, "ii "); ok {
				lines.WriteString(installed)
			} else if !strings.HasPrefix(line, "rc ") && !strings.HasPrefix(line, "un ") {
				h.Errorf("half installed: %s", line)
			}
		}
		out = lines.String()
	}
	list := strings.Split(strings.TrimSpace(out), "\n")
	slices.Sort(list)
	return list
}

// files lists what is on the host beside the package manager's own.
func (h host) files() []string {
	h.Helper()
	var paths []string
	err := filepath.WalkDir(h.root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		switch path := strings.TrimPrefix(path, h.root); {
		case path == "/var" || path == "/root": // Debian's rpm keeps its database in /root
			return fs.SkipDir
		case !d.IsDir():
			paths = append(paths, path)
		}
		return nil
	})
	if err != nil {
		h.Fatal(err)
	}
	return paths
}

// holds checks that exactly these packages are on the host, each whole, and no
// other file.
func (h host) holds(paths ...string) {
	h.Helper()
	var wantFiles, wantPackages []string
	for _, path := range paths {
		m, entries, err := readAll(path)
		if err != nil {
			h.Fatal(err)
		}
		wantPackages = append(wantPackages, fmt.Sprintf("%s %s-%s", m.Name, m.Version, m.Release))
		for _, e := range entries {
			if !e.Mode.IsDir() {
				wantFiles = append(wantFiles, e.Path)
			}
		}
		if h.format == release.RPM {
			run(h, "rpm", "--root", h.root, "-V", "--nodeps", "--noscripts", m.Name)
		} else if out := run(h, "dpkg", "--root="+h.root, "-V", m.Name); out != "" {
			h.Errorf("dpkg -V %s: %s", m.Name, out)
		}
	}
	slices.Sort(wantFiles)
	slices.Sort(wantPackages)
	if diff := cmp.Diff(wantPackages, h.installed()); diff != "" {
		h.Errorf("packages (-want +got):\n%s", diff)
	}
	got := h.files()
	slices.Sort(got)
	if diff := cmp.Diff(wantFiles, got); diff != "" {
		h.Errorf("files (-want +got):\n%s", diff)
	}
}

// A delivery is a build of ours for one Runner version.
type delivery struct {
	split  []string // what one host takes of the split layout
	single []string
}

func newRelease(t *testing.T, runner string) delivery {
	t.Helper()
	dir := t.TempDir()
	opts := options(t, dir)
	opts.Version = version(t, runner)
	opts.Files = overlay(t)
	archives := archivetest.ArchivesOf(t, dir, runner, fixtureCompression(), sixHelpers()...)
	split := build(t, opts, archives).Packages
	opts.Out, opts.Layout = filepath.Join(dir, "single"), linuxpkg.Single
	single := build(t, opts, archives).Packages
	var r delivery
	for _, p := range split {
		switch p.Name + " " + p.Arch {
		case ours + " x86_64", ours + " amd64",
			ours + "-loader noarch", ours + "-loader all",
			ours + "-alpine-amd64 noarch", ours + "-alpine-amd64 all",
			ours + "-ubuntu-amd64 noarch", ours + "-ubuntu-amd64 all":
			r.split = append(r.split, p.Path)
		}
	}
	for _, p := range single {
		r.single = append(r.single, p.Path)
	}
	return r
}

// of keeps the packages of one format.
func of(format string, paths []string) []string {
	return slices.DeleteFunc(slices.Clone(paths), func(path string) bool { return filepath.Ext(path) != "."+format })
}

// TestLifecycle: from Runner's own package through both layouts, up and down,
// to removal. gitlab-runner is there to the end.
func TestLifecycle(t *testing.T) {
	r1, r2, r3 := newRelease(t, "19.3.0"), newRelease(t, "19.4.0"), newRelease(t, "19.5.0")
	for _, format := range []string{release.RPM, release.Deb} {
		t.Run(format, func(t *testing.T) {
			h, dir := newHost(t, format), t.TempDir()
			base := base(t, format, dir)
			step := func(name string, packages ...string) {
				t.Helper()
				if name == "single over split" && format == release.Deb {
					// dpkg alone takes back one conflict of several when the
					// package replaces one that depends on them (1.21.22,
					// src/main/depcon.c, depisok); apt removes them all.
					testutil.Tool(t, "apt-get")
					h.apt(append([]string{"install"}, packages...)...)
				} else {
					h.install(packages...)
				}
				h.holds(append(packages, base)...)
				if t.Failed() {
					t.Fatalf("after: %s", name)
				}
			}
			with := func(version string, packages []string) []string {
				return append(of(format, packages), runner(t, format, dir, version))
			}
			h.install(base)
			step("Runner's own", runnersOwn(t, format, dir, "19.2.0"), runner(t, format, dir, "19.2.0"))
			step("split over Runner's own", with("19.3.0", r1.split)...)
			step("upgrade", with("19.4.0", r2.split)...)
			step("downgrade", with("19.3.0", r1.split)...)
			step("single over split", with("19.4.0", r2.single)...)
			step("split over single", with("19.5.0", r3.split)...)
			h.remove(ours, ours+"-loader", ours+"-alpine-amd64", ours+"-ubuntu-amd64")
			if format == release.Deb {
				if got := h.files(); !slices.Contains(got, "/etc/gitlab-runner/helper-images.conf") {
					t.Errorf("removal took the configuration: %q", got)
				}
				run(t, "dpkg", "--root="+h.root, "--log=/dev/null", "-P", ours+"-loader")
			}
			h.holds(runner(t, format, dir, "19.5.0"), base)
		})
	}
}

// TestFromLater: Runner's package may one day carry files of our names.
func TestFromLater(t *testing.T) {
	r := newRelease(t, "19.4.0")
	for _, format := range []string{release.RPM, release.Deb} {
		for layout, packages := range map[string][]string{linuxpkg.Split: r.split, linuxpkg.Single: r.single} {
			t.Run(format+" "+layout, func(t *testing.T) {
				h, dir := newHost(t, format), t.TempDir()
				base := base(t, format, dir)
				h.install(base, later(t, format, dir, "19.3.0"), runner(t, format, dir, "19.3.0"))
				all := append(of(format, packages), runner(t, format, dir, "19.4.0"))
				h.install(all...)
				h.holds(append(all, base)...)
			})
		}
	}
}

// TestFromMonolith: gitlab-runner below 17.7.0 has the images itself.
func TestFromMonolith(t *testing.T) {
	r := newRelease(t, "19.3.0")
	for _, format := range []string{release.RPM, release.Deb} {
		for layout, packages := range map[string][]string{linuxpkg.Split: r.split, linuxpkg.Single: r.single} {
			t.Run(format+" "+layout, func(t *testing.T) {
				h, dir := newHost(t, format), t.TempDir()
				base := base(t, format, dir)
				h.install(base, standIn(t, format, dir, "gitlab-runner", "17.6.0", nil, append(ownFiles(), "/usr/bin/gitlab-runner")...))
				all := append(of(format, packages), runner(t, format, dir, "19.3.0"))
				h.install(all...)
				h.holds(append(all, base)...)
			})
		}
	}
}

// TestBesideOldRunner: the images for 15.8.0 go beside the one package that it is.
func TestBesideOldRunner(t *testing.T) {
	r := newRelease(t, "15.8.0")
	for _, format := range []string{release.RPM, release.Deb} {
		for layout, packages := range map[string][]string{linuxpkg.Split: r.split, linuxpkg.Single: r.single} {
			t.Run(format+" "+layout, func(t *testing.T) {
				h, dir := newHost(t, format), t.TempDir()
				all := append(of(format, packages), base(t, format, dir),
					standIn(t, format, dir, "gitlab-runner", "15.8.0", nil, append(ownFiles(), "/usr/bin/gitlab-runner")...))
				h.install(all...)
				h.holds(all...)
			})
		}
	}
}

// TestStale: a newer GitLab Runner would take the files that are left for its own.
func TestStale(t *testing.T) {
	r := newRelease(t, "19.3.0")
	for _, format := range []string{release.RPM, release.Deb} {
		for _, test := range []struct {
			name   string
			ours   []string
			runner packager
			newer  []packager
			stale  string
		}{
			{"split", r.split, runner, []packager{runnersOwn, runner}, ours + "-alpine-amd64"},
			{"split, fips", r.split, fips, []packager{fips}, ours + "-alpine-amd64"},
			{"single, fips", r.single, fips, []packager{fips}, ours},
		} {
			t.Run(format+" "+test.name, func(t *testing.T) {
				h, dir := newHost(t, format), t.TempDir()
				h.install(append(of(format, test.ours), base(t, format, dir), test.runner(t, format, dir, "19.3.0"))...)
				var newer []string
				for _, makes := range test.newer {
					newer = append(newer, makes(t, format, dir, "19.4.0"))
				}
				if out, err := h.try(newer...); err == nil || !strings.Contains(out, test.stale) {
					t.Errorf("GitLab Runner 19.4.0 goes beside images of 19.3.0: %v\n%s", err, out)
				}
			})
		}
	}
}

// TestTakeover: no split deb takes files of an older single one that stays. rpm
// refuses files that differ, and counts the owners of equal ones.
func TestTakeover(t *testing.T) {
	before, after := newRelease(t, "19.3.0"), newRelease(t, "19.4.0")
	for _, path := range of(release.Deb, after.split) {
		name := metadata(t, path).Name
		if name == ours {
			continue // the metapackage takes its place, by its name
		}
		t.Run(name, func(t *testing.T) {
			h, dir := newHost(t, release.Deb), t.TempDir()
			all := append(of(release.Deb, before.single), base(t, release.Deb, dir), runner(t, release.Deb, dir, "19.3.0"))
			h.install(all...)
			if out, err := h.try(path); err == nil || !strings.Contains(out, ours+"-single") {
				t.Errorf("goes beside the single layout: %v\n%s", err, out)
			}
			h.holds(all...)
		})
	}
}

// TestDNF: dnf finds in a repository what one host needs, and nothing else.
func TestDNF(t *testing.T) {
	testutil.Tool(t, "dnf")
	testutil.Tool(t, "createrepo_c")
	testutil.Root(t, "dnf changes its root")
	repo, root := t.TempDir(), t.TempDir()
	buildRepo(t, repo, release.RPM, "19.3.0")
	run(t, "createrepo_c", "-q", repo)
	dnf := func(args ...string) string {
		t.Helper()
		return run(t, "dnf", append([]string{
			"-y", "--installroot", root, "--releasever", "1", "--forcearch", "x86_64", "--nogpgcheck", "--setopt", "reposdir=/nonexistent",
			"--setopt", "cachedir=" + filepath.Join(root, "cache"), "--setopt", "persistdir=" + filepath.Join(root, "persist"),
			"--setopt", "logdir=" + filepath.Join(root, "log"), "--repofrompath", "test," + repo, "--repo", "test",
		}, args...)...)
	}
	if err := os.Mkdir(filepath.Join(root, "log"), 0o755); err != nil {
		t.Fatal(err)
	}
	h := host{t, release.RPM, root}
	dnf("install", "gitlab-runner-19.3.0")
	want := []string{
		"base 1-1", "gitlab-runner 19.3.0-1", ours + " 19.3.0-1", ours + "-alpine-amd64 19.3.0-1",
		ours + "-loader 19.3.0-1", ours + "-ubuntu-amd64 19.3.0-1",
	}
	if diff := cmp.Diff(want, h.installed()); diff != "" {
		t.Errorf("installed (-want +got):\n%s", diff)
	}
	buildRepo(t, repo, release.RPM, "19.4.0")
	run(t, "createrepo_c", "-q", repo)
	dnf("--refresh", "upgrade")
	for i := range want[1:] {
		want[i+1] = strings.ReplaceAll(want[i+1], "19.3.0", "19.4.0")
	}
	if diff := cmp.Diff(want, h.installed()); diff != "" {
		t.Errorf("upgraded (-want +got):\n%s", diff)
	}
	dnf("install", ours+"-all")
	if got := len(h.installed()); got != len(want)+1+len(sixHelpers())-2 {
		t.Errorf("with -all %d packages: %q", got, h.installed())
	}
	dnf("downgrade", "gitlab-runner-19.3.0", ours+"*19.3.0*")
	for _, p := range h.installed() {
		if strings.HasSuffix(p, "19.4.0-1") {
			t.Errorf("not downgraded: %s", p)
		}
	}
}

// buildRepo puts a build of ours and the stand-ins of its Runner into dir.
func buildRepo(t *testing.T, dir, format, runnerVersion string) {
	t.Helper()
	opts := options(t, dir)
	opts.Version, opts.Formats, opts.Files = version(t, runnerVersion), []string{format}, overlay(t)
	base(t, format, dir)
	runner(t, format, dir, runnerVersion)
	archives := archivetest.ArchivesOf(t, t.TempDir(), runnerVersion, fixtureCompression(), sixHelpers()...)
	build(t, opts, archives)
}

// TestAPT: apt finds in a repository what one host needs, also coming from
// Runner's own package, from the monolith and from either layout.
func TestAPT(t *testing.T) {
	testutil.Tool(t, "apt-get")
	testutil.Tool(t, "dpkg-scanpackages")
	earlier := newRelease(t, "19.2.0")
	for _, from := range []string{"nothing", "own", "monolith", linuxpkg.Split, linuxpkg.Single} {
		t.Run(from, func(t *testing.T) {
			h, repo := newHost(t, release.Deb), t.TempDir()
			buildRepo(t, repo, release.Deb, "19.3.0")
			write(t, filepath.Join(h.root, "etc/apt/sources.list"), []byte("deb [trusted=yes] file:"+repo+" ./\n"))
			write(t, filepath.Join(repo, "Packages"), []byte(run(t, "sh", "-c", "cd "+repo+" && dpkg-scanpackages -m . 2>/dev/null")))
			dir := t.TempDir()
			switch from {
			case "own":
				h.install(base(t, release.Deb, dir), runnersOwn(t, release.Deb, dir, "19.2.0"), runner(t, release.Deb, dir, "19.2.0"))
			case linuxpkg.Split:
				h.install(append(of(release.Deb, earlier.split), base(t, release.Deb, dir), runner(t, release.Deb, dir, "19.2.0"))...)
			case linuxpkg.Single:
				h.install(append(of(release.Deb, earlier.single), base(t, release.Deb, dir), runner(t, release.Deb, dir, "19.2.0"))...)
			case "monolith":
				h.install(base(t, release.Deb, dir), standIn(t, release.Deb, dir, "gitlab-runner", "17.6.0", nil, append(ownFiles(), "/usr/bin/gitlab-runner")...))
			}
			h.apt("update")
			if from == "nothing" {
				h.apt("install", "gitlab-runner")
			} else {
				h.apt("dist-upgrade")
			}
			want := []string{
				"base 1-1", "gitlab-runner 19.3.0-1", ours + " 19.3.0-1", ours + "-alpine-amd64 19.3.0-1",
				ours + "-loader 19.3.0-1", ours + "-ubuntu-amd64 19.3.0-1",
			}
			if diff := cmp.Diff(want, h.installed()); diff != "" {
				t.Errorf("installed (-want +got):\n%s", diff)
			}
			h.apt("autoremove", "--purge", "gitlab-runner")
			if from != "nothing" {
				return // installed by hand, so not automatically
			}
			if got := h.installed(); len(got) != 1 || got[0] != "" {
				t.Errorf("left: %q", got)
			}
		})
	}
}
