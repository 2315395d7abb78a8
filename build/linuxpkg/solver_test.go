//go:build acceptance

package linuxpkg_test

import (
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"pretag/build/linuxpkg"
	"pretag/build/release"
	"pretag/build/testutil"
)

// A step is what an admin types.
type step struct {
	command string
	refused string // what the package manager says if it refuses; "" if it does not
	says    string // what it must say, if it does not refuse
	want    string // installed afterwards; "" for what was before
}

// A situation is a row of the table in docs/admins.md.
type situation struct {
	name  string
	repos string            // of reposOf, separated by spaces
	steps map[string][]step // by tool; "rpm" for dnf and zypper
}

const (
	all3, all4   = "loader 19.3.0, native 19.3.0, runner 19.3.0", "loader 19.4.0, native 19.4.0, runner 19.4.0"
	pwsh3, pwsh4 = "alpine-amd64-pwsh 19.3.0, loader 19.3.0, native 19.3.0, runner 19.3.0", "alpine-amd64-pwsh 19.4.0, loader 19.4.0, native 19.4.0, runner 19.4.0"
	chosen       = "loader 19.4.0, native 19.3.0, runner 19.3.0"
	moved3       = "alpine-amd64-pwsh 19.3.0, " + chosen
	pwsh         = ours + "-alpine-amd64-pwsh"
)

