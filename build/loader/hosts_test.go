//go:build acceptance

package loader_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"pretag/build/testutil"
)

// Situations of real hosts. The letters are those of the issue.

// write writes a file of the user's, with its directories.
func (e engine) write(tb testing.TB, path, text, mode string) {
	tb.Helper()
	cmd := e.program("sh", "-ec", `mkdir -p "${1%/*}"; cat >"$1"; chmod "$2" "$1"`, "sh", path, mode)
	cmd.Stdin = strings.NewReader(text)
	wantOutput(tb, cmd, 0)
}

func lookupUser(tb testing.TB, name string) *user.User {
	tb.Helper()
	u, err := user.Lookup(name)
	if err != nil {
		tb.Fatal(err)
	}
	return u
}

// inNamespace returns the command that runs the loader after a script, with mounts of its own.
func (h *host) inNamespace(script string, args ...string) *exec.Cmd {
	h.tb.Helper()
	testutil.Tool(h.tb, "unshare")
	inner := h.command(args...)
	cmd := exec.Command("unshare", append([]string{"-m", "sh", "-c", "set -e; " + script + "; exec \"$@\"", "sh"}, inner.Args...)...)
	cmd.Env = inner.Env
	return cmd
}

// TestDriverOfDatabase loads into the store that the user's own podman uses,
// where its database names another storage driver than the configuration (A).
func TestDriverOfDatabase(t *testing.T) {
	for _, drivers := range [][2]string{{"vfs", "overlay"}, {"overlay", "vfs"}} {
		t.Run(drivers[0], func(t *testing.T) {
			e := rootless(t)
			conf := filepath.Join(e.home, ".config/containers/storage.conf")
			e.write(t, conf, fmt.Sprintf("[storage]\ndriver = %q\n", drivers[0]), "644")
			if out, err := e.command("images").CombinedOutput(); err != nil {
				testutil.Missing(t, drivers[0], string(out))
			}
			e.write(t, conf, fmt.Sprintf("[storage]\ndriver = %q\n", drivers[1]), "644")

			h := newHost(t, e.settings...)
			f := h.install("19.3.0")
			h.want(tryAgain, []string{"missing"}, "status")
			h.want(allPresent, []string{"loaded"}, "load")
			e.wantID(t, f.RepoTag, imageID(f))
			graph := filepath.Join(e.home, ".local/share/containers/storage")
			if _, err := os.Lstat(filepath.Join(graph, drivers[1]+"-images")); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("a second driver's directory is there: %v", err)
			}
			h.want(allPresent, []string{"present"}, "load")

			// Where both are there and nothing decides, nothing is done.
			if err := errors.Join(os.RemoveAll(filepath.Join(graph, "libpod")), os.RemoveAll(filepath.Join(graph, "db.sql"))); err != nil {
				t.Fatal(err)
			}
			e.write(t, filepath.Join(graph, drivers[1]+"-images/images.json"), "[]", "644")
			h.want(engineRefused, []string{"images of the storage drivers overlay and vfs"}, "load")
		})
	}
}

