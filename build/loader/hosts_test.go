//go:build acceptance

package loader_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
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

// writeAs writes a file of the user's, with its directories.
func writeAs(tb testing.TB, u *user.User, path, text string, mode os.FileMode) {
	tb.Helper()
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), mode), os.Chmod(path, mode)); err != nil {
		tb.Fatal(err)
	}
	for at := path; strings.HasPrefix(at, u.HomeDir+"/"); at = filepath.Dir(at) {
		if err := os.Lchown(at, uid, gid); err != nil {
			tb.Fatal(err)
		}
	}
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
			u := lookupUser(t, e.user)
			conf := filepath.Join(u.HomeDir, ".config/containers/storage.conf")
			writeAs(t, u, conf, fmt.Sprintf("[storage]\ndriver = %q\n", drivers[0]), 0o644)
			if out, err := e.command("info").CombinedOutput(); err != nil {
				testutil.Missing(t, drivers[0], string(out))
			}
			writeAs(t, u, conf, fmt.Sprintf("[storage]\ndriver = %q\n", drivers[1]), 0o644)
			if got := e.must(t, "info", "--format", "{{.Store.GraphDriverName}}"); got != drivers[0] {
				t.Fatalf("the user's podman works with %s, want %s, as its database says", got, drivers[0])
			}

			h := newHost(t, e.settings...)
			f := h.install("19.3.0", hostHelper())[0]
			h.want(tryAgain, []string{"missing"}, "status")
			h.want(allPresent, []string{"loaded"}, "load")
			if got := e.id(t, f.RepoTag); got != imageID(f) {
				t.Errorf("the user's podman has %q, want %s", got, imageID(f))
			}
			graph := filepath.Join(u.HomeDir, ".local/share/containers/storage")
			if _, err := os.Lstat(filepath.Join(graph, drivers[1]+"-images")); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("a second driver's directory is there: %v", err)
			}
			h.want(allPresent, []string{"present"}, "load")

			// Where both are there and nothing decides, nothing is done.
			if err := os.RemoveAll(filepath.Join(graph, "libpod")); err != nil {
				t.Fatal(err)
			}
			if err := os.RemoveAll(filepath.Join(graph, "db.sql")); err != nil {
				t.Fatal(err)
			}
			writeAs(t, u, filepath.Join(graph, drivers[1]+"-images/images.json"), "[]", 0o644)
			h.want(engineRefused, []string{"images of the storage drivers overlay and vfs"}, "load")
		})
	}
}

