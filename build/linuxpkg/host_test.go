//go:build acceptance

package linuxpkg_test

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goreleaser/nfpm/v2"
	"github.com/goreleaser/nfpm/v2/files"

	"pretag/build/release"
	"pretag/build/testutil"
	"pretag/build/testutil/archivetest"
)

// A stub is a package that this build does not make: GitLab's own, or one of an earlier
// pretag.
type stub struct {
	name, version string
	arch          string   // "" for all
	vendor        string   // "" for GitLab's
	depends       []string // name, or "name op version"
	recommends    []string
	provides      []string
	conflicts     []string // deb: Breaks
	replaces      []string // deb: Replaces and Conflicts; rpm: Obsoletes
	files         []string
}

const imagesDir = "/usr/lib/gitlab-runner/helper-images/"

// runner is gitlab-runner from 17.7.1 on.
func runner(version string) stub {
	return stub{name: "gitlab-runner", version: version, arch: "amd64", depends: []string{ours + " = " + version + "-1"}, files: []string{"/usr/bin/gitlab-runner"}}
}

// monolith is gitlab-runner below 17.7.0, which has the images itself.
func monolith(version string) stub {
	return stub{name: "gitlab-runner", version: version, arch: "amd64", files: []string{"/usr/bin/gitlab-runner", imagesDir + "prebuilt-alpine-x86_64.tar.xz"}}
}

// fips is gitlab-runner-fips, which requires no package of helper images.
func fips(version string) stub {
	return stub{name: "gitlab-runner-fips", version: version, arch: "amd64", files: []string{"/usr/bin/gitlab-runner"}}
}

// runnersOwn is GitLab's own package of helper images from 17.7.0 on.
func runnersOwn(version string) stub {
	return stub{name: ours, version: version, files: []string{imagesDir + "prebuilt-alpine-x86_64.tar.xz", imagesDir + "prebuilt-ubuntu-x86_64.tar.xz"}}
}

// earlierSplit is what one host had of the split layout of the first pretag.
func earlierSplit(version string) []stub {
	exact := func(suffix string) string { return ours + suffix + " = " + version + "-1" }
	archive := func(flavor string) []string {
		return []string{imagesDir + "prebuilt-" + flavor + "-x86_64.docker.tar.zst", imagesDir + "prebuilt-" + flavor + "-x86_64.docker.tar.zst.info"}
	}
	newer := []string{"gitlab-runner > " + version + "-1"}
	return []stub{
		{name: ours, version: version, arch: "amd64", vendor: "Example", depends: []string{exact("-loader"), exact("-alpine-amd64")}, recommends: []string{exact("-ubuntu-amd64")}},
		{name: ours + "-alpine-amd64", version: version, vendor: "Example", conflicts: newer, files: archive("alpine")},
		{name: ours + "-ubuntu-amd64", version: version, vendor: "Example", conflicts: newer, files: archive("ubuntu")},
		{name: ours + "-loader", version: version, vendor: "Example", files: loaderFiles()},
		{name: ours + "-all", version: version, vendor: "Example", depends: []string{exact("-alpine-amd64"), exact("-ubuntu-amd64")}},
	}
}

// earlierSingle is the single layout of the first pretag, with the loader in it.
func earlierSingle(version string) stub {
	s := stub{
		name: ours, version: version, vendor: "Example", provides: []string{ours + "-single = " + version + "-1"},
		replaces: []string{ours + "-loader <= " + version + "-1", ours + "-alpine-amd64 <= " + version + "-1"},
		files:    []string{imagesDir + "prebuilt-alpine-x86_64.docker.tar.zst", imagesDir + "prebuilt-ubuntu-x86_64.docker.tar.zst", imagesDir + "prebuilt-alpine-x86_64-pwsh.docker.tar.zst"},
	}
	s.files = append(s.files, loaderFiles()...)
	return s
}

func loaderFiles() []string {
	return []string{"/usr/bin/gitlab-runner-helper-images", "/etc/gitlab-runner/helper-images.conf", "/usr/lib/systemd/system/gitlab-runner-helper-images.service"}
}