// testSystemSettings applies the system's containers.conf and TMPDIR to other users' podman (C).
func testSystemSettings(t *testing.T, e engine) {
	large := tempDir(t)
	if err := os.Chmod(large, 0o1777); err != nil {
		t.Fatal(err)
	}
	small := "mount -t tmpfs -o size=64k,mode=1777 tmpfs /var/tmp"
	h := newHost(t, e.settings...)
	h.install("18.1.0")
	wantOutput(t, h.inNamespace(small, "load"), noSpace, "/var/tmp has 0 MiB free")
	etc := filepath.Join(tempDir(t), "containers")
	conf := fmt.Sprintf("%s; cp -r /etc/containers %s; printf '[engine]\\nimage_copy_tmp_dir = \"%s\"\\n' >%[2]s/containers.conf; mount --bind %[2]s /etc/containers", small, etc, large)
	wantOutput(t, h.inNamespace(conf, "load"), allPresent, "loaded")
	h.install("18.2.0")
	h.settings = append(h.settings, "TMPDIR="+large)
	wantOutput(t, h.inNamespace(small, "load"), allPresent, "loaded")
	if left, err := os.ReadDir(large); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// testFullRun leaves the user's podman as it was where /run is full (I).
func testFullRun(t *testing.T, e engine) {
	h := newHost(t, e.settings...)
	h.install("19.3.0")
	full := "mount -t tmpfs -o size=16k tmpfs /run; head -c 100000 /dev/zero >/run/fill 2>/dev/null || true"
	for range 2 {
		out, code := output(t, h.inNamespace(full, "load"))
		if code == allPresent || strings.Contains(out, ": loaded") {
			t.Fatalf("exit %d:\n%s", code, out)
		}
	}
	if left, err := filepath.Glob(filepath.Join(e.home, ".local/share/containers/storage/libpod/*")); err != nil || len(left) > 0 {
		t.Errorf("podman's records of the user: %v, %v, want none", left, err)
	}
}

// testSubIDsByNumber serves gitlab-runner, a default user, if /etc/subuid and
// /etc/subgid name the user by number, and says why not if they do not name the user
// (B). In the loader's mount namespace the test's user is called gitlab-runner.
func testSubIDsByNumber(t *testing.T, e engine) {
	u := lookupUser(t, e.user)
	h := newHost(t, append(podman(t).settings, "USERS=")...) // root's store is the test's, too
	f := h.install("18.3.0")
	rename := func(owner string) string {
		return fmt.Sprintf(`cd %s
sed '/^gitlab-runner:/d; s/^%[2]s:/gitlab-runner:/' /etc/passwd >passwd
for file in subuid subgid; do sed '/^gitlab-runner:/d; s/^%[2]s:/%[3]s:/' /etc/$file >$file; done
for file in passwd subuid subgid; do mount --bind $file /etc/$file; done`, tempDir(t), e.user, owner)
	}
	line := "podman/gitlab-runner: "
	wantOutput(t, h.inNamespace(rename("another"), "load", "--dry-run"), allPresent, line+"left out: no subordinate IDs in /etc/subuid")
	wantOutput(t, h.inNamespace(rename(u.Uid), "load"), allPresent, line+hostHelper()+": loaded")
	e.wantID(t, f.RepoTag, imageID(f))
}

// testContext loads into the engine at the default socket, which GitLab Runner asks,
// although root's docker has a current context with another engine; and into that
// one too where config.toml names its socket (D). The other engine is podman.
func testContext(t *testing.T, e engine) {
	other := podman(t)
	other.serve(t)
	h := newHost(t, "ENGINE=docker")
	f := h.install("18.4.0")
	named := "unix://" + other.socket
	h.runner("18.4.0", "01234567", "[[runners]]\n  name = \"default\"\n  executor = \"docker\"\n[[runners]]\n  name = \"named\"\n  executor = \"docker\"\n  [runners.docker]\n    host = \""+named+"\"\n")
	h.env = append(h.env, "HOME="+t.TempDir())
	for _, args := range [][]string{{"context", "create", "elsewhere", "--docker", "host=" + named}, {"context", "use", "elsewhere"}, {"images"}} {
		cmd := exec.Command("docker", args...)
		cmd.Env = h.env
		wantOutput(t, cmd, 0)
	}
	here := "mount -t tmpfs tmpfs /run; ln -s " + e.socket + " /run/docker.sock"
	wantOutput(t, h.inNamespace(here, "status"), tryAgain, "docker/root", named)
	// Without config.toml only the default socket counts.
	config := filepath.Join(filepath.Dir(h.archives), "config.toml")
	if err := os.Rename(config, config+".off"); err != nil {
		t.Fatal(err)
	}
	wantOutput(t, h.inNamespace(here, "load"), allPresent, "docker/root: "+hostHelper()+": loaded")
	e.wantID(t, f.RepoTag, imageID(f))
	other.wantID(t, f.RepoTag, "")
	if err := os.Rename(config+".off", config); err != nil {
		t.Fatal(err)
	}
	wantOutput(t, h.inNamespace(here, "load"), allPresent, named+": "+hostHelper()+": loaded", "docker/root: "+hostHelper()+": present")
	other.wantID(t, f.RepoTag, imageID(f))
	wantOutput(t, h.inNamespace(here, "status"), allPresent) // neither has it missing
}

// testSnap finds docker where snap packages put it, and nowhere else, on a host
// without podman (E).
func testSnap(t *testing.T, e engine) {
	testutil.Tool(t, "chroot")
	h := newHost(t, "USERS=root", "DOCKER_HOST=unix://"+e.socket)
	f := h.install("18.5.0")
	h.env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"}
	root := tempDir(t)
	script := fmt.Sprintf(`mount -t tmpfs tmpfs %[1]s
for path in /*; do
	if [ -L "$path" ]; then
		cp -a "$path" %[1]s
	elif [ -d "$path" ]; then
		mkdir "%[1]s$path"
		mount --rbind "$path" "%[1]s$path"
	fi
done
mkdir -p %[1]s/snap/bin
cp %[2]s %[1]s/snap/bin/docker
for program in %[2]s %[3]s; do mount --bind /dev/null %[1]s$program; done
set -- chroot %[1]s "$@"`, root, testutil.Tool(t, "docker"), testutil.Tool(t, "podman"))
	if out, code := output(t, h.inNamespace(script, "load")); code != allPresent || out != "docker/root: "+hostHelper()+": loaded\n" {
		t.Errorf("exit %d:\n%s", code, out)
	}
	e.wantID(t, f.RepoTag, imageID(f))
}

// TestFullState reports a state that cannot be written, and keeps the old one (J).
func TestFullState(t *testing.T) {
	e := podman(t)
	h := newHost(t, e.settings...)
	h.install("19.3.0")
	state := filepath.Join(filepath.Dir(h.archives), "state")
	if err := os.Mkdir(state, 0o700); err != nil {
		t.Fatal(err)
	}
	mountTmpfs(t, state, "16k")
	h.want(allPresent, []string{"loaded"}, "load")
	before, err := os.ReadFile(filepath.Join(state, "images"))
	if err != nil {
		t.Fatal(err)
	}
	_ = os.WriteFile(filepath.Join(state, "fill"), make([]byte, 1<<20), 0o600) // until it is full
	next := h.install("19.4.0")
	h.want(noSpace, []string{"write state", "no space left on device"}, "load")
	if after, err := os.ReadFile(filepath.Join(state, "images")); err != nil || string(after) != string(before) {
		t.Errorf("the state is %q, %v, want %q", after, err, before)
	}
	e.wantID(t, next.RepoTag, "")
	if err := os.Remove(filepath.Join(state, "fill")); err != nil {
		t.Fatal(err)
	}
	h.want(allPresent, []string{"loaded"}, "load")
}

// TestMountProgram runs a program of the user's without a terminal (K).
func TestMountProgram(t *testing.T) {
	needRoot(t)
	testutil.Tool(t, "script")
	e := rootless(t)
	evil, seen := filepath.Join(e.home, "evil"), filepath.Join(e.home, "seen")
	e.write(t, evil, "#!/bin/sh\n{ id -u; id -G; if : 3<>/dev/tty; then echo terminal; else echo none; fi; } >>"+seen+" 2>/dev/null\nprintf '\\033]0;evil\\007\\033[2J' >&2\nexit 1\n", "755")
	e.write(t, filepath.Join(e.home, ".config/containers/storage.conf"), fmt.Sprintf("[storage]\ndriver = \"overlay\"\n[storage.options.overlay]\nmount_program = %q\n", evil), "644")
	h := newHost(t, e.settings...)
	h.install("19.3.0")
	load := h.command("load")
	terminal := exec.Command("script", "-qec", strings.Join(load.Args, " "), "/dev/null")
	terminal.Env = load.Env
	out, _ := output(t, terminal)
	if strings.ContainsAny(out, "\x1b\x07") {
		t.Errorf("escape sequences reached the terminal: %q", out)
	}
	text, err := os.ReadFile(seen)
	if err != nil {
		testutil.Missing(t, "mount_program", "podman did not run it: "+out)
	}
	if strings.Contains(string(text), "terminal") {
		t.Errorf("the program has a terminal:\n%s", text)
	}
}

// TestKilled cleans up what a killed run left: podman's archive and the private directory.
func TestKilled(t *testing.T) {
	for _, e := range []engine{podman(t), rootless(t)} {
		t.Run(e.user, func(t *testing.T) {
			temp := tempDir(t)
			if err := os.Chmod(temp, 0o1777); err != nil {
				t.Fatal(err)
			}
			h := newHost(t, append(e.settings, "TMPDIR="+temp)...)
			f := h.write("19.3.0", zstd, testutil.Tar(t, testutil.File("big", strings.Repeat("0123456789abcdef", 4<<20))))
			for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
				load := h.command("load")
				if err := load.Start(); err != nil {
					t.Fatal(err)
				}
				arrived := func() bool {
					files, err := filepath.Glob(filepath.Join(temp, "*", "*"))
					if err != nil {
						t.Fatal(err)
					}
					return len(files) > 0
				}
				for deadline := time.Now().Add(time.Minute); !arrived(); time.Sleep(10 * time.Millisecond) {
					if time.Now().After(deadline) {
						t.Fatal("no archive arrives in TMPDIR")
					}
				}
				if err := load.Process.Signal(signal); err != nil {
					t.Fatal(err)
				}
				_ = load.Wait() // by the signal
				left, err := os.ReadDir(temp)
				if err != nil {
					t.Fatal(err)
				}
				if signal == syscall.SIGTERM {
					if got := load.ProcessState.ExitCode(); got != 128+int(signal) {
						t.Errorf("%v: exit %d, want %d", signal, got, 128+int(signal))
					}
					if len(left) > 0 {
						t.Errorf("%v: left %v", signal, left)
					}
				} else {
					t.Logf("%v: left %d", signal, len(left))
				}
			}
			h.want(allPresent, []string{"loaded"}, "load")
			if left, err := os.ReadDir(temp); err != nil || len(left) > 0 {
				t.Errorf("left: %v, %v", left, err)
			}
			if u := lookupUser(t, e.user); u.Uid != "0" {
				if left, err := filepath.Glob("/run/gitlab-runner-helper-images." + u.Uid + ".*"); err != nil || len(left) > 0 {
					t.Errorf("left: %v, %v", left, err)
				}
				noProcesses(t, e.user)
			}
			e.wantID(t, f.RepoTag, imageID(f))
		})
	}
}

