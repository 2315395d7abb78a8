package engine

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"pretag/build/testutil"
)

// childVariable makes the test binary run an engine of that kind instead of the tests.
const childVariable = "PRETAG_TEST_ENGINE"

func TestMain(m *testing.M) {
	kind, ok := os.LookupEnv(childVariable)
	if !ok {
		os.Exit(m.Run())
	}
	if err := child(Kind(kind)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// child starts an engine, tells its folder, and closes it at the end of its
// input, having loaded and run what the file that it is given holds.
func child(kind Kind) error {
	ctx := context.Background()
	found, _, err := Find(ctx, []string{string(kind)})
	if err != nil {
		return err
	}
	i, err := found[0].Start(ctx)
	if err != nil {
		return err
	}
	fmt.Println(i.dir)
	if len(os.Args) > 1 {
		err = childLoads(ctx, i, os.Args[1])
	} else {
		_, err = bufio.NewReader(os.Stdin).ReadByte()
	}
	return errors.Join(err, i.Close())
}

func childLoads(ctx context.Context, i *Instance, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := i.Load(ctx, f); err != nil {
		return err
	}
	out, err := i.Run(ctx, reference, "sh", "-c", "echo as a plain user")
	fmt.Print(out)
	return err
}

// self is this test binary, where every user may run it.
func self(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "self-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	content, err := os.ReadFile("/proc/self/exe")
	if err == nil {
		err = errors.Join(os.Chmod(dir, 0o777|os.ModeSticky), os.WriteFile(filepath.Join(dir, "test"), content, 0o755))
	}
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "test")
}

// A killed run leaves no process and no mount, and the next one removes its folder.
func TestKilled(t *testing.T) {
	testutil.Root(t, "without a PID namespace podman's service outlives a kill -9")
	program := self(t)
	for _, e := range engines(t) {
		t.Run(string(e.Kind), func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), program)
			cmd.Env = append(cmd.Environ(), childVariable+"="+string(e.Kind), "TMPDIR="+filepath.Dir(program))
			if _, err := cmd.StdinPipe(); err != nil {
				t.Fatal(err)
			}
			stdout, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			line, err := bufio.NewReader(stdout).ReadString('\n')
			dir := strings.TrimSpace(line)
			if err := errors.Join(err, cmd.Process.Kill()); err != nil {
				t.Fatal(err)
			}
			cmd.Wait() // was killed
			for deadline := time.Now().Add(time.Minute); len(processesOf(t, dir)) > 0; time.Sleep(20 * time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatalf("left: %q", processesOf(t, dir))
				}
			}
			if _, err := os.Stat(dir); err != nil {
				t.Errorf("the folder should be left: %v", err)
			}
			t.Setenv("TMPDIR", filepath.Dir(program))
			instance, err := e.Start(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if err := instance.Close(); err != nil {
				t.Error(err)
			}
			assertNothingLeft(t, dir)
			assertNothingLeft(t, instance.dir)
		})
	}
}

// A folder in use is nobody's to remove.
func TestSweepSparesTheLiving(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	i := Instance{Engine: Engine{Kind: Docker}}
	if err := i.makeFolder(); err != nil {
		t.Fatal(err)
	}
	i.sweep()
	if _, err := os.Stat(i.dir); err != nil {
		t.Error(err)
	}
	if err := i.lock.Close(); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() != 0 {
		return // removing needs podman then
	}
	i.sweep()
	if _, err := os.Stat(i.dir); !os.IsNotExist(err) {
		t.Errorf("the folder is left: %v", err)
	}
}

// Of the number in pause.pid only a process of the instance is ended.
func TestEndPause(t *testing.T) {
	i := Instance{dir: t.TempDir()}
	if err := os.MkdirAll(i.path("run/libpod"), 0o755); err != nil {
		t.Fatal(err)
	}
	for home, want := range map[string]syscall.Signal{i.path("home"): syscall.SIGKILL, i.path("home2"): syscall.SIGTERM} {
		cmd := exec.CommandContext(t.Context(), "sh", "-c", "echo; read -r _")
		cmd.Env = append(cmd.Environ(), "HOME="+home)
		_, inErr := cmd.StdinPipe()
		stdout, err := cmd.StdoutPipe()
		if err := errors.Join(inErr, err, cmd.Start()); err != nil {
			t.Fatal(err)
		}
		_, err = stdout.Read(make([]byte, 1))
		err = errors.Join(err, os.WriteFile(i.path("run/libpod/pause.pid"), []byte(strconv.Itoa(cmd.Process.Pid)), 0o644), i.endPause())
		if err := errors.Join(err, cmd.Process.Signal(syscall.SIGTERM)); err != nil {
			t.Error(err)
		}
		cmd.Wait() // was killed
		if got := cmd.ProcessState.Sys().(syscall.WaitStatus).Signal(); got != want {
			t.Errorf("a process at home in %s: ended by %v, want %v", home, got, want)
		}
	}
}

