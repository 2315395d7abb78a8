package loader

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"pretag/packaging"

	"pretag/build/catalogue"
	"pretag/build/release"
)

// TestUsage rejects wrong options and configurations.
func TestUsage(t *testing.T) {
	h := newFakeHost(t)
	fifo := h.path("fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	h.write("large.conf", "#"+strings.Repeat("x", maxConfig))
	for _, test := range []struct {
		status  int
		text    string
		setting string
		args    []string
	}{
		{exitUsage, "Usage:", "", nil},
		{exitUsage, "Usage:", "", []string{"lod"}},
		{exitUsage, `unknown command "lod": want load, status, verify or prune, then its options`, "", []string{"lod"}},
		{exitUsage, `unknown command "--engine": want load, status`, "", []string{"--engine", "podman", "load"}},
		{exitUsage, `load: unknown option "--json"`, "", []string{"load", "--json"}},
		{exitUsage, `verify: unknown option "alpine"`, "", []string{"verify", "alpine"}},
		{exitUsage, "--helper needs an argument", "", []string{"load", "--helper="}},
		{exitUsage, "--all takes no argument", "", []string{"load", "--all=yes"}},
		{exitUsage, `--replace "latest": want the ID`, "", []string{"load", "--replace", "latest"}},
		{exitConfig, `helper "[": not a glob`, "", []string{"load", "--helper=["}},
		{exitConfig, `engine "cri-o": want auto, podman or docker`, "", []string{"load", "--engine", "cri-o"}},
		{exitConfig, `line 4: unknown setting "ENGNE"`, "ENGNE=podman", []string{"load"}},
		{exitConfig, `line 4: unknown setting "touch /tmp/x"`, "touch /tmp/x", []string{"load"}},
		{exitConfig, `PRUNE="maybe"`, "PRUNE=maybe", []string{"load"}},
		{exitConfig, `line 4: control characters in HELPER`, "HELPER=\x1b[2J", []string{"load"}},
		{exitConfig, `STATE="state": want an absolute path`, "STATE=state", []string{"load"}},
		{exitConfig, `user "*": not a valid user name`, `USERS="*"`, []string{"load"}}, // row N
		{exitConfig, `user "-rf": not a valid user name`, "", []string{"load", "--user", "-rf"}},
		{exitUsage, "docker has one store for all", "", []string{"load", "--engine=docker", "--user=another"}},
		// Row Q.
		{exitConfig, "not a regular file", "", []string{"load", "--config", h.dir}},
		{exitConfig, "not a regular file", "", []string{"load", "--config", "/dev/zero"}},
		{exitConfig, "not a regular file", "", []string{"load", "--config=" + fifo}},
		{exitConfig, "larger than", "", []string{"load", "--config", h.path("large.conf")}},
		{exitConfig, "no such file", "", []string{"load", "--config", h.path("none.conf")}},
		{exitOK, "Usage:", "", []string{"--help"}},
		{exitOK, "Usage:", "", []string{"load", "--help"}},
		{exitOK, "gitlab-runner-helper-images ", "", []string{"--version"}},
	} {
		t.Run(strings.Join(append(test.args, test.setting), " "), func(t *testing.T) {
			h := *h
			h.t = t
			if test.setting != "" {
				h.settings = append(h.settings[:len(h.settings):len(h.settings)], test.setting)
			}
			run := h.run
			if strings.Contains(strings.Join(test.args, " "), "--config") {
				run = h.runBare // what is given last wins
			}
			stdout, stderr, status := run(test.args...)
			if out := stdout + stderr; status != test.status || !strings.Contains(out, test.text) {
				t.Errorf("exit %d, want %d and %q:\n%s", status, test.status, test.text, out)
			}
		})
	}
	if _, err := os.Stat(h.path("state")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a wrong call made the state: %v", err)
	}
}

// TestShippedConfiguration reads the configuration that is installed: nothing in it is
// in force, and each setting that is commented out is one that the loader knows.
func TestShippedConfiguration(t *testing.T) {
	text, err := packaging.Files.ReadFile("root/etc/gitlab-runner/helper-images.conf")
	if err != nil {
		t.Fatal(err)
	}
	h := newFakeHost(t)
	for line := range strings.Lines(string(text)) {
		setting, comment := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "#")
		switch {
		case !comment && setting != "":
			t.Errorf("line %q is in force", setting)
		case comment && setting != "" && !strings.HasPrefix(setting, " "):
			h.settings = append([]string{setting}, h.settings...) // those of the fake host win
		}
	}
	h.archive("alpine-x86_64", "x86_64-v19.3.0", "x")
	h.want(exitOK, []string{"alpine-x86_64: ok"}, "verify")
}

