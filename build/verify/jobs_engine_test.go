//go:build acceptance

package verify

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"pretag/build/engine"
	"pretag/build/release"
	"pretag/build/testutil"
	"pretag/build/testutil/runnertest"
)

// git returns a program that does what a job needs of git.
func git(t *testing.T) testutil.Entry {
	t.Helper()
	body, err := testutil.Compile("./testdata/git")
	if err != nil {
		t.Fatal(err)
	}
	return testutil.Executable("usr/bin/git", body)
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

func foundRunner(t *testing.T, archives []release.Archive) *gitlabRunner {
	t.Helper()
	runner, why, err := findRunner(t.Context(), "", archives)
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

// Good images do jobs in every engine; an image without git is not checked.
func TestJobs(t *testing.T) {
	withRunner(t)
	host := hostHelper(t)
	other := strings.Replace(host, "ubuntu", "alpine", 1)
	dir := t.TempDir()
	archives := append(runnableAs(t, dir, runnertest.Repository, runnertest.Version, "zstd:fastest", []testutil.Entry{git(t)}, host, other),
		runnableAs(t, dir, runnertest.Repository, runnertest.Version, "zstd:fastest", nil, strings.Replace(host, "ubuntu", "alpine-latest", 1))...)
	inEngines(t, nil, archives, foundRunner(t, archives), func(t *testing.T, r EngineResult) {
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
	archives := runnableAs(t, t.TempDir(), runnertest.Repository, runnertest.Version, "none", []testutil.Entry{git(t)}, host)
	for word, want := range map[string]map[string]Status{
		runnertest.Careless: {host + " job": Void, host + " job-control": Failed},
		runnertest.Mute:     {host + " job": Void, host + " job-control": Failed},
		runnertest.Crash:    {host + " job": Failed, host + " job-control": Failed},
	} {
		t.Run(filepath.Base(word), func(t *testing.T) {
			withRunner(t, word)
			inEngines(t, oneEngine(t), archives, foundRunner(t, archives), func(t *testing.T, r EngineResult) {
				if diff := cmp.Diff(want, jobsOnly(r.Results)); diff != "" {
					t.Error(diff)
				}
			})
		})
	}
}
