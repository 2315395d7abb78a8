//go:build acceptance

package engine

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
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

// child starts an engine and prints its directory. It loads and runs the archive
// that its argument names, if there is one, or waits for the end of its input. Then
// it closes the engine.
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
	if err := i.Load(ctx, f); err != nil {
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

// A killed run leaves no process and no mount, and the next one removes its directory.
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
			for deadline := time.Now().Add(time.Minute); len(testutil.ProcessesOf(t, dir)) > 0; time.Sleep(20 * time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatalf("left: %q", testutil.ProcessesOf(t, dir))
				}
			}
			if _, err := os.Stat(dir); err != nil {
				t.Errorf("the directory should be left: %v", err)
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
	archive, _ := dockerArchive(t, testutil.Tar(t, testutil.Programs(t)...))
	subids := filepath.Join(dir, "subid")
	if err := errors.Join(
		os.WriteFile(subids, []byte(nobody.Uid+":1000000000:65536\n"), 0o644),
		os.WriteFile(filepath.Join(dir, "archive.tar"), archive, 0o644),
	); err != nil {
		t.Fatal(err)
	}
	// The shell is process 1 there, because podman needs one that reaps. It lists what is left.
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
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), childVariable + "=" + string(PodmanRootless), "HOME=" + dir, "TMPDIR=" + dir}
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
	if left, err := filepath.Glob(filepath.Join(dir, "*-*")); err != nil || len(left) > 0 {
		t.Errorf("left in TMPDIR: %q, %v", left, err)
	}
}