// TestSystemSettings applies the system's containers.conf and TMPDIR to other users' podman (C).
func TestSystemSettings(t *testing.T) {
	needRoot(t)
	e := rootless(t)
	large := tempDir(t)
	if err := os.Chmod(large, 0o1777); err != nil {
		t.Fatal(err)
	}
	small := "mount -t tmpfs -o size=64k,mode=1777 tmpfs /var/tmp"
	h := newHost(t, e.settings...)
	h.install("19.3.0", hostHelper())
	if out, code := output(t, h.inNamespace(small, "load")); code != noSpace || !strings.Contains(out, "/var/tmp has 0 MiB free") {
		t.Fatalf("exit %d, want %d: /var/tmp is not small:\n%s", code, noSpace, out)
	}
	etc := filepath.Join(tempDir(t), "containers")
	conf := fmt.Sprintf("%s; cp -r /etc/containers %s; printf '[engine]\\nimage_copy_tmp_dir = \"%s\"\\n' >%[2]s/containers.conf; mount --bind %[2]s /etc/containers", small, etc, large)
	if out, code := output(t, h.inNamespace(conf, "load")); code != allPresent || !strings.Contains(out, "loaded") {
		t.Errorf("exit %d with image_copy_tmp_dir:\n%s", code, out)
	}
	h.install("19.4.0", hostHelper())
	h.settings = append(h.settings, "TMPDIR="+large)
	if out, code := output(t, h.inNamespace(small, "load")); code != allPresent || !strings.Contains(out, "loaded") {
		t.Errorf("exit %d with TMPDIR:\n%s", code, out)
	}
	if left, err := os.ReadDir(large); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// TestFullRun leaves the user's podman as it was where /run is full (I).
func TestFullRun(t *testing.T) {
	needRoot(t)
	e := rootless(t)
	u := lookupUser(t, e.user)
	h := newHost(t, e.settings...)
	f := h.install("19.3.0", hostHelper())[0]
	full := "mount -t tmpfs -o size=16k tmpfs /run; head -c 100000 /dev/zero >/run/fill 2>/dev/null || true"
	for range 2 {
		out, code := output(t, h.inNamespace(full, "load"))
		if code == allPresent || strings.Contains(out, ": loaded") {
			t.Fatalf("exit %d:\n%s", code, out)
		}
	}
	if left, err := filepath.Glob(filepath.Join(u.HomeDir, ".local/share/containers/storage/libpod/*")); err != nil || len(left) > 0 {
		t.Errorf("podman's records of the user: %v, %v, want none", left, err)
	}
	h.want(allPresent, []string{"loaded"}, "load")
	if got := e.id(t, f.RepoTag); got != imageID(f) {
		t.Errorf("in a session the image is %q, want %s", got, imageID(f))
	}
}

// TestFullState reports a state that cannot be written, and keeps the old one (J).
func TestFullState(t *testing.T) {
	e := podman(t)
	h := newHost(t, e.settings...)
	h.install("19.3.0", hostHelper())
	state := filepath.Join(filepath.Dir(h.archives), "state")
	if err := os.Mkdir(state, 0o700); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", state).CombinedOutput(); err != nil {
		testutil.Missing(t, "mount", string(out))
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(state, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	h.want(allPresent, []string{"loaded"}, "load")
	before, err := os.ReadFile(filepath.Join(state, "images"))
	if err != nil {
		t.Fatal(err)
	}
	_ = os.WriteFile(filepath.Join(state, "fill"), make([]byte, 1<<20), 0o600) // until it is full
	next := h.install("19.4.0", hostHelper())[0]
	h.want(noSpace, []string{"write state", "no space left on device"}, "load")
	if after, err := os.ReadFile(filepath.Join(state, "images")); err != nil || string(after) != string(before) {
		t.Errorf("the state is %q, %v, want %q", after, err, before)
	}
	if got := e.id(t, next.RepoTag); got != "" {
		t.Errorf("%s was loaded, which no later run would know", next.RepoTag)
	}
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
	u := lookupUser(t, e.user)
	evil, seen := filepath.Join(u.HomeDir, "evil"), filepath.Join(u.HomeDir, "seen")
	writeAs(t, u, evil, "#!/bin/sh\n{ id -u; id -G; if : 3<>/dev/tty; then echo terminal; else echo none; fi; } >>"+seen+" 2>/dev/null\nprintf '\\033]0;evil\\007\\033[2J' >&2\nexit 1\n", 0o755)
	writeAs(t, u, filepath.Join(u.HomeDir, ".config/containers/storage.conf"), fmt.Sprintf("[storage]\ndriver = \"overlay\"\n[storage.options.overlay]\nmount_program = %q\n", evil), 0o644)
	h := newHost(t, e.settings...)
	h.install("19.3.0", hostHelper())
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
			random := rand.NewChaCha8([32]byte{})
			content := make([]byte, 150<<20)
			_, _ = random.Read(content) // never fails
			f := h.write("19.3.0", hostHelper(), zstd, testutil.Tar(t, testutil.File("big", string(content))))
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
				if left, err := filepath.Glob("/run/gitlab-runner-helper-images.*/" + u.Uid); err != nil || len(left) > 0 {
					t.Errorf("left: %v, %v", left, err)
				}
				noProcesses(t, e.user)
			}
			if got := e.id(t, f.RepoTag); got != imageID(f) {
				t.Errorf("image ID %q, want %s", got, imageID(f))
			}
		})
	}
}

// TestDowngrade goes to an older release with the same tag and back.
func TestDowngrade(t *testing.T) {
	inEachEngine(t, func(t *testing.T, e engine) {
		h := newHost(t, e.settings...)
		for _, release := range []string{"one", "two", "one", "two"} {
			f := h.write("19.3.0", hostHelper(), zstd, testutil.Rootfs(t, release))
			h.want(allPresent, []string{"loaded"}, "load")
			h.want(allPresent, []string{"present"}, "load")
			if got := e.id(t, f.RepoTag); got != imageID(f) {
				t.Fatalf("release %s: image ID %q, want %s", release, got, imageID(f))
			}
		}
		h.runner("19.3.0", "9cbf0074", "")
		h.want(allPresent, []string{"removed"}, "prune") // the untagged one, although Runner asks for the tag (H)
	})
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
	own := func(args ...string) *exec.Cmd {
		cmd := e.command(args...)
		for i, word := range cmd.Args {
			if strings.HasPrefix(word, "XDG_RUNTIME_DIR=") {
				cmd.Args[i] = "XDG_RUNTIME_DIR=" + runtime
			}
		}
		return cmd
	}
	h := newHost(t, e.settings...)
	f := h.install("19.3.0", hostHelper())[0]
	h.want(tryAgain, []string{"missing"}, "status") // the directory is root's
	if err := os.Chown(runtime, uid, uid); err != nil {
		t.Fatal(err)
	}
	h.want(allPresent, []string{"loaded"}, "load")
	out, err := own("image", "inspect", "--format", "{{.Id}}", f.RepoTag).Output()
	if err != nil || strings.TrimSpace(string(out)) != imageID(f) {
		t.Errorf("in the session: %v, %q, want %s", err, out, imageID(f))
	}
	h.want(allPresent, []string{"present"}, "load")
}

// TestManyImages asks an engine once where all is present, whatever else it holds.
func TestManyImages(t *testing.T) {
	e := podman(t)
	h := newHost(t, e.settings...)
	h.install("19.3.0", hostHelper())
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
	begin := time.Now()
	h.want(allPresent, []string{"present"}, "load")
	t.Logf("load with 1001 images in the store, all present: %v", time.Since(begin))
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
