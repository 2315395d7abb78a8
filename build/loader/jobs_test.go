//go:build acceptance

package loader_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"pretag/build/internal/gobuild"
	"pretag/build/testutil"
	"pretag/build/verify/job"
)

// jobImage is the image in which scripts of jobs run. No runner asks for it.
const jobImage = "localhost/pretag/job:1"

// jobRootfs returns the root filesystem of a helper image that does jobs of runnertest.
func jobRootfs(t *testing.T) []byte {
	t.Helper()
	program := func(pkg string) []byte {
		path := filepath.Join(t.TempDir(), "program")
		if err := (gobuild.Builder{Source: "../..", Environ: os.Environ()}).Compile(t.Context(), pkg, runtime.GOARCH, "", path); err != nil {
			t.Fatal(err)
		}
		body, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return body
	}
	executable := func(name string, body []byte) testutil.Entry {
		file := testutil.File(name, string(body))
		file.Header.Mode = 0o755
		return file
	}
	sample := program("./build/demo/sample")
	entries := []testutil.Entry{executable("usr/bin/git", program("./build/verify/testdata/git"))}
	for _, name := range []string{"bin/sh", "usr/bin/dumb-init", "usr/bin/gitlab-runner-helper", "entrypoint"} {
		entries = append(entries, executable(name, sample))
	}
	return testutil.Tar(t, entries...)
}

// testJobs has the installed loader load into one user's store and into root's, and
// a GitLab Runner look for its helper image in both engines: a job works where the
// loader has loaded, and fails in the other engine, whose store is another one.
func testJobs(r root, rel delivery) {
	t := r.TB.(*testing.T)
	engines := []engine{podman(t), rootless(t)}
	var runners []func(want bool)
	for _, e := range engines {
		runners = append(runners, jobsIn(t, e, rel))
	}
	for i, e := range engines {
		h := r.host(t, e)
		h.want(allPresent, []string{e.String() + ": " + hostHelper() + ": loaded"}, "load")
		for j, run := range runners {
			run(i == j)
		}
		e.must(t, "rmi", rel.file.RepoTag)
	}
}

// jobsIn installs a GitLab Runner next to the engine and returns a function that has
// it run a job, and checks whether the job works.
func jobsIn(t *testing.T, e engine, rel delivery) func(want bool) {
	t.Helper()
	dir := tempDir(t)
	conf := filepath.Join(dir, "containers.conf")
	if err := os.WriteFile(conf, []byte(containersConf()), 0o644); err != nil {
		t.Fatal(err)
	}
	e.must(t, "load", "--input", rel.file.Path)
	e.must(t, "tag", rel.file.RepoTag, jobImage)
	e.must(t, "rmi", rel.file.RepoTag)
	service := e
	service.environ = append(service.environ, "CONTAINERS_CONF="+conf)
	service.serve(t)

	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "gitlab-runner")
	if err := os.Symlink(self, link); err != nil {
		t.Fatal(err)
	}
	program, err := job.Look(t.Context(), link)
	if err != nil {
		t.Fatal(err)
	}
	host := jobHost{e}
	own := filepath.Join(dir, "runner")
	if err := os.Mkdir(own, 0o755); err != nil {
		t.Fatal(err)
	}
	runner, err := job.Install(program, host, own)
	if err != nil {
		t.Fatal(err)
	}
	return func(want bool) {
		t.Helper()
		outcome, said, err := runner.Run(t.Context(), job.Settings{Image: jobImage, NoNetwork: e.home != ""})
		if err != nil {
			t.Fatalf("%s: %v\n%s", e, err, outcome.Log)
		}
		worked := outcome.State == "success" && said
		missing := strings.Contains(outcome.Trace, "failed to pull image \""+rel.file.RepoTag)
		if worked != want || missing == want {
			t.Errorf("%s: job is %s (word %t), want success %t and otherwise a missing image:\n%s", e, outcome.State, said, want, outcome.Trace)
		}
	}
}

// containersConf makes podman run containers on machines with few rights: those of
// package engine, without a store of its own.
func containersConf() string {
	runtime := ""
	if _, err := os.Stat("/sys/fs/cgroup/unified/cgroup.controllers"); err == nil {
		runtime = `runtime = "runc"` // crun refuses hybrid cgroups
	}
	return `[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
log_driver = "k8s-file"
netns = "none"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "none"
` + runtime + "\n"
}

// A jobHost is an engine as package job sees it.
type jobHost struct{ engine }

func (h jobHost) Socket() string { return h.socket }

func (h jobHost) Command(ctx context.Context, argv ...string) *exec.Cmd {
	prepared := h.program(argv...)
	cmd := exec.CommandContext(ctx, prepared.Args[0], prepared.Args[1:]...)
	cmd.Env, cmd.Dir = prepared.Env, prepared.Dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	return cmd
}

func (h jobHost) Give(dir string) error {
	if h.home == "" {
		return nil
	}
	return exec.Command("chown", "-Rh", h.user, dir).Run()
}