// write makes the package and returns its path.
func (s stub) write(tb testing.TB, format, dir string) string {
	tb.Helper()
	words := map[string]map[string]string{release.RPM: {"": "noarch", "amd64": "x86_64", "386": "i686"}, release.Deb: {"": "all", "amd64": "amd64", "386": "i386"}}
	relations := func(list []string) (spelled []string) {
		for _, relation := range list {
			if fields := strings.Fields(relation); format == release.Deb && len(fields) == 3 {
				op := map[string]string{">": ">>", "<": "<<"}[fields[1]]
				if op == "" {
					op = fields[1]
				}
				relation = fmt.Sprintf("%s (%s %s)", fields[0], op, fields[2])
			}
			spelled = append(spelled, relation)
		}
		return spelled
	}
	vendor := s.vendor
	if vendor == "" {
		vendor = "GitLab Inc."
	}
	info := &nfpm.Info{
		Name: s.name, Arch: words[format][s.arch], Platform: "linux", Version: s.version, Release: "1", Vendor: vendor,
		Maintainer: "x <x@example.com>", Description: "Stub", MTime: testutil.Created(),
		Overridables: nfpm.Overridables{Depends: relations(s.depends), Recommends: relations(s.recommends), Provides: relations(s.provides), Replaces: relations(s.replaces)},
	}
	if format == release.Deb {
		info.Deb.Breaks, info.Conflicts = relations(s.conflicts), relations(s.replaces)
	} else {
		info.Conflicts = relations(s.conflicts)
	}
	source := filepath.Join(tb.TempDir(), "stub")
	write(tb, source, []byte(s.name+s.version))
	for _, path := range s.files {
		kind := files.TypeFile
		if strings.HasPrefix(path, "/etc/") {
			kind = files.TypeConfigNoReplace
		}
		info.Contents = append(info.Contents, &files.Content{
			Source: source, Destination: path, Type: kind, FileInfo: &files.ContentFileInfo{Owner: "root", Group: "root", Mode: 0o644},
		})
	}
	packager, err := nfpm.Get(format)
	if err != nil {
		tb.Fatal(err)
	}
	path := filepath.Join(dir, packager.ConventionalFileName(info))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		tb.Fatal(err)
	}
	f, err := os.Create(path)
	if err != nil {
		tb.Fatal(err)
	}
	if err := errors.Join(packager.Package(info, f), f.Close()); err != nil {
		tb.Fatal(err)
	}
	return path
}

// writeOurs puts a build of ours for amd64 hosts into dir/<format>.
func writeOurs(tb testing.TB, dir, runner, iteration, layout string, loader map[string]string) {
	tb.Helper()
	opts := options(tb, dir)
	opts.Version, opts.Release, opts.Layout, opts.Loaders, opts.Files = version(tb, runner), iteration, layout, loader, overlay(tb)
	build(tb, opts, archivetest.ArchivesOf(tb, tb.TempDir(), runner, fixtureCompression(), "alpine-x86_64", "ubuntu-x86_64", "alpine-x86_64-pwsh"))
}

// A host is a root of its own with packages in it, and one package manager.
type host struct {
	testing.TB
	tool   string // apt, dnf or zypper
	prefix string // the root in which the package manager runs, "" for this machine's
	root   string // as the package manager sees it
	repos  []string
}

func (h host) format() string {
	if h.tool == "apt" {
		return release.Deb
	}
	return release.RPM
}

// newHost returns a host whose root is a new directory in the directory hosts, and whose
// package manager knows the repositories; an earlier one is preferred by apt. All
// are below prefix.
func newHost(tb testing.TB, tool, prefix, hosts string, repos ...string) host {
	tb.Helper()
	err := os.MkdirAll(hosts, 0o755)
	if err != nil {
		tb.Fatal(err)
	}
	dir, err := os.MkdirTemp(hosts, "host-*")
	if err != nil {
		tb.Fatal(err)
	}
	h := host{TB: tb, tool: tool, prefix: prefix, root: strings.TrimPrefix(dir, prefix), repos: repos}
	at := func(name string) string { return filepath.Join(dir, name) }
	switch tool {
	case "apt":
		for _, name := range []string{
			"etc/apt/preferences.d", "etc/apt/apt.conf.d", "etc/apt/sources.list.d", "etc/apt/trusted.gpg.d", "var/lib/apt/lists/partial", "var/cache/apt/archives/partial", "var/log/apt",
			"var/lib/dpkg/info", "var/lib/dpkg/updates", "var/lib/dpkg/parts", "var/lib/dpkg/triggers", "var/lib/dpkg/alternatives",
		} {
			if err := os.MkdirAll(at(name), 0o755); err != nil {
				tb.Fatal(err)
			}
		}
		write(tb, at("var/lib/dpkg/status"), nil)
		write(tb, at("var/lib/dpkg/available"), nil)
		write(tb, at("var/lib/dpkg/arch"), []byte("amd64\ni386\n"))
	case "dnf", "zypper":
		testutil.Tool(tb, "rpm")
		run(tb, "rpm", "--root", dir, "--initdb")
		for _, name := range []string{"log", "etc/zypp/repos.d", "etc/zypp/vars.d", "tmp"} {
			if err := os.MkdirAll(at(name), 0o755); err != nil {
				tb.Fatal(err)
			}
		}
	}
	h.use(repos...)
	return h
}

