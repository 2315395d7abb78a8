//go:build acceptance

package verify

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"pretag/build/engine"
	"pretag/build/release"
	"pretag/build/testutil"
	"pretag/build/testutil/runnertest"
)

// git is the stand-in for git in images.
func git(t *testing.T) testutil.Entry {
	t.Helper()
	body, err := gitProgram()
	if err != nil {
		t.Fatal(err)
	}
	return executable("usr/bin/git", body)
}

// withRunner puts the small runner and words for it into PATH.
func withRunner(t *testing.T, words ...string) {
	t.Helper()
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "gitlab-runner"), self, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", strings.Join(append([]string{dir, os.Getenv("PATH")}, words...), ":"))
}

func foundRunner(t *testing.T, archives []release.Archive) *Runner {
	t.Helper()
	runner, why, err := FindRunner(t.Context(), "", archives)
	if err != nil || runner == nil {
		t.Fatalf("%q, %v", why, err)
	}
	return runner
}

// jobsOnly are the results of jobs.
func jobsOnly(results []Result) map[string]Status {
	found := map[string]Status{}
	for _, r := range results {
		if strings.HasPrefix(r.Check, jobCheck) {
			found[r.Subject+" "+r.Check] = r.Status
		}
	}
	return found
}

// inEnginesWithJobs is inEngines with the small runner.
func inEnginesWithJobs(t *testing.T, engines []string, archives []release.Archive, check func(*testing.T, EngineResult)) {
	t.Helper()
	results, err := checkArchives(t, engines, archives, foundRunner(t, archives), func(line string) { t.Log(line) })
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range results {
		if len(engines) > 0 && !slices.Contains(engines, string(r.Kind)) {
			continue
		}
		t.Run(string(r.Kind), func(t *testing.T) {
			if r.NotChecked != "" {
				name, _, _ := strings.Cut(string(r.Kind), "-")
				testutil.Missing(t, name, r.NotChecked)
			}
			for _, result := range r.Results {
				if strings.HasPrefix(result.Check, jobCheck) && result.Status == Failed {
					t.Logf("%s %s: %q\n%s", result.Subject, result.Check, result.Problems, result.log)
				}
			}
			check(t, r)
		})
	}
}

// Good images do jobs in every engine; an image without git is not checked.
func TestJobs(t *testing.T) {
	withRunner(t)
	host := hostHelper(t)
	other := strings.Replace(host, "ubuntu", "alpine", 1)
	dir := t.TempDir()
	archives := append(runnableAs(t, dir, runnertest.Repository, runnertest.Version, "zstd:fastest", git(t))(host, other),
		runnableAs(t, dir, runnertest.Repository, runnertest.Version, "zstd:fastest")(strings.Replace(host, "ubuntu", "alpine-latest", 1))...)
	inEnginesWithJobs(t, nil, archives, func(t *testing.T, r EngineResult) {
		file := Passed
		if r.Kind == engine.Docker && (engine.Engine{Version: r.Version}).Before("23.0") {
			file = Refused
		}
		want := map[string]Status{
			host + " job": Passed, host + " job-control": Passed, host + " job-file": file,
			other + " job": Passed, other + " job-control": Passed, other + " job-file": file,
			archives[2].Helper + " job": Skipped,
		}
		if diff := cmp.Diff(want, jobsOnly(r.Results)); diff != "" {
			t.Error(diff)
		}
	})
}

// A runner that does not need the image makes the jobs void, one that does
// nothing fails them.
func TestJobsReport(t *testing.T) {
	host := hostHelper(t)
	archives := runnableAs(t, t.TempDir(), runnertest.Repository, runnertest.Version, "none", git(t))(host)
	for word, want := range map[string]map[string]Status{
		runnertest.Careless: {host + " job": Void, host + " job-control": Failed},
		runnertest.Mute:     {host + " job": Void, host + " job-control": Failed},
		runnertest.Crash:    {host + " job": Failed, host + " job-control": Failed},
	} {
		t.Run(filepath.Base(word), func(t *testing.T) {
			withRunner(t, word)
			inEnginesWithJobs(t, oneEngine(t), archives, func(t *testing.T, r EngineResult) {
				if diff := cmp.Diff(want, jobsOnly(r.Results)); diff != "" {
					t.Error(diff)
				}
			})
		})
	}
}

// Of a job that is interrupted or killed nothing is left but, after a kill, a
// directory that the next run removes.
func TestJobInterrupted(t *testing.T) {
	testutil.Root(t, "without a PID namespace podman's service outlives a kill -9")
	found, _, err := engine.Find(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(found) == 0 {
		testutil.Missing(t, "podman", "nor any other engine")
	}
	dir := t.TempDir()
	for _, f := range runnableAs(t, dir, runnertest.Repository, runnertest.Version, "none", git(t))(hostHelper(t)) {
		write(t, f.Path+release.InfoSuffix, f.Info())
	}
	withRunner(t, runnertest.Hang)
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGKILL} {
		t.Run(signal.String(), func(t *testing.T) {
			tmp, err := os.MkdirTemp("", "v-") // short, and open to the user that podman runs as
			if err != nil {
				t.Fatal(err)
			}
			defer os.Remove(tmp)
			if err := os.Chmod(tmp, 0o755); err != nil {
				t.Fatal(err)
			}
			cmd := exec.CommandContext(t.Context(), os.Args[0])
			cmd.Env = append(cmd.Environ(), childVariable+"="+dir, "TMPDIR="+tmp)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			for deadline := time.Now().Add(10 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
				if hanging, _ := filepath.Glob(filepath.Join(tmp, "*", "*", "job-*", "work", "hanging")); len(hanging) == len(found) {
					break
				}
				if time.Now().After(deadline) {
					t.Fatal("no job in every engine")
				}
			}
			if err := cmd.Process.Signal(signal); err != nil {
				t.Fatal(err)
			}
			cmd.Wait() // was interrupted
			if signal == syscall.SIGKILL {
				for deadline := time.Now().Add(time.Minute); len(processesOf(t, tmp)) > 0; time.Sleep(50 * time.Millisecond) {
					if time.Now().After(deadline) {
						t.Fatalf("left: %q", processesOf(t, tmp))
					}
				}
				t.Setenv("TMPDIR", tmp)
				instance, err := found[0].Start(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if err := instance.Close(); err != nil {
					t.Error(err)
				}
			}
			if left := processesOf(t, tmp); len(left) > 0 {
				t.Errorf("processes are left: %q", left)
			}
			if left, err := os.ReadDir(tmp); err != nil || len(left) != 0 {
				t.Errorf("left: %v, %v", left, err)
			}
			if mounts, err := os.ReadFile("/proc/self/mounts"); err != nil || strings.Contains(string(mounts), tmp) {
				t.Errorf("mounts below %s are left, %v:\n%s", tmp, err, mounts)
			}
		})
	}
}

// processesOf lists processes whose command line or environment names dir.
func processesOf(t *testing.T, dir string) []string {
	t.Helper()
	paths, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, path := range paths {
		cmdline, _ := os.ReadFile(path) // an error: it ended
		environ, _ := os.ReadFile(filepath.Join(filepath.Dir(path), "environ"))
		if strings.Contains(string(cmdline)+string(environ), dir) {
			found = append(found, string(cmdline))
		}
	}
	return found
}
