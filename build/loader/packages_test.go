//go:build acceptance

package loader_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"pretag/packaging"

	"pretag/build/archive"
	"pretag/build/catalogue"
	"pretag/build/linuxpkg"
	"pretag/build/release"
	"pretag/build/testutil"
	"pretag/build/testutil/runnertest"
)

const (
	unit      = "gitlab-runner-helper-images.service"
	timer     = "gitlab-runner-helper-images.timer"
	timerLink = "etc/systemd/system/timers.target.wants/" + timer
	stateFile = "var/lib/gitlab-runner-helper-images/images"
	confFile  = "etc/gitlab-runner/helper-images.conf"

	asks       = "systemctl --quiet is-enabled " + unit
	start      = "systemctl --no-block start " + unit
	asksTimer  = "systemctl --quiet is-enabled " + timer
	startTimer = "systemctl --no-block start " + timer
	stop       = "systemctl stop " + timer + " " + unit
)

// A delivery is what one host installs of a build.
type delivery struct {
	layout   string
	file     release.Archive
	packages []release.Package
}

// newRelease builds the packages of a Runner version for this machine.
func newRelease(tb testing.TB, files fs.FS, layout, version string) delivery {
	tb.Helper()
	return newReleaseOf(tb, files, layout, version, testutil.Rootfs(tb, "helper "+version))
}

// newReleaseOf is newRelease with a root filesystem. Every engine takes the archive,
// Docker 20.10 too.
func newReleaseOf(tb testing.TB, files fs.FS, layout, version string, rootfs []byte) delivery {
	tb.Helper()
	h := newHost(tb)
	r := delivery{layout: layout, file: h.write(version, archive.Compression{Method: "gzip"}, rootfs)}
	v, err := catalogue.ParseVersion(version, "12335144")
	if err != nil {
		tb.Fatal(err)
	}
	var loaders map[string]string
	if files == packaging.Files {
		loaders = map[string]string{runtime.GOARCH: loader}
	}
	result, err := linuxpkg.Build(tb.Context(), linuxpkg.Options{
		Files: files, Formats: []string{release.RPM, release.Deb}, Layout: layout,
		Version: v, Release: "1", MTime: testutil.Created(), Out: filepath.Dir(h.archives), Helpers: testutil.Catalogue(tb).Helpers(),
		Maintainer: "Pat Packager <pat@example.com>", Vendor: "Example", Homepage: "https://example.com/pretag",
		Loaders: loaders,
	}, []release.Archive{r.file})
	if err != nil {
		tb.Fatal(err)
	}
	here := map[string][]string{release.Deb: {"all"}, release.RPM: {"noarch"}}
	for format, program := range map[string][]string{release.Deb: {"dpkg", "--print-architecture"}, release.RPM: {"rpm", "--eval", "%_host_cpu"}} {
		out, err := exec.Command(program[0], program[1:]...).Output()
		if err != nil {
			tb.Fatal(err)
		}
		here[format] = append(here[format], strings.TrimSpace(string(out)))
	}
	r.packages = slices.DeleteFunc(result.Packages, func(p release.Package) bool { return !slices.Contains(here[p.Format], p.Arch) })
	return r
}

// runnersOwn is the definition of a package that GitLab Runner might make, of the
// same name as the one that holds our images.
func runnersOwn() fs.FS {
	return fstest.MapFS{
		"common.yaml": {Data: []byte("arch: '{{.Arch}}'\nversion: '{{.Version}}'\nrelease: '{{.Release}}'\nmaintainer: '{{.Maintainer}}'\nrpm: {buildhost: localhost}\n")},
		"own.yaml":    {Data: []byte("layouts: [single]\nname: gitlab-runner-helper-images\ndescription: x\ncontents: [{type: tree, src: archives, dst: /usr/lib/gitlab-runner/helper-images}]\n")},
	}
}

// shellVersion returns the definitions of the version of pretag whose loader was a
// shell script.
func shellVersion() fs.FS { return os.DirFS("testdata/shell") }

// A root is a small Debian in a directory, without an init system and without
// mounts. In place of systemctl and the engines it has programs that write down
// how they are called. What needs no manager, the real systemctl does; what needs
// the manager fails, and must not fail a scriptlet.
type root struct {
	testing.TB
	dir string
}

// debian makes the root that newRoot copies.
var debian = sync.OnceValues(func() (dir string, err error) {
	dir = filepath.Join(scratch, "debian")
	out, err := exec.Command("mmdebstrap", "--quiet", "--variant=essential", "--format=directory", `--aptopt=Acquire::Retries "10"`, "--include=systemd,apt", "bookworm", dir).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("mmdebstrap: %w: %s", err, out)
	}
	return dir, err
})