// situations are those that must work, or say what does not.
func situations() []situation {
	install3 := func(old string) []step {
		return []step{{command: fmt.Sprintf(old, pwsh), want: pwsh3}}
	}
	aptOld, dnfOld, zypperOld := install3("install gitlab-runner=19.3.0-1 %s"), install3("install gitlab-runner %s"), install3("install gitlab-runner %s")
	return []situation{
		{"fresh", "ours", map[string][]step{
			"apt":    {{command: "install gitlab-runner", want: all4}},
			"dnf":    {{command: "install gitlab-runner", want: all4}},
			"zypper": {{command: "install gitlab-runner", want: all4}},
		}},
		{"chosen version", "ours", map[string][]step{
			"apt":    {{command: "install gitlab-runner=19.3.0-1 " + ours + "=19.3.0-1", want: chosen}},
			"dnf":    {{command: "install gitlab-runner-19.3.0-1", want: chosen}},
			"zypper": {{command: "install gitlab-runner=19.3.0-1", want: chosen}},
		}},
		{"upgrade", "ours3>ours", map[string][]step{
			"apt":    append(aptOld, step{command: "use"}, step{command: "dist-upgrade", want: pwsh4}),
			"dnf":    append(dnfOld, step{command: "use"}, step{command: "upgrade", want: pwsh4}),
			"zypper": append(zypperOld, step{command: "use"}, step{command: "update", want: pwsh4}),
		}},
		{"hold", "ours3>ours", map[string][]step{
			"apt":    append(aptOld, step{command: "use"}, step{command: "hold gitlab-runner"}, step{command: "dist-upgrade", want: moved3}),
			"dnf":    append(dnfOld, step{command: "use"}, step{command: "upgrade --exclude=gitlab-runner", want: moved3}),
			"zypper": append(zypperOld, step{command: "use"}, step{command: "addlock gitlab-runner"}, step{command: "update", want: moved3}),
		}},
		{"downgrade", "ours4>ours", map[string][]step{
			"apt": {
				{command: "install gitlab-runner " + pwsh, want: pwsh4},
				{command: "use"},
				{command: "install --allow-downgrades gitlab-runner=19.3.0-1 " + ours + "=19.3.0-1", says: "REMOVED:\n  " + pwsh, want: chosen},
			},
			"dnf": {
				{command: "install gitlab-runner " + pwsh, want: pwsh4},
				{command: "use"},
				{command: "downgrade gitlab-runner-19.3.0-1 " + ours + "-19.3.0-1", want: moved3},
			},
			"zypper": {
				{command: "install gitlab-runner " + pwsh, want: pwsh4},
				{command: "use"},
				{command: "install --oldpackage --force-resolution gitlab-runner=19.3.0-1", want: moved3},
			},
		}},
		{"images alone", "ours4>ours", map[string][]step{ // the runner must not lose its image
			"apt":    {{command: "install gitlab-runner", want: all4}, {command: "use"}, {command: "install --allow-downgrades --no-remove " + ours + "=19.3.0-1", refused: "gitlab-runner"}},
			"dnf":    {{command: "install gitlab-runner", want: all4}, {command: "use"}, {command: "downgrade " + ours + "-19.3.0-1", want: chosen}},
			"zypper": {{command: "install gitlab-runner", want: all4}, {command: "use"}, {command: "install --oldpackage " + ours + "=19.3.0-1", refused: "gitlab-runner"}},
		}},
		{"newer images over 15.8.0", "monolith>ours15 ours", map[string][]step{
			"apt": {
				{command: "install gitlab-runner", want: "runner 15.8.0"},
				{command: "use"},
				{command: "install " + ours + "=15.8.0-1", want: "loader 19.4.0, native 15.8.0, runner 15.8.0"},
				{command: "install --no-remove " + ours + "=19.3.0-1 gitlab-runner=15.8.0", refused: "gitlab-runner"},
			},
			"dnf": {
				{command: "install gitlab-runner", want: "runner 15.8.0"},
				{command: "use"},
				{command: "install " + ours + "-15.8.0-1", want: "loader 19.4.0, native 15.8.0, runner 15.8.0"},
				{command: "install --exclude=gitlab-runner " + ours + "-19.3.0-1", refused: "gitlab-runner"},
			},
			"zypper": {
				{command: "install gitlab-runner", want: "runner 15.8.0"},
				{command: "use"},
				{command: "install " + ours + "=15.8.0-1", want: "loader 19.4.0, native 15.8.0, runner 15.8.0"},
				{command: "addlock gitlab-runner"},
				{command: "install " + ours + "=19.3.0-1", refused: "gitlab-runner"},
			},
		}},
		{"removal", "ours", map[string][]step{
			"apt": {{command: "install gitlab-runner", want: all4}, {command: "autoremove --purge gitlab-runner", want: "-"}},
			"dnf": {{command: "install gitlab-runner", want: all4}, {command: "remove gitlab-runner", want: "-"}},
			// libzypp cannot cache an empty database: something must be left.
			"zypper": {{command: "install gitlab-runner other", want: strings.Replace(all4, ", runner", ", other 1, runner", 1)}, {command: "remove --clean-deps gitlab-runner", want: "other 1"}},
		}},
		{"runner of a foreign architecture", "ours", map[string][]step{
			"apt":    {{command: "install gitlab-runner:i386", want: all4}},
			"dnf":    {{command: "install gitlab-runner.i686", want: all4}},
			"zypper": {{command: "install gitlab-runner.i686", want: all4}},
		}},
		{"GitLab's repository first, with the lines of docs/admins.md", "gitlab ours", map[string][]step{
			"apt":    {{command: "prefer"}, {command: "install gitlab-runner", want: all4}, {command: "dist-upgrade", want: all4}},
			"dnf":    {{command: "prefer"}, {command: "install gitlab-runner", want: all4}, {command: "upgrade", want: all4}},
			"zypper": {{command: "modifyrepo --priority 110 r0"}, {command: "install gitlab-runner", want: all4}, {command: "update", want: all4}},
		}},
		{"from GitLab's package with the lines of docs/admins.md", "gitlab>gitlab ours", map[string][]step{
			"apt": {
				{command: "install gitlab-runner", want: "GitLab's 19.4.0, runner 19.4.0"},
				{command: "use"},
				{command: "prefer"},
				{command: "install --allow-downgrades " + ours, want: all4}, // -y would refuse what apt asks
				{command: "dist-upgrade", want: all4},
			},
			"dnf": {
				{command: "install gitlab-runner", want: "GitLab's 19.4.0, runner 19.4.0"},
				{command: "use"},
				{command: "prefer"},
				{command: "install " + ours + ".x86_64", want: all4},
				{command: "upgrade", want: all4},
			},
			"zypper": {
				{command: "install gitlab-runner", want: "GitLab's 19.4.0, runner 19.4.0"},
				{command: "use"},
				{command: "modifyrepo --priority 110 r0"},
				{command: "install --force --allow-vendor-change --from r1 " + ours, want: all4},
				{command: "update", want: all4},
			},
		}},
		{"GitLab's repository first", "gitlab ours", map[string][]step{
			"apt":    {{command: "install gitlab-runner", want: "GitLab's 19.4.0, runner 19.4.0"}},
			"dnf":    {{command: "install gitlab-runner", want: "GitLab's 19.4.0, runner 19.4.0"}},
			"zypper": {{command: "install gitlab-runner", want: "GitLab's 19.4.0, runner 19.4.0"}},
		}},
		{"GitLab's repository last", "ours gitlab", map[string][]step{
			"apt":    {{command: "install gitlab-runner", want: all4}},
			"dnf":    {{command: "install gitlab-runner", want: all4}},
			"zypper": {{command: "install gitlab-runner", want: all4}},
		}},
		{"release above GitLab's", "gitlab>gitlab higher", map[string][]step{
			"apt": {
				{command: "install gitlab-runner", want: "GitLab's 19.4.0, runner 19.4.0"},
				{command: "use"},
				{command: "dist-upgrade", want: "loader 19.4.0-1.x, native 19.4.0-1.x, runner 19.4.0"},
			},
			"dnf": {
				{command: "install gitlab-runner", want: "GitLab's 19.4.0, runner 19.4.0"},
				{command: "use"},
				{command: "upgrade", want: "loader 19.4.0-1.x, native 19.4.0-1.x, runner 19.4.0"},
			},
			"zypper": {
				{command: "install gitlab-runner", want: "GitLab's 19.4.0, runner 19.4.0"},
				{command: "use"},
				{command: "update", want: "GitLab's 19.4.0, runner 19.4.0"},
				{command: "install --allow-vendor-change " + ours, want: "loader 19.4.0-1.x, native 19.4.0-1.x, runner 19.4.0"},
				{command: "update", want: "loader 19.4.0-1.x, native 19.4.0-1.x, runner 19.4.0"},
			},
		}},
		{"release below GitLab's", "lower", map[string][]step{
			"apt":    {{command: "install gitlab-runner", want: "loader 19.4.0-1~bpo12+1, native 19.4.0-1~bpo12+1, runner 19.4.0"}, {command: "install " + pwsh, want: "alpine-amd64-pwsh 19.4.0-1~bpo12+1, loader 19.4.0-1~bpo12+1, native 19.4.0-1~bpo12+1, runner 19.4.0"}},
			"dnf":    {{command: "install gitlab-runner", want: "loader 19.4.0-1~bpo12+1, native 19.4.0-1~bpo12+1, runner 19.4.0"}, {command: "install " + pwsh, want: "alpine-amd64-pwsh 19.4.0-1~bpo12+1, loader 19.4.0-1~bpo12+1, native 19.4.0-1~bpo12+1, runner 19.4.0"}},
			"zypper": {{command: "install gitlab-runner", want: "loader 19.4.0-1~bpo12+1, native 19.4.0-1~bpo12+1, runner 19.4.0"}, {command: "install " + pwsh, want: "alpine-amd64-pwsh 19.4.0-1~bpo12+1, loader 19.4.0-1~bpo12+1, native 19.4.0-1~bpo12+1, runner 19.4.0"}},
		}},
		{"split to single and back", "ours3>single>ours5", map[string][]step{
			"apt":    append(aptOld, step{command: "use"}, step{command: "dist-upgrade", want: all4}, step{command: "use"}, step{command: "dist-upgrade", want: "loader 19.5.0, native 19.5.0, runner 19.5.0"}),
			"dnf":    append(dnfOld, step{command: "use"}, step{command: "upgrade", want: all4}, step{command: "use"}, step{command: "upgrade", want: "loader 19.5.0, native 19.5.0, runner 19.5.0"}),
			"zypper": append(zypperOld, step{command: "use"}, step{command: "update", want: all4}, step{command: "use"}, step{command: "update", want: "loader 19.5.0, native 19.5.0, runner 19.5.0"}),
		}},
		{"single, before loaders were needed", "single17", map[string][]step{
			"apt":    {{command: "install --no-install-recommends " + ours, want: "loader 17.8.0, native 17.8.0"}},
			"dnf":    {{command: "install --setopt=install_weak_deps=False " + ours, want: "loader 17.8.0, native 17.8.0"}},
			"zypper": {{command: "install --no-recommends " + ours, want: "loader 17.8.0, native 17.8.0"}},
		}},
		{"from the first pretag's split layout", "split0>ours", map[string][]step{
			"apt":    {{command: "install gitlab-runner " + ours + "-all"}, {command: "use"}, {command: "dist-upgrade", want: all4}},
			"dnf":    {{command: "install gitlab-runner " + ours + "-all"}, {command: "use"}, {command: "upgrade", want: all4}},
			"zypper": {{command: "install gitlab-runner " + ours + "-all"}, {command: "use"}, {command: "update", want: all4}},
		}},
		{"from the first pretag's single layout", "single0>single", map[string][]step{
			"apt":    {{command: "install gitlab-runner", want: "native 19.3.0, runner 19.3.0"}, {command: "use"}, {command: "dist-upgrade", want: all4}},
			"dnf":    {{command: "install gitlab-runner", want: "native 19.3.0, runner 19.3.0"}, {command: "use"}, {command: "upgrade", want: all4}},
			"zypper": {{command: "install gitlab-runner", want: "native 19.3.0, runner 19.3.0"}, {command: "use"}, {command: "update", want: all4}},
		}},
		{"from the first pretag's single layout to split", "single0>ours", map[string][]step{
			"apt":    {{command: "install gitlab-runner", want: "native 19.3.0, runner 19.3.0"}, {command: "use"}, {command: "dist-upgrade", want: all4}},
			"dnf":    {{command: "install gitlab-runner", want: "native 19.3.0, runner 19.3.0"}, {command: "use"}, {command: "upgrade", want: all4}},
			"zypper": {{command: "install gitlab-runner", want: "native 19.3.0, runner 19.3.0"}, {command: "use"}, {command: "update", want: all4}},
		}},
		{"fips", "fips>fips ours", map[string][]step{
			"dnf": {
				{command: "install gitlab-runner-fips-19.3.0", want: "runner-fips 19.3.0"},
				{command: "use"},
				{command: "install " + ours + "-19.3.0", want: "loader 19.4.0, native 19.3.0, runner-fips 19.3.0"},
				{command: "upgrade --exclude=" + ours, want: "loader 19.4.0, native 19.3.0, runner-fips 19.3.0"},
				{command: "upgrade", want: "loader 19.4.0, native 19.4.0, runner-fips 19.4.0"},
			},
		}},
	}
}