// TestExitStatuses compares the exit statuses with the manual page.
func TestExitStatuses(t *testing.T) {
	page, err := packaging.Files.ReadFile("root/usr/share/man/man8/gitlab-runner-helper-images.8")
	if err != nil {
		t.Fatal(err)
	}
	for status, text := range map[int]string{
		exitOK: "Everything is present.", exitEngine: "An engine refused", exitUsage: "Wrong option", exitDataErr: "An archive or its record is damaged.",
		exitNoInput: "No archive is installed.", exitNoUser: "No such user.", exitNoEngine: "No engine is installed.", exitUnfit: "Archives are installed, but none for",
		exitNoSpace: "Not enough space.", exitTempFail: "Try again", exitForeign: "Another image has the tag.", exitNoPerm: "Only root may do this.", exitConfig: "The configuration is wrong.",
	} {
		if entry := fmt.Sprintf("\n.It %d\n%s", status, text); !strings.Contains(string(page), entry) {
			t.Errorf("the manual page has no entry %q", entry)
		}
	}
}

// TestLoad loads what is missing, and asks each engine once where all is present.
func TestLoad(t *testing.T) {
	h := newPodmanHost(t)
	a := h.archive("alpine-x86_64", "x86_64-v19.3.0", "alpine")
	b := h.archive("ubuntu-x86_64", "ubuntu-x86_64-v19.3.0", "ubuntu")
	h.has("store", b.RepoTag, imageOf(b))
	h.has("next", a.RepoTag, imageOf(a))
	h.want(exitOK, []string{"podman/root: alpine-x86_64: would load\npodman/root: ubuntu-x86_64: present\n"}, "load", "--dry-run")
	if got := h.read("state/images"); got != "" {
		t.Errorf("--dry-run wrote %q", got)
	}
	h.want(exitOK, []string{"podman/root: alpine-x86_64: loaded\npodman/root: ubuntu-x86_64: present\n"}, "load")
	if got := h.read("loaded"); got != "alpine" {
		t.Errorf("the engine got %q", got)
	}
	temp := strings.TrimSpace(h.read("temporary"))
	if !strings.HasPrefix(temp, h.path("tmp/gitlab-runner-helper-images.")) {
		t.Errorf("TMPDIR is %q", temp)
	}
	if left, err := os.ReadDir(h.path("tmp")); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	h.calls()
	h.want(exitOK, []string{"alpine-x86_64: present"}, "load")
	if diff := cmp.Diff([]string{"podman image inspect -- " + a.RepoTag + " " + b.RepoTag}, h.calls()); diff != "" {
		t.Errorf("calls where all is present (-want +got):\n%s", diff)
	}
	state := h.read("state/images")
	for _, line := range []string{
		"podman root " + a.RepoTag + " " + a.ImageID[7:] + " " + a.ImageID[7:] + " loaded\n",
		"podman root " + b.RepoTag + " " + b.ImageID[7:] + " " + b.ImageID[7:] + " found\n",
	} {
		if !strings.Contains(state, line) {
			t.Errorf("no line %q in\n%s", line, state)
		}
	}
	for name, want := range map[string]os.FileMode{"state": 0o700, "state/lock": 0o600, "state/images": 0o600} { // row M
		if info, err := os.Stat(h.path(name)); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: mode %v, %v, want %v", name, info.Mode(), err, want)
		}
	}
}

