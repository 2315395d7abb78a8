//go:build acceptance

package verify

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"pretag/build/engine"
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
	if err := child(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func child(dir string) error {
	var archives []release.Archive
	infos, err := filepath.Glob(filepath.Join(dir, "*"+release.InfoSuffix))
	if err != nil {
		return err
	}
	for _, path := range infos {
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		f, err := release.ParseInfo(bytes.NewReader(content))
		if err != nil {
			return err
		}
		f.Path = strings.TrimSuffix(path, release.InfoSuffix)
		archives = append(archives, f)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	runner, _, err := FindRunner(ctx, "", archives) // a test may have put one into PATH
	if err != nil {
		return err
	}
	images, err := expectAll(ctx, archives)
	if err != nil {
		return err
	}
	_, err = checkEngines(ctx, nil, images, &decoder{}, runner, func(line string) { fmt.Println(line) })
	return err
}

// An interrupted run ends, and nothing of its engines is left.
func TestInterrupt(t *testing.T) {
	found, _, err := engine.Find(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(found) == 0 {
		testutil.Missing(t, "podman", "nor any other engine")
	}
	dir := t.TempDir()
	for _, f := range runnable(t, dir, "none", "alpine-arm", "alpine-arm64", "alpine-s390x", "alpine-x86_64", "ubuntu-arm", "ubuntu-x86_64") {
		write(t, f.Path+release.InfoSuffix, f.Info())
	}
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		t.Run(signal.String(), func(t *testing.T) {
			// Short, and open to the user that podman runs as.
			tmp, err := os.MkdirTemp("", "v-")
			if err != nil {
				t.Fatal(err)
			}
			defer os.Remove(tmp)
			if err := os.Chmod(tmp, 0o755); err != nil {
				t.Fatal(err)
			}
			cmd := exec.CommandContext(t.Context(), os.Args[0])
			cmd.Env = append(cmd.Environ(), childVariable+"="+dir, "TMPDIR="+tmp)
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			stdout, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			lines := bufio.NewReader(stdout)
			if line, err := lines.ReadString('\n'); err != nil {
				t.Fatalf("%q, %v: %s", line, err, stderr.String())
			}
			if err := cmd.Process.Signal(signal); err != nil {
				t.Fatal(err)
			}
			if _, err := lines.WriteTo(bytes.NewBuffer(nil)); err != nil {
				t.Error(err)
			}
			if err := cmd.Wait(); err == nil || !strings.Contains(stderr.String(), "signal received") {
				t.Errorf("ended with %v: %s", err, stderr.String())
			}
			left, err := os.ReadDir(tmp)
			if err != nil || len(left) != 0 {
				t.Errorf("left: %v, %v", left, err)
			}
			mounts, err := os.ReadFile("/proc/self/mounts")
			if err != nil || bytes.Contains(mounts, []byte(tmp)) {
				t.Errorf("mounts below %s are left, %v:\n%s", tmp, err, mounts)
			}
			processes, err := filepath.Glob("/proc/[0-9]*/cmdline")
			if err != nil {
				t.Fatal(err)
			}
			for _, path := range processes {
				if cmdline, _ := os.ReadFile(path); bytes.Contains(cmdline, []byte(tmp)) { // an error: it ended
					t.Errorf("process %s is left: %q", path, cmdline)
				}
			}
		})
	}
}