// reposOf writes the repositories that situations name into dir.
func reposOf(t *testing.T, dir string, loader map[string]string) {
	at := func(name string) string { return filepath.Join(dir, name) }
	formats := []string{release.RPM, release.Deb}
	put := func(name string, stubs ...stub) {
		for _, format := range formats {
			for _, s := range stubs {
				s.write(t, format, filepath.Join(at(name), format))
			}
		}
	}
	writeOurs(t, at("ours3"), "19.3.0", "1", linuxpkg.Split, loader)
	writeOurs(t, at("ours4"), "19.4.0", "1", linuxpkg.Split, loader)
	writeOurs(t, at("ours5"), "19.5.0", "1", linuxpkg.Split, loader)
	writeOurs(t, at("ours15"), "15.8.0", "1", linuxpkg.Split, loader)
	writeOurs(t, at("single"), "19.4.0", "1", linuxpkg.Single, loader)
	writeOurs(t, at("single17"), "17.8.0", "1", linuxpkg.Single, loader)
	writeOurs(t, at("higher"), "19.4.0", "1.x", linuxpkg.Split, loader)
	writeOurs(t, at("lower"), "19.4.0", "1~bpo12+1", linuxpkg.Split, loader)
	foreign := runner("19.4.0")
	foreign.arch = "386"
	put("ours3", runner("19.3.0"), stub{name: "other", version: "1"})
	put("ours4", runner("19.4.0"), foreign)
	put("ours5", runner("19.5.0"))
	put("single", runner("19.4.0"))
	put("lower", runner("19.4.0"))
	put("gitlab", runner("19.3.0"), runner("19.4.0"), runnersOwn("19.3.0"), runnersOwn("19.4.0"))
	put("monolith", monolith("15.8.0"))
	put("fips", fips("19.3.0"), fips("19.4.0"))
	put("split0", append(earlierSplit("19.3.0"), runner("19.3.0"))...)
	put("single0", earlierSingle("19.3.0"), runner("19.3.0"))
	for _, format := range formats { // both versions
		run(t, "sh", "-c", fmt.Sprintf("mkdir -p %[1]s/ours/%[2]s && cp %[1]s/ours3/%[2]s/* %[1]s/ours4/%[2]s/* %[1]s/ours/%[2]s", dir, format))
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		for _, format := range formats {
			index(t, at(entry.Name()), format)
		}
	}
}