// TestOldLock replaces a lock file that others may hold open (row M).
func TestOldLock(t *testing.T) {
	h := newPodmanHost(t)
	h.limit = 2 * time.Second
	h.archive("alpine-x86_64", "x86_64-v19.3.0", "x")
	h.write("state/lock", "")
	theirs, err := os.Open(h.path("state/lock")) // as any user can where it is 0644
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()
	if err := syscall.Flock(int(theirs.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	h.want(exitOK, []string{"would load"}, "load", "--dry-run")

	own, err := os.OpenFile(h.path("state/lock"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	if err := syscall.Flock(int(own.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	h.limit = 200 * time.Millisecond
	h.want(exitTempFail, []string{"another loader is running"}, "load", "--dry-run")
}

// TestStateCannotBeRead loads nothing that the next run would not know (row J).
func TestStateCannotBeRead(t *testing.T) {
	h := newPodmanHost(t)
	a := h.archive("alpine-x86_64", "x86_64-v19.3.0", "x")
	h.has("next", a.RepoTag, imageOf(a))
	h.write("state/images/in-the-way", "") // a directory can be neither read nor replaced, by root too
	h.want(exitEngine, []string{"read state"}, "load")
	if got := h.read("loaded"); got != "" {
		t.Errorf("the engine was given %q", got)
	}
}

// TestHang leaves an engine that hangs, and serves the next one (row K).
func TestHang(t *testing.T) {
	h := newFakeHost(t)
	h.engine("docker")
	h.limit = time.Second
	h.program("podman", `trap "" TERM; sleep 60 & wait; sleep 60`)
	h.settings = append(h.settings, "USERS=root")
	a := h.archive("alpine-x86_64", "x86_64-v19.3.0", "x")
	h.has("store", a.RepoTag, imageOf(a))
	h.want(exitEngine, []string{"podman/root: does not work: no answer within 1s\n", "docker/root: alpine-x86_64: present\n"}, "load")
}

// TestTerminal gives engines no terminal, and shows nothing of theirs that controls one (row K).
func TestTerminal(t *testing.T) {
	h := newFakeHost(t)
	h.settings = append(h.settings, "USERS=root")
	h.program("podman", `
[ -t 0 ] || [ -t 1 ] || [ -t 2 ] || (: </dev/tty) 2>/dev/null || quiet=yes
ls -l /proc/$$/fd >$D/descriptors # of the shell
cut -d' ' -f6 /proc/self/stat >$D/session
printf 'x\033]0;title\007\033[2J\302\233bad\342\200\256%s\n' "$quiet" >&2
exit 125`)
	h.archive("alpine-x86_64", "x86_64-v19.3.0", "x")
	leak, err := syscall.Open(h.dir, syscall.O_RDONLY, 0) // as a caller may leave one open
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(leak)
	closeOnExec()
	out := h.want(exitEngine, []string{"does not work: x\ufffd]0;title\ufffd\ufffd[2J\ufffdbad\ufffdyes"}, "load")
	if strings.ContainsAny(out, "\x1b\x07\u009b\u202e") {
		t.Errorf("control characters in %q", out)
	}
	if got := h.read("descriptors"); !strings.Contains(got, " 0 -> ") || strings.Contains(got, " -> "+h.dir+"\n") {
		t.Errorf("the descriptor of the caller is open in the engine:\n%s", got)
	}
}

// TestDamagedRecords refuses records that could do harm (rows L, N).
func TestDamagedRecords(t *testing.T) {
	h := newFakeHost(t)
	a := h.archive("alpine-x86_64", "x86_64-v19.3.0", "x")
	info := h.path("archives/" + a.Name + release.InfoSuffix)
	good := string(a.Info())
	replace := func(key, value string) string {
		var lines []string
		for line := range strings.Lines(good) {
			if strings.HasPrefix(line, key+"=") {
				line = key + "=" + value + "\n"
			}
			lines = append(lines, line)
		}
		return strings.Join(lines, "")
	}
	for name, test := range map[string]struct{ text, want string }{
		"option as image ID": {replace("image_id", "--format={{.Id}}"), `image_id="--format={{.Id}}": not valid`},
		"option as tag":      {replace("repo_tag", "--help"), `repo_tag="--help": not valid`},
		"two tags":           {replace("repo_tag", a.RepoTag+","+a.RepoTag), "repo_tag="},
		"short ID":           {replace("image_id", "sha256:abc"), `image_id="sha256:abc": not valid`},
		"upper case":         {replace("sha256", strings.ToUpper(a.SHA256)), "sha256="},
		"leading zero":       {replace("size", "01"), `size="01": want a number`},
		"negative":           {replace("unpacked_size", "-1"), `unpacked_size="-1": want a number`},
		"huge":               {replace("size", "99999999999999999999"), "want a number"},
		"diff IDs":           {replace("diff_ids", "sha256:"+digest("a")+",x"), "diff_ids="},
		"platform":           {replace("platform", "linux/../x"), `platform="linux/../x": not valid`},
		"path as file":       {replace("file", "../../etc/passwd"), `file="../../etc/passwd": not valid`},
		"another archive's":  {strings.ReplaceAll(good, "alpine-x86_64", "ubuntu-x86_64"), "not the name of this archive"},
		"escape sequence":    {replace("helper", "\x1b[2J"), `helper="\x1b[2J": not valid`},
		"incomplete":         {"helper=alpine-x86_64\n", "invalid record: no line file="},
		"repeated":           {good + "size=1\n", "repeated key"},
		"empty":              {"", "invalid record: no line helper="},
		"too large":          {good + "warning=" + strings.Repeat("x", maxRecord), "larger than"},
		"unknown key":        {good + "new_key=1\n", ""}, // a later version's
	} {
		t.Run(name, func(t *testing.T) {
			h := *h
			h.t = t
			if err := os.WriteFile(info, []byte(test.text), 0o644); err != nil {
				t.Fatal(err)
			}
			if test.want == "" {
				h.want(exitOK, []string{"alpine-x86_64: ok"}, "verify")
				return
			}
			h.want(exitDataErr, []string{a.Name + ".info: damaged: ", test.want}, "verify")
		})
	}
	if err := errors.Join(os.Remove(info), syscall.Mkfifo(info, 0o644)); err != nil {
		t.Fatal(err)
	}
	h.want(exitDataErr, []string{"not a regular file"}, "verify")
	if err := errors.Join(os.Remove(info), os.Symlink("/dev/zero", info)); err != nil {
		t.Fatal(err)
	}
	h.want(exitDataErr, []string{"not a regular file"}, "verify")
}

// TestDamagedArchive loads nothing of an archive that is not what its record says.
func TestDamagedArchive(t *testing.T) {
	for name, spoil := range map[string]func(path string) error{
		"flipped":   func(path string) error { return os.WriteFile(path, []byte("contant"), 0o644) },
		"truncated": func(path string) error { return os.Truncate(path, 3) },
		"gone":      os.Remove,
		"link":      func(path string) error { return errors.Join(os.Remove(path), os.Symlink("/dev/zero", path)) },
	} {
		t.Run(name, func(t *testing.T) {
			h := newPodmanHost(t)
			a := h.archive("alpine-x86_64", "x86_64-v19.3.0", "content")
			h.has("next", a.RepoTag, imageOf(a))
			h.want(exitOK, []string{"alpine-x86_64: ok"}, "verify")
			if err := spoil(h.path("archives/" + a.Name)); err != nil {
				t.Fatal(err)
			}
			h.want(exitDataErr, []string{"alpine-x86_64: damaged: "}, "verify")
			h.want(exitDataErr, []string{"alpine-x86_64: damaged: "}, "load")
			if got := h.read("loaded"); got != "" {
				t.Errorf("the engine was given %q", got)
			}
		})
	}
}

// TestVerify selects helpers by globs, as HELPERS of the build does, distinguishes
// nothing installed from nothing that fits, and reports an archive without a record.
func TestVerify(t *testing.T) {
	h := newFakeHost(t)
	h.want(exitNoInput, []string{"no archive", "has none\n"}, "verify")
	a := h.archive("alpine-x86_64", "x86_64-v19.3.0", "x")
	h.archive("alpine-s390x", "s390x-v19.3.0", "y")
	for _, globs := range []string{"alpine-*", "alpine-x86_64,alpine-s390x", "ubuntu-*, alpine-*", "*"} {
		h.want(exitOK, []string{"alpine-s390x: ok\nalpine-x86_64: ok\n"}, "verify", "--helper", globs)
	}
	if out := h.want(exitOK, nil, "verify", "--helper", "ubuntu-*,alpine-x86_64"); out != "alpine-x86_64: ok\n" {
		t.Errorf("want one helper:\n%s", out)
	}
	h.want(exitUnfit, []string{"no archive", "that matches ubuntu-*,concrete"}, "verify", "--helper", "ubuntu-*,concrete")
	if err := os.Remove(h.path("archives/" + a.Name + release.InfoSuffix)); err != nil {
		t.Fatal(err)
	}
	h.want(exitDataErr, []string{"alpine-s390x: ok\n" + a.Name + ": no record\n"}, "verify")
}

// TestNoEngine runs on a host without an engine, then on one with docker alone: USERS, which is
// about podman, does not switch that off, and --user does.
func TestNoEngine(t *testing.T) {
	h := newFakeHost(t)
	h.archive("alpine-x86_64", "x86_64-v19.3.0", "x")
	h.want(exitNoEngine, []string{"neither podman nor docker is installed"}, "load")
	h.want(exitNoEngine, []string{"docker is not installed"}, "load", "--engine=docker")
	h.want(exitNoEngine, nil, "status")
	h.want(exitOK, nil, "verify")
	h.settings = append(h.settings, "USERS=nobody")
	h.program("docker", `[ "$1" = --version ] && echo Docker version 28.0.0`)
	h.want(exitTempFail, []string{"docker/root: not up"}, "load")
	h.want(exitTempFail, []string{"docker/root: not up"}, "load", "--user=root")
	h.want(exitNoEngine, []string{"podman is not installed, and docker's socket belongs to root"}, "load", "--user=nobody")
	h.want(exitNoEngine, []string{"podman is not installed"}, "load", "--engine=podman")
}

// TestExchanged notices archives that were replaced during a load or prune: systemd
// counts a start that was requested meanwhile as done.
func TestExchanged(t *testing.T) {
	for _, verb := range []string{"load", "rmi"} {
		t.Run(verb, func(t *testing.T) {
			h := newPodmanHost(t)
			h.settings = append(h.settings, "PRUNE=yes")
			old := h.archive("alpine-x86_64", "x86_64-v19.2.0", "old")
			h.has("next", old.RepoTag, imageOf(old))
			h.want(exitOK, []string{"loaded"}, "load")
			newest := h.archive("alpine-x86_64", "x86_64-v19.4.0", "newest")
			for _, suffix := range []string{"", release.InfoSuffix} {
				h.write("ready/"+newest.Name+suffix, h.read("archives/"+newest.Name+suffix))
			}
			second := h.archive("alpine-x86_64", "x86_64-v19.3.0", "second")
			h.has("next", second.RepoTag, imageOf(second))
			h.has("after", newest.RepoTag, imageOf(newest))
			// A podman at whose first such call a package manager exchanges the archive.
			h.write("bin/podman-real", h.read("bin/podman"))
			h.program("podman", "sh $D/bin/podman-real \"$@\"; code=$?\n[ \"$1\" != "+verb+" ] || { mv $D/ready/* $D/archives/; mv $D/after/* $D/next/; } 2>/dev/null\nexit $code")
			if out := h.want(exitOK, nil, "load"); strings.Count(out, ": loaded") != 2 {
				t.Errorf("want both versions loaded:\n%s", out)
			}
			if got := h.read("loaded"); got != "newest" {
				t.Errorf("the engine got %q last", got)
			}
		})
	}
}

// TestHostileAnswers refuses what an engine must not answer.
func TestHostileAnswers(t *testing.T) {
	h := newFakeHost(t)
	h.settings = append(h.settings, "USERS=root")
	h.archive("alpine-x86_64", "x86_64-v19.3.0", "x")
	for name, test := range map[string]struct{ script, want string }{
		"option as ID": {`echo '[{"Id": "--force"}]'`, `"--force" is not an image ID`},
		"null":         {"echo '[null]'", "image 0 is null"},
		"not JSON":     {"echo yes", "answer of podman image inspect: invalid character"},
		"too many":     {`id=$(printf %064d 0); echo '[{"Id": "'$id'"}, {"Id": "'$id'"}]'; exit 1`, "2 images, want 1"},
		"too few":      {"echo '[]'", "0 images, want 1"},
		"endless":      {"yes | head -c 40000000", "its output has more than"},
	} {
		t.Run(name, func(t *testing.T) {
			h := *h
			h.t = t
			h.program("podman", test.script)
			h.want(exitEngine, []string{"podman/root: ", test.want}, "load")
		})
	}
}

// TestSeenOnly reports no success that was not seen: an engine that accepts an
// archive and does not have its image afterwards.
func TestSeenOnly(t *testing.T) {
	h := newPodmanHost(t)
	a := h.archive("alpine-x86_64", "x86_64-v19.3.0", "x")
	h.want(exitEngine, []string{"failed: the engine reports success but has no image as " + a.RepoTag}, "load")
	wrong := imageOf(a)
	wrong.ID, wrong.RootFS.Layers = digest("wrong"), nil
	h.has("next", a.RepoTag, wrong)
	h.want(exitEngine, []string{"the engine reports success but has " + wrong.ID}, "load")
	if got := h.read("state/images"); got != "" {
		t.Errorf("the state names it: %q", got)
	}
}

// TestForeign keeps another image, explains one that Runner has imported, and
// replaces the one that is named (row P).
func TestForeign(t *testing.T) {
	h := newPodmanHost(t)
	a := h.archive("alpine-x86_64", "x86_64-v19.3.0", "x")
	other := imageOf(a)
	other.ID, other.RootFS.Layers = digest("other"), []string{"sha256:" + digest("flat")}
	h.has("store", a.RepoTag, other)
	h.want(exitForeign, []string{"kept another image: " + a.RepoTag + " is " + other.ID, "to replace it: gitlab-runner-helper-images load --replace " + other.ID[:12]}, "load")
	other.Comment, other.Config.Entrypoint = "Imported from -", []string{"/usr/bin/dumb-init", "/entrypoint"}
	h.has("store", a.RepoTag, other)
	h.want(exitForeign, []string{"GitLab Runner has imported it from its own package of the same version"}, "load")
	h.want(exitForeign, []string{"kept another image"}, "load", "--replace", digest("third")[:12])
	h.has("next", a.RepoTag, imageOf(a))
	h.want(exitOK, []string{": loaded"}, "load", "--replace", other.ID[:12])
	h.want(exitOK, []string{": present"}, "load")
}

// TestPruneKeepsUnclear keeps the images of Runner's version where config.toml is
// not understood, and those alone (row G).
func TestPruneKeepsUnclear(t *testing.T) {
	for name, test := range map[string]struct {
		version, config string
		kept            string
	}{
		"understood":        {"19.3.0", docker(`helper_image_flavor = "ubuntu"`), "ubuntu-x86_64-v19.3.0"},
		"not understood":    {"19.3.0", "[[runners]\n", "x86_64-v19.3.0 ubuntu-x86_64-v19.3.0 ubuntu-x86_64-v19.3.0-pwsh"},
		"variable":          {"19.3.0", docker(`helper_image_flavor = "${X}"`), "x86_64-v19.3.0 ubuntu-x86_64-v19.3.0 ubuntu-x86_64-v19.3.0-pwsh"},
		"version not known": {"", docker(), "x86_64-v19.2.0 x86_64-v19.3.0 ubuntu-x86_64-v19.3.0 ubuntu-x86_64-v19.3.0-pwsh"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newPodmanHost(t)
			h.runner(test.version, "", test.config)
			var state string
			for _, tag := range []string{"x86_64-v19.2.0", "x86_64-v19.3.0", "ubuntu-x86_64-v19.3.0", "ubuntu-x86_64-v19.3.0-pwsh"} {
				image := held{ID: digest(tag), RepoTags: []string{catalogue.Repository + ":" + tag}}
				h.has("store", catalogue.Repository+":"+tag, image)
				state += "podman root " + catalogue.Repository + ":" + tag + " " + image.ID + " " + image.ID + " loaded\n"
			}
			h.write("state/images", state)
			out := h.want(exitOK, nil, "prune")
			var kept []string
			for line := range strings.Lines(out) {
				if reference, ok := strings.CutPrefix(line, "podman/root: "+catalogue.Repository+":"); ok && strings.Contains(line, ": kept: ") {
					kept = append(kept, strings.Fields(reference)[0])
				}
			}
			if diff := cmp.Diff(test.kept, strings.Join(kept, " ")); diff != "" {
				t.Errorf("kept (-want +got):\n%s\n%s", diff, out)
			}
		})
	}
}

// TestPruneRebuilt removes the image that has lost its tag to a new release of the
// same version, although Runner asks for the tag (row H).
func TestPruneRebuilt(t *testing.T) {
	h := newPodmanHost(t)
	h.runner("19.3.0", "", docker())
	a := h.archive("alpine-x86_64", "x86_64-v19.3.0", "new")
	h.has("store", a.RepoTag, imageOf(a))
	old := held{ID: digest("old")}
	h.has("store", old.ID, old)
	h.write("state/images", "podman root "+a.RepoTag+" "+old.ID+" "+old.ID+" loaded\n")
	h.want(exitOK, []string{"(" + old.ID[:12] + "): removed"}, "prune")
	if got := h.read("store/" + old.ID); got != "" {
		t.Error("the old image is still there")
	}
	if got := h.read("state/images"); got != "" {
		t.Errorf("the state still has %q", got)
	}
	if out := h.want(exitOK, nil, "prune"); out != "" {
		t.Errorf("nothing is left to prune, but:\n%s", out)
	}
}

// TestStateOfShellLoader reads what the shell loader wrote, and keeps lines that it
// does not understand.
func TestStateOfShellLoader(t *testing.T) {
	h := newPodmanHost(t)
	a := h.archive("alpine-x86_64", "x86_64-v19.3.0", "new")
	old := held{ID: digest("old")}
	h.has("store", a.RepoTag, old)
	h.has("next", a.RepoTag, imageOf(a))
	strange := "podman root localhost/x:1 0 0 loaded\n"
	h.write("state/images", strange+"podman root "+a.RepoTag+" "+old.ID+" "+digest("older archive")+" loaded\n")
	h.want(exitTempFail, []string{"superseded"}, "status")
	h.want(exitOK, []string{": loaded"}, "load")
	if got := h.read("state/images"); !strings.HasPrefix(got, strange) {
		t.Errorf("the state is\n%s", got)
	}
}

// TestUsers finds gitlab-runner's ranges wherever they are, and says why it is left out (row B).
func TestUsers(t *testing.T) {
	const none = "exit 1"
	for name, test := range map[string]struct {
		getsubids, subuid, subgid string
		want                      []string
		leftOut                   string
	}{
		"by name":    {none, "gitlab-runner:100000:65536\n", "gitlab-runner:100000:65536\n", []string{"root", "gitlab-runner"}, ""},
		"by number":  {none, "alice:1:2\n990:100000:65536\n", "990:100000:65536\n", []string{"root", "gitlab-runner"}, ""},
		"directory":  {`echo "0: $1 100000 65536"`, "", "", []string{"root", "gitlab-runner"}, ""},
		"uids alone": {none, "990:100000:65536\n", "", []string{"root"}, "/etc/subgid"},
		"none":       {none, "", "", []string{"root"}, "/etc/subuid"},
		"another's":  {none, "gitlab-runner2:1:2\n", "9900:1:2\n", []string{"root"}, "/etc/subuid"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newFakeHost(t)
			h.program("getent", `[ "$2" = gitlab-runner ] && echo "gitlab-runner:x:990:990::/home/gitlab-runner:/bin/sh"`)
			h.program("getsubids", test.getsubids)
			h.write("etc/subuid", test.subuid)
			h.write("etc/subgid", test.subgid)
			r := newRun(Process{Environ: h.environ})
			r.root = h.dir
			names, leftOut := r.defaultUsers(t.Context())
			if diff := cmp.Diff(test.want, names); diff != "" {
				t.Errorf("users (-want +got):\n%s", diff)
			}
			if (leftOut == "") != (test.leftOut == "") || !strings.Contains(leftOut, test.leftOut) {
				t.Errorf("left out: %q, want %q", leftOut, test.leftOut)
			}
		})
	}
	t.Run("reported", func(t *testing.T) {
		h := newFakeHost(t)
		h.engine("podman")
		h.program("getent", `[ "$2" = gitlab-runner ] && echo "gitlab-runner:x:990:990::/home/gitlab-runner:/bin/sh" || echo root:x:0:0::/root:/bin/sh`)
		h.archive("alpine-x86_64", "x86_64-v19.3.0", "x")
		h.want(exitOK, []string{"podman/gitlab-runner: left out: no subordinate IDs in /etc/subuid", "podman/root: alpine-x86_64: would load"}, "load", "--dry-run")
	})
}

// TestNoSuchUser serves the users that exist.
func TestNoSuchUser(t *testing.T) {
	h := newFakeHost(t)
	h.engine("podman")
	h.settings = append(h.settings, "USERS=no-such-user root")
	h.archive("alpine-x86_64", "x86_64-v19.3.0", "x")
	h.want(exitNoUser, []string{"no-such-user: no such user", "podman/root: alpine-x86_64: would load"}, "load", "--dry-run")
}

// TestAccountsWithoutGetent reads the files.
func TestAccountsWithoutGetent(t *testing.T) {
	h := newFakeHost(t)
	h.write("etc/passwd", "root:x:0:0::/root:/bin/sh\nalice:x:1000:1001::/home/alice:/bin/sh\nbad:x:y:1::/:/\n")
	r := newRun(Process{Environ: []string{"PATH=" + h.path("store")}})
	r.root = h.dir
	want := account{name: "alice", uid: 1000, gid: 1001, home: "/home/alice"}
	for _, key := range []string{"alice", "1000"} {
		if got, ok := r.lookup(t.Context(), key); !ok || !cmp.Equal(got, want, cmp.AllowUnexported(account{})) {
			t.Errorf("%s is %+v, %t", key, got, ok)
		}
	}
	for _, key := range []string{"bob", "bad", "1001"} {
		if got, ok := r.lookup(t.Context(), key); ok {
			t.Errorf("%s is %+v", key, got)
		}
	}
}

// TestSnap finds docker where snap packages put it (row E).
func TestSnap(t *testing.T) {
	r := newRun(Process{Environ: []string{"PATH=/usr/bin"}})
	if got := r.searchPath(); !strings.HasSuffix(got, ":/snap/bin") {
		t.Errorf("programs are searched in %s", got)
	}
}

// TestStatus distinguishes what is asked for from what the engine has.
func TestStatus(t *testing.T) {
	h := newFakeHost(t)
	h.engine("docker")
	a := h.archive("alpine-x86_64", "x86_64-v19.3.0", "x")
	h.has("store", a.RepoTag, imageOf(a))
	h.runner("19.3.0", "", docker()+docker(`helper_image_flavor = "concrete"`))
	want := []row{
		{Engine: "docker", User: "root", Helper: "alpine-x86_64", Image: a.RepoTag, State: present, ID: imageOf(a).ID, Wanted: true},
		{Engine: "docker", User: "root", Image: catalogue.Repository + ":concrete-x86_64-v19.3.0", State: missing, Wanted: true},
	}
	if diff := cmp.Diff(want, h.report().Images, cmp.AllowUnexported(row{})); diff != "" {
		t.Errorf("images (-want +got):\n%s", diff)
	}
}

// TestAdvice says what to do about an image that is asked for and missing (row O).
func TestAdvice(t *testing.T) {
	h := newFakeHost(t)
	h.engine("docker")
	a := h.archive("alpine-x86_64", "x86_64-v19.3.0", "x")
	for flavor, want := range map[string]string{
		"ubutnu":   `GitLab Runner 19.3.0 has no flavor "ubutnu" for this host; did you mean "ubuntu"?`,
		"ubuntu":   "install its package, gitlab-runner-helper-images of version 19.3.0",
		"ubi-fips": "install its package, gitlab-runner-helper-images-ubi-fips-amd64 of version 19.3.0",
		"gentoo":   "GitLab Runner 19.3.0 has no such image; its flavors for this host are alpine,",
	} {
		h.runner("19.3.0", "", docker(`helper_image_flavor = "`+flavor+`"`))
		h.want(exitTempFail, []string{"No archive here has " + catalogue.Repository + ":" + flavor + "-x86_64-v19.3.0: " + want}, "status")
	}
	h.runner("19.3.0", "", docker()+docker(`helper_image = "example.com/helper:1"`))
	h.want(exitTempFail, []string{
		"\nNo package has example.com/helper:1: config.toml asks for it with helper_image.\n",
		"\nTo load alpine-x86_64: gitlab-runner-helper-images load\n",
	}, "status")
	h.want(exitTempFail, []string{" alpine-x86_64 ", "\nHELPER=\"ubuntu-*\" leaves out alpine-x86_64.\n"}, "status", "--helper", "ubuntu-*")
	h.has("store", a.RepoTag, imageOf(a))
	h.runner("19.3.0", "", "")
	if out := h.want(exitOK, []string{"present"}, "status", "--helper", "ubuntu-*"); strings.Contains(out, "unpackaged") || strings.Contains(out, "leaves out") {
		t.Errorf("an archive is here and the image too:\n%s", out)
	}
	h.want(exitUnfit, []string{"that matches alpine-x86_46; it has alpine-x86_64 (did you mean alpine-x86_64?)"}, "load", "--helper", "alpine-x86_46")
}

// TestOtherArchitecture names what is there (row O).
func TestOtherArchitecture(t *testing.T) {
	h := newFakeHost(t)
	h.engine("docker")
	a := h.archive("alpine-arm64", "arm64-v19.3.0", "x")
	a.Platform = "linux/arm64"
	h.write("archives/"+a.Name+release.InfoSuffix, string(a.Info()))
	h.want(exitUnfit, []string{"has none for linux/amd64; it has alpine-arm64 for linux/arm64"}, "load")
	h.want(exitOK, []string{"docker/root: alpine-arm64: would load"}, "load", "--all", "--dry-run")
}

// TestContainerd says what to type where there is only containerd.
func TestContainerd(t *testing.T) {
	h := newFakeHost(t)
	a := h.archive("alpine-x86_64", "x86_64-v19.3.0", "x")
	h.write("run/k3s/containerd/containerd.sock", "")
	h.want(exitNoEngine, []string{
		"containerd is, but load does not serve it: see status",
		"GitLab Runner is not installed here.",
		"load would bring " + a.RepoTag,
		"For containerd: zstd -dc " + filepath.Join(h.path("archives"), a.Name) + " | k3s ctr -n k8s.io images import -",
	}, "status")
}

// TestSpace refuses what does not fit.
func TestSpace(t *testing.T) {
	h := newPodmanHost(t)
	a := h.archive("alpine-x86_64", "x86_64-v19.3.0", "x")
	a.UnpackedSize = 1 << 50
	h.write("archives/"+a.Name+release.InfoSuffix, string(a.Info()))
	h.want(exitNoSpace, []string{"no space: ", "MiB free, want 2147483664"}, "load") // twice: store and temporary directory
}

// TestDatabaseDrivers finds the storage driver in libpod's databases (row A).
func TestDatabaseDrivers(t *testing.T) {
	for name, test := range map[string]struct {
		data string
		want []string
	}{
		"bolt":    {"\x00\x01graph-driver-namevfsgraph-root/home/a/.local/share/containers/storageoslinuxrun-root/run/user/1000/containers", []string{"vfs"}},
		"sqlite":  {"\x08linux/home/a/.local/share/containers/storage/libpod/run/user/1000/libpod/tmp/home/a/.local/share/containers/storage/run/user/1000/containersoverlay/home/a/.local/share/containers/storage/volumes", []string{"overlay"}},
		"neither": {"SQLite format 3\x00", nil},
		"both":    {"graph-driver-namevfsgraph-root graph-driver-nameoverlaygraph-root", []string{"vfs", "overlay"}},
	} {
		if diff := cmp.Diff(test.want, databaseDrivers([]byte(test.data))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}