func newRoot(t *testing.T) root {
	needRoot(t)
	for _, tool := range []string{"mmdebstrap", "dpkg", "chroot", "rpm"} {
		testutil.Tool(t, tool)
	}
	from, err := debian()
	if err != nil {
		testutil.Missing(t, "mmdebstrap", "it cannot fetch Debian: "+err.Error())
	}
	r := root{t, filepath.Join(tempDir(t), "root")}
	r.run("cp", "-a", "--reflink=auto", from, r.dir)
	r.run("mv", r.path("usr/bin/systemctl"), r.path("usr/bin/systemctl-real"))
	const record = "#!/bin/sh\necho ${0##*/} \"$@\" >>/asked\n"
	r.write("usr/bin/podman", record, 0o755)
	r.write("usr/bin/docker", record, 0o755)
	r.write("usr/bin/systemctl", `#!/bin/sh
case $* in *--root=*) ;; *) echo systemctl "$@" >>/asked ;; esac
case $* in *preset* | *is-enabled* | *disable*) SYSTEMD_OFFLINE=1 exec systemctl-real "$@" ;; esac
exit 5
`, 0o755)
	return r
}

func (r root) run(program string, args ...string) string {
	r.Helper()
	cmd := exec.Command(program, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive", "PATH=/usr/sbin:/usr/bin:/sbin:/bin")
	out, err := cmd.CombinedOutput()
	if err != nil {
		r.Fatalf("%s %s: %v\n%s", program, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func (r root) path(name string) string { return filepath.Join(r.dir, name) }

func (r root) write(name, text string, mode fs.FileMode) {
	r.Helper()
	if err := os.MkdirAll(filepath.Dir(r.path(name)), 0o755); err != nil {
		r.Fatal(err)
	}
	if err := os.WriteFile(r.path(name), []byte(text), mode); err != nil {
		r.Fatal(err)
	}
}

func (r root) has(name string) bool {
	_, err := os.Lstat(r.path(name))
	return err == nil
}

// put puts packages of a release into the root: all of them, or those that are named.
func (r root) put(format string, rel delivery, names ...string) (paths []string) {
	r.Helper()
	for _, p := range rel.packages {
		if p.Format != format || len(names) > 0 && !slices.Contains(names, p.Name) {
			continue
		}
		data, err := os.ReadFile(p.Path)
		if err != nil {
			r.Fatal(err)
		}
		r.write("packages/"+p.File, string(data), 0o644)
		paths = append(paths, "/packages/"+p.File)
	}
	return paths
}

// install installs or upgrades packages of a release in one call.
func (r root) install(format string, rel delivery, names ...string) {
	r.Helper()
	paths := r.put(format, rel, names...)
	if format == release.Deb {
		r.run("chroot", append([]string{r.dir, "dpkg", "-i"}, paths...)...)
		return
	}
	for i := range paths {
		paths[i] = r.path(paths[i])
	}
	out := r.run("rpm", append([]string{"--root", r.dir, "-U", "--replacepkgs", "--nodeps", "--nosignature"}, paths...)...)
	if strings.Contains(out, "scriptlet failed") { // rpm continues after it
		r.Errorf("rpm said:\n%s", out)
	}
}

// change is install from one layout to the other, which dpkg alone cannot complete.
func (r root) change(format string, rel delivery) {
	r.Helper()
	if format == release.RPM {
		r.install(format, rel)
		return
	}
	r.run("chroot", append([]string{r.dir, "apt-get", "-y", "-o", "APT::Sandbox::User=root", "-o", "Dpkg::Options::=--force-confold", "install"}, r.put(format, rel)...)...)
}

// boot has systemd run, as far as scriptlets can tell.
func (r root) boot() {
	r.Helper()
	if err := os.MkdirAll(r.path("run/systemd/system"), 0o755); err != nil {
		r.Fatal(err)
	}
}

func (r root) shutDown() {
	r.Helper()
	if err := os.Remove(r.path("run/systemd/system")); err != nil {
		r.Fatal(err)
	}
}

// switchOff is systemctl disable.
func (r root) switchOff() {
	r.Helper()
	for _, link := range glob(r, "etc/systemd/system/*.wants/"+unit) {
		if err := os.Remove(link); err != nil {
			r.Fatal(err)
		}
	}
}

// enableTimer is what the manual says for hosts where images are pruned.
func (r root) enableTimer() {
	r.Helper()
	r.run("chroot", r.dir, "env", "SYSTEMD_OFFLINE=1", "systemctl-real", "enable", timer)
	if !r.has(timerLink) {
		r.Errorf("%s is not enabled", timer)
	}
}

// asked checks how the programs of the root were called since the last time.
func (r root) asked(want ...string) {
	r.Helper()
	if diff := cmp.Diff(strings.Join(want, "\n"), strings.TrimSpace(r.forget())); diff != "" {
		r.Errorf("asked (-want +got):\n%s", diff)
	}
}

// forget returns the calls of the root's programs since the last time.
func (r root) forget() string {
	r.Helper()
	text, err := os.ReadFile(r.path("asked"))
	if err == nil {
		err = os.Remove(r.path("asked"))
	} else if os.IsNotExist(err) {
		err = nil
	}
	if err != nil {
		r.Fatal(err)
	}
	return string(text)
}

func (r root) enabled(want bool) {
	r.Helper()
	for _, by := range []string{"multi-user.target", "gitlab-runner.service", "docker.service", "podman.socket"} {
		if got := r.has("etc/systemd/system/" + by + ".wants/" + unit); got != want {
			r.Errorf("enabled for %s: %t, want %t", by, got, want)
		}
	}
}

// holds checks the installed files, and that the loader accepts its archives.
func (r root) holds(rel delivery) {
	r.Helper()
	archivePath := "usr/lib/gitlab-runner/helper-images/" + rel.file.Name
	for name, mode := range map[string]fs.FileMode{
		"usr/bin/gitlab-runner-helper-images":                                 0o755,
		"usr/lib/systemd/system/" + unit:                                      0o644,
		"usr/lib/systemd/system/" + timer:                                     0o644,
		"usr/lib/systemd/system-preset/80-gitlab-runner-helper-images.preset": 0o644,
		"usr/share/man/man8/gitlab-runner-helper-images.8.gz":                 0o644,
		"usr/share/doc/gitlab-runner-helper-images-loader/README.md":          0o644,
		confFile:                         0o644,
		archivePath:                      0o644,
		archivePath + release.InfoSuffix: 0o644,
	} {
		if info, err := os.Stat(r.path(name)); err != nil {
			r.Error(err)
		} else if info.Mode() != mode {
			r.Errorf("%s: mode %v, want %v", name, info.Mode(), mode)
		}
	}
	r.run("chroot", r.dir, "gitlab-runner-helper-images", "verify")
	if page := r.run("sh", "-c", `zcat "$0" | mandoc -T ascii`, r.path("usr/share/man/man8/gitlab-runner-helper-images.8.gz")); !strings.Contains(page, "so that no job needs a registry") {
		r.Errorf("the manual page reads:\n%s", page)
	}
	if info, err := os.ReadFile(r.path(archivePath + release.InfoSuffix)); err != nil || !bytes.Equal(info, rel.file.Info()) {
		r.Errorf("record: %v\n%s", err, info)
	}
}

// TestPackages installs, upgrades, removes and installs again the real packages,
// in a chroot and where systemd runs, and runs jobs after the installed loader.
func TestPackages(t *testing.T) {
	testutil.Tool(t, "mandoc")
	r := newRoot(t)
	first := newRelease(t, packaging.Files, linuxpkg.Split, "15.8.0")
	second := newReleaseOf(t, packaging.Files, linuxpkg.Split, runnertest.Version, jobRootfs(t))
	const helper = "gitlab-runner-helper-images"
	all := []string{helper, "gitlab-runner-helper-images-loader"}
	step := func(name string, f func(r root)) {
		if !t.Run(name, func(t *testing.T) { f(root{t, r.dir}) }) {
			t.FailNow()
		}
	}

	step("deb, fresh, in a chroot", func(r root) {
		r.install(release.Deb, first)
		r.asked()
		r.enabled(true)
		r.holds(first)
	})
	step("deb, upgrade, with systemd", func(r root) {
		r.boot()
		r.write(confFile, "PRUNE=yes\n", 0o644)
		r.write(stateFile, stateOfEarlier, 0o644)
		r.enableTimer()
		r.install(release.Deb, second)
		r.asked("systemctl --system daemon-reload", "systemctl --system daemon-reload", asks, start, asksTimer, startTimer)
		r.enabled(true)
		r.holds(second)
		r.keeps(confFile, "PRUNE=yes\n")
	})
	step("jobs", func(r root) { testJobs(r, second) })
	step("deb, archive alone", func(r root) {
		r.install(release.Deb, second, helper)
		r.asked(asks, start, asksTimer, startTimer)
	})
	step("deb, switched off", func(r root) {
		r.switchOff()
		r.install(release.Deb, second)
		r.asked("systemctl --system daemon-reload", "systemctl --system daemon-reload", asks, asksTimer, startTimer)
		r.enabled(false)
	})
	step("deb, remove", func(r root) {
		r.run("chroot", append([]string{r.dir, "dpkg", "-r"}, all...)...)
		r.asked(stop, "systemctl --system daemon-reload")
		if !r.has(confFile) || !r.has(stateFile) || !r.has(timerLink) || r.has("usr/bin/gitlab-runner-helper-images") || r.has("usr/lib/gitlab-runner") {
			r.Error("want configuration and state left, and nothing else")
		}
	})
	step("deb, purge and again", func(r root) {
		r.shutDown()
		r.run("chroot", append([]string{r.dir, "dpkg", "-P"}, all...)...)
		if left := leftovers(r); len(left) > 0 {
			r.Errorf("left: %v", left)
		}
		r.install(release.Deb, second)
		r.enabled(true)
		r.run("chroot", append([]string{r.dir, "dpkg", "-P"}, all...)...)
		r.asked()
	})

	step("rpm, fresh, in a chroot", func(r root) {
		r.install(release.RPM, first)
		r.asked("systemctl --no-reload preset " + unit)
		r.enabled(true)
		r.holds(first)
	})
	step("rpm, upgrade, with systemd", func(r root) {
		r.boot()
		r.write(confFile, "PRUNE=yes\n", 0o644)
		r.write(stateFile, stateOfEarlier, 0o644)
		r.enableTimer()
		r.install(release.RPM, second)
		// %posttrans of both; systemd merges requests for what is starting.
		r.asked("systemctl daemon-reload", asks, start, asks, start)
		r.holds(second)
		r.keeps(confFile, "PRUNE=yes\n")
	})
	step("rpm, remove and again", func(r root) {
		r.shutDown()
		if !r.has(timerLink) {
			r.Error("the upgrade has switched the timer off")
		}
		r.run("rpm", append([]string{"--root", r.dir, "-e", "--nodeps"}, all...)...)
		r.asked()
		r.enabled(false)
		if !r.has(confFile+".rpmsave") || r.has(confFile) || r.has(filepath.Dir(stateFile)) || r.has(timerLink) || r.has("usr/lib/gitlab-runner") {
			r.Error("want the changed configuration saved, and nothing else left")
		}
		r.install(release.RPM, second)
		r.asked("systemctl --no-reload preset " + unit)
		r.holds(second)
	})
}

// TestLayouts goes from Runner's own package through both layouts, and from the
// packages of the shell version to both. What the admin has decided stays: the
// configuration, the state, and whether unit and timer are enabled.
func TestLayouts(t *testing.T) {
	testutil.Tool(t, "mandoc")
	r := newRoot(t)
	build := func(files fs.FS, layout, version string) delivery {
		return newRelease(t, files, layout, version)
	}
	own := build(runnersOwn(), linuxpkg.Single, "19.1.0")
	single, split := build(packaging.Files, linuxpkg.Single, "19.2.0"), build(packaging.Files, linuxpkg.Split, "19.3.0")
	laterSingle, laterSplit := build(packaging.Files, linuxpkg.Single, "19.4.0"), build(packaging.Files, linuxpkg.Split, "19.5.0")
	shell := map[string]delivery{
		linuxpkg.Single: build(shellVersion(), linuxpkg.Single, "18.11.0"),
		linuxpkg.Split:  build(shellVersion(), linuxpkg.Split, "18.11.0"),
	}
	for _, format := range []string{release.Deb, release.RPM} {
		t.Run(format+", between layouts", func(t *testing.T) {
			r := root{t, r.dir}
			r.change(format, own)
			for i, rel := range []delivery{single, split, laterSingle} {
				r.change(format, rel)
				r.enabled(true)
				r.holds(rel)
				if i == 0 {
					r.write(stateFile, stateOfEarlier, 0o644)
				}
				r.keeps(stateFile, stateOfEarlier)
			}
			r.switchOff()
			r.change(format, laterSplit)
			r.enabled(false)
			r.holds(laterSplit)
			r.keeps(stateFile, stateOfEarlier)
			r.purge(format)
		})
		for _, upgrade := range []struct {
			from string
			to   delivery
		}{{linuxpkg.Single, single}, {linuxpkg.Single, split}, {linuxpkg.Split, single}, {linuxpkg.Split, split}} {
			for _, enabled := range []bool{true, false} {
				t.Run(fmt.Sprintf("%s, shell version, %s to %s, enabled %t", format, upgrade.from, upgrade.to.layout, enabled), func(t *testing.T) {
					root{t, r.dir}.upgradeShellVersion(format, shell[upgrade.from], upgrade.to, enabled)
				})
			}
		}
	}
}

// upgradeShellVersion upgrades the packages of the shell version, where systemd runs.
func (r root) upgradeShellVersion(format string, old, to delivery, enabled bool) {
	r.Helper()
	const conf = "PRUNE=yes\n"
	r.boot()
	r.install(format, old)
	r.enabled(true)
	if format == release.RPM && !r.has("var/lib/gitlab-runner-helper-images/preset") {
		r.Error("the shell version has left no mark that its unit was preset")
	}
	r.write(confFile, conf, 0o644)
	r.write(stateFile, stateOfEarlier, 0o644)
	r.enableTimer()
	if !enabled {
		r.switchOff()
	}
	r.forget()
	r.change(format, to)
	r.enabled(enabled)
	r.holds(to)
	r.keeps(confFile, conf)
	r.keeps(stateFile, stateOfEarlier)
	if !r.has(timerLink) {
		r.Error("the upgrade has disabled the timer")
	}
	if asked := r.forget(); strings.Contains(asked, start) != enabled {
		r.Errorf("the unit is started: %t, want %t:\n%s", !enabled, enabled, asked)
	}
	r.shutDown()
	r.purge(format)
}

// stateOfEarlier is a line of the state that the shell version wrote.
const stateOfEarlier = "podman root localhost/x:1 0 0 loaded\n"

// keeps checks that a file has the text.
func (r root) keeps(name, want string) {
	r.Helper()
	if text, err := os.ReadFile(r.path(name)); err != nil || string(text) != want {
		r.Errorf("%s: %v, %q, want %q", name, err, text, want)
	}
}

// purge removes all packages of the project, and checks that nothing is left.
func (r root) purge(format string) {
	r.Helper()
	query := []string{"chroot", r.dir, "dpkg-query", "--show", "--showformat=${Package} ${db:Status-Status}\n", "gitlab-runner*"}
	if format == release.RPM {
		query = []string{"rpm", "--root", r.dir, "-qa", "--queryformat=%{NAME} installed\n", "gitlab-runner*"}
	}
	var names []string
	for line := range strings.Lines(r.run(query[0], query[1:]...)) {
		if name, ok := strings.CutSuffix(line, " installed\n"); ok { // dpkg also knows names that packages provide
			names = append(names, name)
		}
	}
	if len(names) != 2 {
		r.Errorf("packages %v, want the images and the loader", names)
	}
	if format == release.RPM {
		r.run("rpm", append([]string{"--root", r.dir, "-e", "--nodeps"}, names...)...)
		if r.has(filepath.Dir(stateFile)) {
			r.Error("the state is left")
		}
		if err := os.RemoveAll(r.path(filepath.Dir(confFile))); err != nil {
			r.Fatal(err)
		}
	} else {
		r.run("chroot", append([]string{r.dir, "dpkg", "-P"}, names...)...)
		if files := leftovers(r); len(files) > 0 {
			r.Errorf("left: %v", files)
		}
	}
	if r.Failed() {
		r.FailNow()
	}
}

// host is the installed loader and its archives, for an engine of the machine.
func (r root) host(tb testing.TB, e engine) *host {
	h := newHost(tb, e.settings...)
	h.loader = r.path("usr/bin/gitlab-runner-helper-images")
	h.settings = append(h.settings, "ARCHIVES="+r.path("usr/lib/gitlab-runner/helper-images"))
	return h
}

// leftovers is what no purged package may leave.
func leftovers(r root) []string {
	r.Helper()
	var left []string
	for _, pattern := range []string{"etc/gitlab-runner*", "etc/systemd/system/*/gitlab-runner*", "var/lib/gitlab-runner*", "var/lib/*/*gitlab-runner*"} {
		left = append(left, glob(r, pattern)...)
	}
	return left
}

func glob(r root, pattern string) []string {
	r.Helper()
	paths, err := filepath.Glob(r.path(pattern))
	if err != nil {
		r.Fatal(err)
	}
	return paths
}