// TestSolvers goes through all situations with every package manager: apt of this
// machine, apt of Debian 13, dnf and zypper.
func TestSolvers(t *testing.T) {
	testutil.Root(t, "package managers change a root")
	dir := inMemory(t)
	repos := filepath.Join(dir, "repos")
	reposOf(t, repos, standIns(t, "amd64"))
	for _, tool := range []string{"apt", "apt of trixie", "dnf", "zypper"} {
		t.Run(tool, func(t *testing.T) {
			t.Parallel()
			program, other, _ := strings.Cut(tool, " of ")
			testutil.Tool(t, map[string]string{"apt": "apt-get", "dnf": "dnf", "zypper": "zypper"}[program])
			prefix := ""
			if other != "" {
				prefix = filepath.Join(dir, other)
				debian(t, other, prefix)
				run(t, "cp", "-a", repos, prefix)
			}
			for _, s := range situations() {
				if len(s.steps[program]) == 0 {
					continue
				}
				t.Run(s.name, func(t *testing.T) {
					t.Parallel()
					s.run(t, program, prefix, cmp.Or(prefix, dir))
				})
			}
		})
	}
}

// inMemory returns a temporary directory whose files are in memory, if mount may be
// used: package managers wait for the disk after each file.
func inMemory(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if exec.Command("mount", "-t", "tmpfs", "tmpfs", dir).Run() == nil {
		t.Cleanup(func() { run(t, "umount", dir) })
	}
	return dir
}