// TestSession serves a user who has a session, through its runtime directory, unless
// that directory is not the user's.
func TestSession(t *testing.T) {
	e := rootless(t)
	u := lookupUser(t, e.user)
	runtime := "/run/user/" + u.Uid
	uid, _ := strconv.Atoi(u.Uid)
	if err := errors.Join(os.MkdirAll("/run/user", 0o755), os.Mkdir(runtime, 0o700)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(runtime); err != nil {
			t.Error(err)
		}
	})
	e.environ = []string{"XDG_RUNTIME_DIR=" + runtime}
	h := newHost(t, e.settings...)
	f := h.install("19.3.0")
	h.want(tryAgain, []string{"missing"}, "status") // the directory is root's
	if err := os.Chown(runtime, uid, uid); err != nil {
		t.Fatal(err)
	}
	h.want(allPresent, []string{"loaded"}, "load")
	e.wantID(t, f.RepoTag, imageID(f)) // in the session
	h.want(allPresent, []string{"present"}, "load")
}

// TestManyImages asks an engine once where all is present, whatever else it holds.
func TestManyImages(t *testing.T) {
	e := podman(t)
	h := newHost(t, e.settings...)
	h.install("19.3.0")
	h.want(allPresent, []string{"loaded"}, "load")
	var graph string
	for _, setting := range e.settings {
		if conf, ok := strings.CutPrefix(setting, "CONTAINERS_STORAGE_CONF="); ok {
			graph = filepath.Join(filepath.Dir(conf), "graph")
		}
	}
	multiply(t, graph, 1000)
	bin := t.TempDir()
	real, calls := testutil.Tool(t, "podman"), filepath.Join(bin, "calls")
	if err := os.WriteFile(filepath.Join(bin, "podman"), []byte("#!/bin/sh\necho \"$1 $2\" >>"+calls+"\nexec "+real+" \"$@\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	h.env = environ("PATH=" + bin + ":" + os.Getenv("PATH"))
	load := h.command("load")
	begin := time.Now()
	wantOutput(t, load, allPresent, ": present")
	took := time.Since(begin)
	busy, _ := os.ReadFile("/proc/loadavg") // for the log alone
	t.Logf("load with 1001 images in the store, all present: %v, CPU time %v, load average %.4s", took, load.ProcessState.UserTime()+load.ProcessState.SystemTime(), busy)
	text, err := os.ReadFile(calls)
	if err != nil || string(text) != "image inspect\n" {
		t.Errorf("calls %q, %v, want one", text, err)
	}
}

// multiply gives podman's vfs store copies of its first image under other IDs and names.
func multiply(tb testing.TB, graph string, n int) {
	tb.Helper()
	dir := filepath.Join(graph, "vfs-images")
	text, err := os.ReadFile(filepath.Join(dir, "images.json"))
	if err != nil {
		tb.Fatal(err)
	}
	var images []map[string]any
	if err := json.Unmarshal(text, &images); err != nil {
		tb.Fatal(err)
	}
	first := images[0]
	for i := range n {
		copied := maps.Clone(first)
		id := fmt.Sprintf("%064x", i+1)
		copied["id"], copied["names"] = id, []string{fmt.Sprintf("localhost/many:%d", i)}
		delete(copied, "digest")
		images = append(images, copied)
		if err := os.CopyFS(filepath.Join(dir, id), os.DirFS(filepath.Join(dir, first["id"].(string)))); err != nil {
			tb.Fatal(err)
		}
	}
	if text, err = json.Marshal(images); err == nil {
		err = os.WriteFile(filepath.Join(dir, "images.json"), text, 0o600)
	}
	if err != nil {
		tb.Fatal(err)
	}
}
