package verify

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"pretag/build/catalogue"
	"pretag/build/release"
	"pretag/build/testutil/runnertest"
	"pretag/build/verify/job"
)

func TestHelperOf(t *testing.T) {
	for _, h := range []catalogue.Helper{
		{Flavor: "alpine", Arch: "x86_64"},
		{Flavor: "alpine-edge", Arch: "riscv64"},
		{Flavor: "ubi-fips", Arch: "x86_64"},
		{Flavor: "ubuntu", Arch: "arm64", Shell: "pwsh"},
		{Flavor: "alpine3.21", Arch: "x86_64", Shell: "pwsh"},
	} {
		if diff := cmp.Diff(h, helperOf(release.Archive{Helper: h.String()})); diff != "" {
			t.Errorf("%s: %s", h, diff)
		}
	}
}

// program writes a program that prints a version, and returns its path.
func program(t *testing.T, dir, version, revision string) string {
	t.Helper()
	path := filepath.Join(dir, "gitlab-runner")
	script := "#!/bin/sh\nprintf 'Version:      %s\\nGit revision: %s\\n' '" + version + "' '" + revision + "'\n"
	if err := os.WriteFile(path, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// A runner is taken if it asks for the archives' tags. One that was named must
// fit; one that happens to be in PATH need not.
func TestFindRunner(t *testing.T) {
	archives := func(tag string) []release.Archive {
		return []release.Archive{{Helper: "alpine-x86_64", RepoTag: runnertest.Repository + ":" + tag}}
	}
	for _, test := range []struct {
		name, version, revision, repoTag string
		says                             string // empty if the runner is taken
	}{
		{"same version", "17.9.0", "c4cbe9dd", "x86_64-v17.9.0", ""},
		{"development build of it", "17.9.0~pre.88.gc4cbe9dd", "c4cbe9dd", "x86_64-v17.9.0", ""},
		{"revision in the tag", "15.8.0", "12335144", "x86_64-12335144", ""},
		{"no version", "development version", "HEAD", "x86_64-latest", ""},
		{"other version", "17.9.1", "c4cbe9dd", "x86_64-v17.9.0", "is GitLab Runner 17.9.1 (revision c4cbe9dd), which asks for the tag x86_64-v17.9.1; the archive of alpine-x86_64 has the tag x86_64-v17.9.0"},
		{"other revision", "15.8.0", "00000000", "x86_64-12335144", "asks for the tag x86_64-00000000"},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			path := program(t, dir, test.version, test.revision)
			t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
			named, _, err := findRunner(t.Context(), path, archives(test.repoTag))
			found, why, foundErr := findRunner(t.Context(), "", archives(test.repoTag))
			if foundErr != nil {
				t.Errorf("a runner in PATH: %v", foundErr)
			}
			if test.says == "" {
				if err != nil || named == nil || found == nil || why != "" {
					t.Errorf("got %v, %v; in PATH %v, %q", named, err, found, why)
				}
				return
			}
			if named != nil || err == nil || !strings.HasPrefix(err.Error(), "GITLAB_RUNNER=") || !strings.Contains(err.Error(), test.says) {
				t.Errorf("named: %v, %v; want an error with %q", named, err, test.says)
			}
			if found != nil || !strings.Contains(why, test.says) || !strings.Contains(why, "set GITLAB_RUNNER") {
				t.Errorf("in PATH: %v, %q; want %q", found, why, test.says)
			}
		})
	}
	t.Run("other repository", func(t *testing.T) {
		path := program(t, t.TempDir(), "17.9.0", "c4cbe9dd")
		mirrored := []release.Archive{{Helper: "alpine-x86_64", RepoTag: "mirror.example.com/helper:x86_64-v17.9.0"}}
		if _, _, err := findRunner(t.Context(), path, mirrored); err == nil || !strings.Contains(err.Error(), "asks for images of "+runnertest.Repository) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("none", func(t *testing.T) {
		t.Setenv("PATH", t.TempDir())
		if r, why, err := findRunner(t.Context(), "", nil); r != nil || err != nil || !strings.HasPrefix(why, "there is no gitlab-runner in PATH; set GITLAB_RUNNER") {
			t.Errorf("got %v, %q, %v", r, why, err)
		}
		if _, _, err := findRunner(t.Context(), "/does/not/exist", nil); err == nil || !strings.HasPrefix(err.Error(), `GITLAB_RUNNER="/does/not/exist": `) {
			t.Errorf("got %v", err)
		}
	})
}

// What a job's outcome means.
func TestJudgeJob(t *testing.T) {
	trace := "\x1b[0;m$ cat word\nERROR: Job failed: exit code 1\x1b[0;m\n"
	for _, test := range []struct {
		name    string
		outcome job.Outcome
		said    bool
		want    []string
	}{
		{"works", job.Outcome{State: "success"}, true, nil},
		{"succeeds without the word", job.Outcome{State: "success"}, false, []string{"the trace lacks the word that the script prints from the cloned repository"}},
		{"fails with the word", job.Outcome{State: "failed", Reason: "script_failure", Trace: trace}, true, []string{
			"the runner reports failed script_failure, want success", "Job failed: exit code 1",
		}},
	} {
		var r Result
		judgeJob(&r, test.outcome, test.said)
		if diff := cmp.Diff(test.want, r.Problems); diff != "" || (r.Status == Passed) != (test.want == nil) {
			t.Errorf("%s: %s, %s", test.name, r.Status, diff)
		}
	}
}

// A control passes if the job fails because the image is missing. One that does not fail
// makes the job of the same helper void, and that of no other.
func TestJudgeControl(t *testing.T) {
	const repoTag = runnertest.Repository + ":x86_64-v17.9.0"
	lacks := func(image string) string {
		return "\x1b[31;1mERROR: Job failed (system failure): failed to pull image \"" + image + "\" with specified policies [never]: no such image (manager.go:251:0s)\x1b[0;m\n"
	}
	for _, row := range []struct {
		name    string
		outcome job.Outcome
		want    [3]Status // of the job, of another helper's job, of the control
		problem string
	}{
		{"missing image", job.Outcome{State: "failed", Trace: lacks(repoTag)}, [3]Status{Passed, Passed, Passed}, ""},
		{"another missing image", job.Outcome{State: "failed", Trace: lacks(repoTag + "-pwsh")}, [3]Status{Passed, Passed, Failed}, "for another reason: the trace lacks failed to pull image"},
		{"another failure", job.Outcome{State: "failed", Trace: "ERROR: Job failed: exit code 1\n"}, [3]Status{Passed, Passed, Failed}, "Job failed: exit code 1"},
		{"success", job.Outcome{State: "success"}, [3]Status{Void, Passed, Failed}, `the runner reports "success"`},
		{"no state", job.Outcome{}, [3]Status{Void, Passed, Failed}, `the runner reports ""`},
	} {
		results := []Result{
			{Subject: "alpine-x86_64", Check: jobCheck, Status: Passed},
			{Subject: "ubuntu-x86_64", Check: jobCheck, Status: Passed},
		}
		r := Result{Subject: "alpine-x86_64", Check: jobControl}
		j := helperJobs{engineRun: engineRun{result: &EngineResult{Results: results}}, im: expected{Archive: release.Archive{Helper: "alpine-x86_64", RepoTag: repoTag}}}
		j.judgeControl(&r, row.outcome)
		if got := [3]Status{results[0].Status, results[1].Status, r.Status}; got != row.want || !strings.Contains(strings.Join(r.Problems, "\n"), row.problem) {
			t.Errorf("%s: %v %q, want %v %q", row.name, got, r.Problems, row.want, row.problem)
		}
	}
}

func TestEnded(t *testing.T) {
	for _, row := range []struct {
		outcome job.Outcome
		want    bool
	}{
		{job.Outcome{State: "success"}, false},
		{job.Outcome{State: "success", Trace: "exit code 137"}, false},
		{job.Outcome{State: "failed", Reason: "script_failure", Trace: "ERROR: Job failed: exit code 1\n"}, false},
		{job.Outcome{State: "failed", Reason: "script_failure", Trace: "ERROR: Job failed: exit code 137\n"}, true},
		{job.Outcome{State: "failed", Reason: "runner_system_failure"}, true},
	} {
		if got := ended(row.outcome); got != row.want {
			t.Errorf("%+v: got %v", row.outcome, got)
		}
	}
}