func (s situation) run(t *testing.T, tool, prefix, dir string) {
	var sets [][]string
	for set := range strings.SplitSeq(s.repos, ">") {
		var paths []string
		for _, name := range strings.Fields(set) {
			paths = append(paths, filepath.Join(dir, "repos", name))
		}
		sets = append(sets, paths)
	}
	h := newHost(t, tool, prefix, filepath.Join(dir, "hosts"), sets[0]...)
	for _, step := range s.steps[tool] {
		before := h.installed()
		switch step.command {
		case "use":
			sets = sets[1:]
			h.use(sets[0]...)
			continue
		case "prefer":
			h.prefer(sets[0][0], sets[0][1])
			continue
		}
		args := strings.Fields(step.command)
		var out string
		if step.refused == "" {
			out = h.do(args...)
			t.Logf("%s", out)
		} else {
			var err error
			if out, err = h.try(args...); err == nil {
				t.Errorf("not refused:\n%s", out)
			}
		}
		if !strings.Contains(out, step.refused) || !strings.Contains(out, step.says) {
			t.Errorf("does not say %q:\n%s", step.refused+step.says, out)
		}
		want := strings.TrimPrefix(step.want, "-")
		switch got := h.installed(); {
		case step.refused != "" && got != before:
			t.Errorf("after %q: installed %s, want as before %s", step.command, got, before)
		case step.want != "" && got != want:
			t.Errorf("after %q: installed\n%s, want\n%s\n%s", step.command, got, want, out)
		}
	}
}

// debian makes a root of that Debian release, with its apt.
func debian(t *testing.T, suite, root string) {
	t.Helper()
	testutil.Tool(t, "mmdebstrap")
	testutil.Tool(t, "chroot")
	out, err := exec.Command("mmdebstrap", "--quiet", "--variant=apt", "--format=directory", `--aptopt=Acquire::Retries "10"`, suite, root).CombinedOutput()
	if err != nil {
		testutil.Missing(t, "mmdebstrap", fmt.Sprintf("it cannot fetch Debian %s: %v\n%s", suite, err, out))
	}
}