// A user who is not root checks with their own podman. Here root becomes that
// user, in a mount namespace that gives them subordinate ids.
func TestPlainUser(t *testing.T) {
	if os.Geteuid() != 0 {
		testutil.Missing(t, "root", "the other tests run as a plain user already")
	}
	testutil.Tool(t, "newuidmap")
	testutil.Tool(t, "podman")
	nobody, err := user.Lookup("nobody")
	if err != nil {
		t.Fatal(err)
	}
	program := self(t)
	dir := filepath.Dir(program)
	archive, _ := dockerArchive(t, rootfs(t), reference)
	subids := filepath.Join(dir, "subid")
	if err := errors.Join(
		os.WriteFile(subids, []byte(nobody.Uid+":1000000000:65536\n"), 0o644),
		os.WriteFile(filepath.Join(dir, "archive.tar"), archive, 0o644),
	); err != nil {
		t.Fatal(err)
	}
	// The shell is process 1 in there: podman waits for one that reaps. It tells what is left.
	cmd := exec.CommandContext(t.Context(), "unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-ec", `
		mount --bind "$1" /etc/subuid
		mount --bind "$1" /etc/subgid
		cd /
		shift
		"$@"
		i=0
		while set -- /proc/[0-9]*/comm; [ $# -gt 1 ] && [ $((i += 1)) -lt 60 ]; do # what was killed is gone a moment later
			sleep 1
		done
		cat "$@"`, "sh", subids,
		"setpriv", "--reuid="+nobody.Uid, "--regid="+nobody.Gid, "--clear-groups", program, filepath.Join(dir, "archive.tar"))
	cmd.Env = append(cmd.Environ(), childVariable+"="+string(PodmanRootless), "HOME="+dir)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, stderr.String())
	}
	store, rest, _ := strings.Cut(string(out), "\n")
	if want := "as a plain user\nsh\n"; rest != want {
		t.Errorf("the container and the list of processes are %q, want %q", rest, want)
	}
	assertNothingLeft(t, store)
}

func TestFind(t *testing.T) {
	if _, _, err := Find(t.Context(), []string{"podmann", "docker", "crun"}); err == nil ||
		!strings.Contains(err.Error(), `engine "podmann" is unknown`) || !strings.Contains(err.Error(), `engine "crun" is unknown`) {
		t.Errorf("unknown engines: %v", err)
	}
	t.Run("nothing installed", func(t *testing.T) {
		t.Setenv("PATH", t.TempDir())
		found, absent, err := Find(t.Context(), nil)
		if err != nil || len(found) != 0 || len(absent) != len(Kinds()) {
			t.Errorf("found %v, absent %v, %v", found, absent, err)
		}
		for _, wanted := range []string{"podman", "docker"} {
			if _, _, err := Find(t.Context(), []string{wanted}); err == nil || !strings.Contains(err.Error(), "engine "+wanted) {
				t.Errorf("%s wanted: %v", wanted, err)
			}
		}
	})
	t.Run("what is not wanted is not looked for", func(t *testing.T) {
		testutil.Tool(t, "dockerd")
		if os.Geteuid() != 0 {
			testutil.Missing(t, "docker", "needs root")
		}
		found, absent, err := Find(t.Context(), []string{"docker"})
		if err != nil || len(found) != 1 || found[0].Kind != Docker || len(absent) != 2 || absent[0].Why != "not asked for" {
			t.Errorf("found %v, absent %v, %v", found, absent, err)
		}
	})
}

