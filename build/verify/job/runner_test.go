//go:build acceptance

package job

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"pretag/build/testutil"
	"pretag/build/testutil/runnertest"
)

func TestMain(m *testing.M) {
	runnertest.Become()
	os.Exit(m.Run())
}

// here is a host without an engine: the small runner works on this machine.
type here struct{}

func (here) Socket() string    { return "" }
func (here) Give(string) error { return nil }
func (here) Command(ctx context.Context, argv ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	return cmd
}

// smallRunner is this test binary by the name by which it is a runner.
func smallRunner(t *testing.T) Program {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "gitlab-runner")
	if err := os.Link(self, path); err != nil {
		t.Fatal(err)
	}
	p, err := Look(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// installed is the small runner in a directory of its own.
func installed(t *testing.T) Runner {
	t.Helper()
	testutil.Tool(t, "git")
	r, err := Install(smallRunner(t), here{}, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestLook(t *testing.T) {
	p := smallRunner(t)
	if p.Version != runnertest.Version || p.Revision != runnertest.Revision {
		t.Errorf("got %+v", p)
	}
	for script, want := range map[string]string{
		"echo something else": `no version and revision in "something else\n": not a GitLab Runner`,
		"exit 3":              "--version: exit status 3",
	} {
		path := filepath.Join(t.TempDir(), "gitlab-runner")
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		if _, err := Look(t.Context(), path); err == nil || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", script, err, want)
		}
	}
}

// A job that works is a success and has the word of the repository in its trace,
// while the script that the trace repeats has not.
func TestRun(t *testing.T) {
	r := installed(t)
	outcome, said, err := r.Run(t.Context(), Settings{Image: "image:1", Flavor: "ubuntu", Shell: "pwsh", Concrete: true})
	if err != nil || outcome.State != "success" || !said {
		t.Errorf("%+v, said %t, %v", outcome, said, err)
	}
	if strings.Count(outcome.Trace, "word-") != 1 {
		t.Errorf("the word should be in the trace once:\n%s", outcome.Trace)
	}
	if left, err := filepath.Glob(filepath.Join(r.dir, "job-*")); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestRunFails(t *testing.T) {
	for _, test := range []struct {
		name, path, state string
		fails             string
	}{
		{"a runner that does nothing", runnertest.Mute, "success", ""},
		{"a runner that crashes", runnertest.Crash, "", "gitlab-runner ended before its job did\nexit status 1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := installed(t)
			t.Setenv("PATH", os.Getenv("PATH")+":"+test.path)
			outcome, said, err := r.Run(t.Context(), Settings{Image: "image:1"})
			if said || outcome.State != test.state {
				t.Errorf("%+v, said %t", outcome, said)
			}
			if test.fails == "" && err != nil || test.fails != "" && (err == nil || err.Error() != test.fails) {
				t.Errorf("got %v, want %q", err, test.fails)
			}
			if err != nil && !strings.Contains(outcome.Log, "ERROR: crash") {
				t.Errorf("the log lacks what the runner printed:\n%s", outcome.Log)
			}
		})
	}
}

// A job that is canceled ends with the cause, and so does its runner.
func TestRunStops(t *testing.T) {
	r := installed(t)
	t.Setenv("PATH", os.Getenv("PATH")+":"+runnertest.Hang)
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("stop")
	go func() {
		defer cancel(stop)
		for ctx.Err() == nil {
			if hanging, _ := filepath.Glob(filepath.Join(r.dir, "job-*", "work", "hanging")); len(hanging) > 0 {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	}()
	var process *exec.Cmd
	r.host = watched{func(cmd *exec.Cmd) { process = cmd }}
	if _, _, err := r.Run(ctx, Settings{Image: "image:1"}); !errors.Is(err, stop) {
		t.Errorf("got %v, want %v", err, stop)
	}
	// Whoever adopts the killed runner takes a moment to reap it.
	for deadline := time.Now().Add(time.Minute); !errors.Is(syscall.Kill(-process.Process.Pid, 0), syscall.ESRCH); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the process group %d of the runner is left", process.Process.Pid)
		}
	}
}

// watched is here, and reports each command.
type watched struct{ report func(*exec.Cmd) }

func (watched) Socket() string    { return "" }
func (watched) Give(string) error { return nil }
func (w watched) Command(ctx context.Context, argv ...string) *exec.Cmd {
	cmd := here{}.Command(ctx, argv...)
	w.report(cmd)
	return cmd
}

// An archive is offered under the name that the runner looks up, readable for
// everyone, and its own mode stays.
func TestOffer(t *testing.T) {
	r := installed(t)
	for _, mode := range []os.FileMode{0o644, 0o600} {
		archive := filepath.Join(t.TempDir(), "archive")
		if err := os.WriteFile(archive, []byte("archive"), mode); err != nil {
			t.Fatal(err)
		}
		if err := r.Offer(archive, "prebuilt-a.docker.tar.zst"); err != nil {
			t.Fatal(err)
		}
		offered := filepath.Join(r.dir, "lib/gitlab-runner/helper-images/prebuilt-a.docker.tar.zst")
		content, err := os.ReadFile(offered)
		if err != nil || string(content) != "archive" {
			t.Errorf("offered: %q, %v", content, err)
		}
		for path, want := range map[string]os.FileMode{offered: 0o644, archive: mode} {
			if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
				t.Errorf("%s: %v, %v; want %v", path, info, err, want)
			}
		}
		if err := r.Withdraw(); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(offered); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("withdrawn: %v", err)
		}
	}
}