// use makes the package manager know these repositories and no others.
func (h host) use(repos ...string) {
	h.Helper()
	dir := filepath.Join("/", h.prefix, h.root)
	switch h.tool {
	case "apt":
		var sources strings.Builder
		for _, repo := range repos {
			fmt.Fprintf(&sources, "deb [trusted=yes] file:%s/deb ./\n", strings.TrimPrefix(repo, h.prefix))
		}
		write(h, filepath.Join(dir, "etc/apt/sources.list"), []byte(sources.String()))
		h.do("update")
	default:
		old, _ := filepath.Glob(filepath.Join(dir, "etc/zypp/repos.d/*"))
		for _, path := range old {
			os.Remove(path)
		}
		for i, repo := range repos {
			text := fmt.Sprintf("[r%d]\nname=r%d\nbaseurl=file://%s/rpm\nenabled=1\ngpgcheck=0\nautorefresh=1\ntype=rpm-md\n", i, i, repo)
			write(h, filepath.Join(dir, fmt.Sprintf("etc/zypp/repos.d/r%d.repo", i)), []byte(text))
		}
		if h.tool == "zypper" {
			h.do("refresh", "--force")
		}
	}
}

// prefer writes the lines of docs/admins.md that prefer the package of images in the
// repository ours to that in gitlab. For apt they are on two hosts.
func (h host) prefer(gitlab, ours string) {
	h.Helper()
	root := filepath.Join("/", h.prefix, h.root)
	if h.tool == "dnf" {
		file := filepath.Join(root, "etc/zypp/repos.d/r0.repo")
		text, err := os.ReadFile(file)
		if err != nil {
			h.Fatal(err)
		}
		write(h, file, append(text, "excludepkgs=gitlab-runner-helper-images*\n"...))
		return
	}
	var sources string
	for _, repo := range [][2]string{{"127.0.0.1", gitlab}, {"127.0.0.2", ours}} {
		listener, err := net.Listen("tcp", repo[0]+":0")
		if err != nil {
			h.Fatal(err)
		}
		server := &http.Server{Handler: http.FileServer(http.Dir(repo[1])), ReadHeaderTimeout: time.Minute}
		go server.Serve(listener) //nolint:errcheck // ends with Close
		h.Cleanup(func() { server.Close() })
		sources += fmt.Sprintf("deb [trusted=yes] http://%s/deb ./\n", listener.Addr())
	}
	write(h, filepath.Join(root, "etc/apt/sources.list"), []byte(sources))
	write(h, filepath.Join(root, "etc/apt/apt.conf.d/proxy"), []byte(`Acquire::http::Proxy { 127.0.0.1 "DIRECT"; 127.0.0.2 "DIRECT"; };`))
	write(h, filepath.Join(root, "etc/apt/preferences.d/gitlab-runner-helper-images"), []byte("Package: gitlab-runner-helper-images*\nPin: origin 127.0.0.2\nPin-Priority: 1000\n"))
	h.do("update")
}