func TestVersions(t *testing.T) {
	for said, want := range map[string]string{
		"podman version 4.3.1\n":                         "4.3.1",
		"Docker version 20.10.24+dfsg1, build 5d6db84\n": "20.10.24+dfsg1",
		"Docker version 28.5.2, build ecc6942\n":         "28.5.2",
		"podman version 5.0.0-dev\n":                     "5.0.0-dev",
		"Docker version dev, build HEAD":                 "",
	} {
		if got := strings.TrimSuffix(versionWord(said), ","); got != want {
			t.Errorf("%q: %q, want %q", said, got, want)
		}
	}
	for _, test := range []struct {
		version, other string
		want           bool
	}{
		{"4.3.1", "4.5.1", true},
		{"4.5.1", "4.5.1", false},
		{"4.10.0", "4.5.1", false},
		{"5.8.2", "4.5.1", false},
		{"20.10.24+dfsg1", "23.0", true},
		{"23.0.0", "23.0", false},
		{"28.5.2", "23.0", false},
	} {
		if got := (Engine{Version: test.version}).Before(test.other); got != test.want {
			t.Errorf("%s before %s: %v", test.version, test.other, got)
		}
	}
}

// An engine that does not start says why, and leaves nothing.
func TestStartFails(t *testing.T) {
	if os.Geteuid() != 0 {
		testutil.Missing(t, "root", "no namespaces to start it in")
	}
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	script := filepath.Join(tmp, "dockerd")
	if err := os.WriteFile(script, []byte("#!/bin/sh\necho no kernel >&2\nexit 3\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		os.Getenv("PATH"): "exit status 3\nthe service ended: no kernel",
		tmp:               `exec: "sh": executable file not found in $PATH`,
	} {
		t.Setenv("PATH", path)
		_, err := Engine{Kind: Docker, command: script, daemon: script}.Start(t.Context())
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
		if left, _ := filepath.Glob(filepath.Join(tmp, folderPattern)); len(left) != 0 {
			t.Errorf("left: %v", left)
		}
	}
}

// A call that takes too long ends with the limit as its error, also when a
// grandchild holds the pipes; an error carries what the program complained of.
func TestOutput(t *testing.T) {
	tooLong := errors.New("no answer within a moment")
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	begun := filepath.Join(t.TempDir(), "begun")
	go func() { // a loaded machine takes its time until the program speaks
		for ; ctx.Err() == nil; time.Sleep(10 * time.Millisecond) {
			if _, err := os.Stat(begun); err == nil {
				cancel(tooLong)
			}
		}
	}()
	start := time.Now()
	_, err := output(ctx, exec.CommandContext(ctx, "sh", "-c", `echo waiting >&2; : >"$0"; sleep 30 & sleep 30`, begun))
	if !errors.Is(err, tooLong) || !strings.Contains(err.Error(), "waiting") {
		t.Errorf("got %v", err)
	}
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("took %s", took)
	}
	if _, err := output(t.Context(), exec.CommandContext(t.Context(), "sh", "-c", "echo bad >&2; exit 4")); err == nil || err.Error() != "exit status 4: bad" {
		t.Errorf("got %v", err)
	}
}

// An engine that does not answer is given up, with the limit as the error.
func TestAPIGivesUp(t *testing.T) {
	dir := t.TempDir()
	i := Instance{dir: dir}
	i.api.Transport = &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", i.socket())
	}}
	listener, err := net.Listen("unix", i.socket()) // never accepts
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	tooLong := errors.New("no answer within a moment")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, tooLong)
	defer cancel()
	if _, err := i.Images(ctx); !errors.Is(err, tooLong) || !strings.HasPrefix(err.Error(), "GET /images/json: ") {
		t.Errorf("got %v", err)
	}
}

func processesOf(t *testing.T, dir string) []string {
	t.Helper()
	paths, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, path := range paths {
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil || pid == os.Getpid() {
			continue
		}
		cmdline, _ := os.ReadFile(path) // ends when its process does
		environ, _ := os.ReadFile(filepath.Join(filepath.Dir(path), "environ"))
		if slices.ContainsFunc([][]byte{cmdline, environ}, func(b []byte) bool { return bytes.Contains(b, []byte(dir)) }) {
			found = append(found, fmt.Sprintf("%d %q", pid, cmdline))
		}
	}
	return found
}
