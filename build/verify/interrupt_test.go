//go:build acceptance

package verify

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"pretag/build/release"
	"pretag/build/testutil"
	"pretag/build/testutil/runnertest"
)

// childVariable makes the test binary check the archives in a directory instead of running the tests.
const childVariable = "PRETAG_TEST_VERIFY"

func TestMain(m *testing.M) {
	runnertest.Become()
	dir, ok := os.LookupEnv(childVariable)
	if !ok {
		os.Exit(m.Run())
	}
	if err := runChild(dir); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

func runChild(dir string) error {
	infos, err := filepath.Glob(filepath.Join(dir, "*"+release.InfoSuffix))
	if err != nil {
		return err
	}
	var archives []release.Archive
	for _, path := range infos {
		f, err := release.ReadArchive(strings.TrimSuffix(path, release.InfoSuffix))
		if err != nil {
			return err
		}
		archives = append(archives, f)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	runner, _, err := findRunner(ctx, "", archives) // a test may have put one into PATH
	if err != nil {
		return err
	}
	s, err := newSession(ctx, archives, runner, func(line string) { fmt.Println(line) })
	if err != nil {
		return err
	}
	_, err = s.run(ctx, nil)
	return err
}

// startChild starts the checks of the archives of this directory in a process whose
// temporary files are below tmp.
func startChild(t *testing.T, dir string, archives []release.Archive) (child *exec.Cmd, output *bufio.Reader, tmp string) {
	t.Helper()
	for _, f := range archives {
		write(t, f.Path+release.InfoSuffix, f.Info())
	}
	tmp, err := os.MkdirTemp("", "v-") // short, and open to the user that podman runs as
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(tmp) })
	child = exec.CommandContext(t.Context(), os.Args[0])
	child.Env = append(child.Environ(), childVariable+"="+dir, "TMPDIR="+tmp)
	stdout, err := child.StdoutPipe()
	if err := errors.Join(err, os.Chmod(tmp, 0o755), child.Start()); err != nil {
		t.Fatal(err)
	}
	return child, bufio.NewReader(stdout), tmp
}

// assertEmpty wants nothing below tmp, and no process and no mount that belongs there.
func assertEmpty(t *testing.T, tmp string) {
	t.Helper()
	testutil.NothingLeft(t, tmp)
	if left, err := os.ReadDir(tmp); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// An interrupted run ends, and nothing of its engines is left.
func TestInterrupt(t *testing.T) {
	installed(t)
	dir := t.TempDir()
	archives := runnable(t, dir, "none", "alpine-arm", "alpine-arm64", "alpine-s390x", "alpine-x86_64", "ubuntu-arm", "ubuntu-x86_64")
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		t.Run(signal.String(), func(t *testing.T) {
			child, output, tmp := startChild(t, dir, archives)
			if line, err := output.ReadString('\n'); err != nil {
				t.Fatalf("%q, %v", line, err)
			}
			if err := child.Process.Signal(signal); err != nil {
				t.Fatal(err)
			}
			rest, err := io.ReadAll(output)
			if err := errors.Join(err, child.Wait()); err == nil || !strings.Contains(string(rest), "signal received\n") {
				t.Errorf("ended with %v: %s", err, rest)
			}
			assertEmpty(t, tmp)
		})
	}
}

// Of a job that is interrupted or killed nothing is left but, after a kill, a
// directory that the next run removes.
func TestJobInterrupted(t *testing.T) {
	testutil.Root(t, "without a PID namespace podman's service outlives a kill -9")
	found := installed(t)
	dir := t.TempDir()
	archives := runnableAs(t, dir, runnertest.Repository, runnertest.Version, "none", []testutil.Entry{git(t)}, hostHelper(t))
	withRunner(t, runnertest.Hang)
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGKILL} {
		t.Run(signal.String(), func(t *testing.T) {
			child, output, tmp := startChild(t, dir, archives)
			go io.Copy(io.Discard, output)
			await(t, "a job in every engine", func() bool {
				hanging, _ := filepath.Glob(filepath.Join(tmp, "*", "*", "job-*", "work", "hanging")) // the pattern is well formed
				return len(hanging) == len(found)
			})
			if err := child.Process.Signal(signal); err != nil {
				t.Fatal(err)
			}
			child.Wait() // was interrupted
			if signal == syscall.SIGKILL {
				await(t, "the end of all processes", func() bool { return len(testutil.ProcessesOf(t, tmp)) == 0 })
				t.Setenv("TMPDIR", tmp)
				instance, err := found[0].Start(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if err := instance.Close(); err != nil {
					t.Error(err)
				}
			}
			assertEmpty(t, tmp)
		})
	}
}

// await waits until the condition holds.
func await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Minute); !holds(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not seen: %s", what)
		}
	}
}