// try runs the package manager.
func (h host) try(args ...string) (string, error) {
	var argv []string
	dir := filepath.Join("/", h.prefix, h.root)
	switch h.tool {
	case "apt":
		program := "apt-get"
		options := []string{
			"-y", "-o", "Dir=" + h.root, "-o", "Dir::State::status=" + h.root + "/var/lib/dpkg/status", "-o", "Dir::Bin::dpkg=/usr/bin/dpkg",
			"-o", "Dpkg::Options::=--root=" + h.root, "-o", "Dpkg::Options::=--log=/dev/null", "-o", "Dpkg::Use-Pty=0",
			"-o", "APT::Architecture=amd64", "-o", "APT::Architectures=amd64", "-o", "APT::Architectures=i386", "-o", "APT::Sandbox::User=root", "-o", "APT::Install-Recommends=true", "-o", "quiet=1",
		}
		if args[0] == "hold" || args[0] == "unhold" {
			program, options = "apt-mark", slices.DeleteFunc(options, func(s string) bool { return s == "-y" })
		}
		argv = append(append([]string{program}, options...), args...)
		if h.prefix != "" {
			argv = append([]string{"chroot", h.prefix}, argv...)
		}
	case "dnf":
		argv = append([]string{
			"dnf", "-y", "--installroot", dir, "--releasever", "1", "--forcearch", "x86_64", "--nogpgcheck", "--setopt", "reposdir=" + filepath.Join(dir, "etc/zypp/repos.d"),
			"--setopt", "cachedir=" + filepath.Join(dir, "cache"), "--setopt", "persistdir=" + filepath.Join(dir, "persist"), "--setopt", "logdir=" + filepath.Join(dir, "log"),
			"--setopt", "metadata_expire=0", "--setopt", "tsflags=noscripts",
		}, args...)
	case "zypper":
		argv = append([]string{"env", "ZYPP_LOCKFILE_ROOT=" + dir, "zypper", "--root", dir, "--non-interactive", "--no-gpg-checks"}, args...)
	}
	testutil.Tool(h, argv[0])
	out, err := try(argv[0], argv[1:]...)
	return "$ " + h.tool + " " + strings.Join(args, " ") + "\n" + out, err
}

func (h host) do(args ...string) string {
	h.Helper()
	out, err := h.try(args...)
	var exit *exec.ExitError
	// zypper(8): 102 and 103 ask for a restart, 106 reports a repository that was skipped.
	if h.tool == "zypper" && errors.As(err, &exit) && exit.ExitCode() >= 100 {
		err = nil
	}
	if err != nil {
		h.Fatalf("%v\n%s", err, out)
	}
	return out
}

// installed lists the installed packages as name version, without our prefix. The
// native package is GitLab's if it has brought GitLab's files.
func (h host) installed() string {
	h.Helper()
	dir := filepath.Join("/", h.prefix, h.root)
	var out string
	if h.format() == release.RPM {
		out = run(h, "rpm", "--root", dir, "-qa", "--qf", "%{NAME} %{VERSION}-%{RELEASE}\n")
	} else {
		out = run(h, "dpkg-query", "--admindir="+filepath.Join(dir, "var/lib/dpkg"), "-W", "-f", "${db:Status-Abbrev}${Package} ${Version}\n")
	}
	_, err := os.Stat(filepath.Join(dir, imagesDir, "prebuilt-ubuntu-x86_64.tar.xz"))
	gitlabs := err == nil
	var list []string
	for line := range strings.Lines(out) {
		if h.format() == release.Deb {
			status, rest, _ := strings.Cut(line, " ")
			if status != "ii" && status != "hi" {
				if status != "rc" && status != "un" && status != "pn" {
					h.Errorf("half installed: %s", line)
				}
				continue
			}
			line = strings.TrimSpace(rest)
		}
		fields := strings.Fields(line)
		name := strings.TrimPrefix(fields[0], ours)
		switch {
		case name == "" && gitlabs:
			name = "GitLab's"
		case name == "":
			name = "native"
		default:
			name = strings.TrimPrefix(strings.TrimPrefix(name, "-"), "gitlab-")
		}
		list = append(list, name+" "+strings.TrimSuffix(fields[1], "-1"))
	}
	slices.Sort(list)
	return strings.Join(list, ", ")
}

// index writes the metadata of a repository of one format.
func index(tb testing.TB, repo, format string) {
	tb.Helper()
	if format == release.RPM {
		testutil.Tool(tb, "createrepo_c")
		run(tb, "createrepo_c", "-q", filepath.Join(repo, format))
		return
	}
	testutil.Tool(tb, "dpkg-scanpackages")
	write(tb, filepath.Join(repo, format, "Packages"), []byte(run(tb, "sh", "-c", "cd "+filepath.Join(repo, format)+" && dpkg-scanpackages -m . 2>/dev/null")))
}
