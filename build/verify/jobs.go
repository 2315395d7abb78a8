package verify

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"

	"pretag/build/catalogue"
	"pretag/build/engine"
	"pretag/build/release"
	"pretag/build/verify/job"
)

// The checks that run a CI job with GitLab Runner.
const (
	jobCheck     = "job"         // the image is in the store before the job
	jobFileCheck = "job-file"    // the archive is in the runner's own directory, the image is not in the store
	jobControl   = "job-control" // neither: the job must fail
)

// fileSince is the first version that loads a .docker.tar.zst by itself
// (GitLab Runner v17.9.0, executors/docker/internal/prebuilt/prebuilt.go).
const fileSince = "17.9.0"

// A gitlabRunner is a GitLab Runner that asks for the tags of the archives.
type gitlabRunner struct {
	program job.Program
	version catalogue.Version
}

// findRunner returns the runner for the jobs: the program called name or, if name is
// empty, the gitlab-runner in PATH. If the one in PATH is missing or asks for other
// images, there is no runner, and why has the reason. For a named one that is an error.
func findRunner(ctx context.Context, name string, archives []release.Archive) (runner *gitlabRunner, why string, err error) {
	path, err := exec.LookPath(cmp.Or(name, "gitlab-runner"))
	if err == nil {
		runner, err = lookAt(ctx, path, archives)
	}
	switch {
	case err == nil:
		return runner, "", nil
	case context.Cause(ctx) != nil:
		return nil, "", context.Cause(ctx)
	case name != "":
		return nil, "", fmt.Errorf("GITLAB_RUNNER=%q: %w", name, err)
	case errors.Is(err, exec.ErrNotFound):
		err = errors.New("there is no gitlab-runner in PATH")
	}
	return nil, fmt.Sprintf("%v; set GITLAB_RUNNER to a gitlab-runner program of the version that the archives are for", err), nil
}

// lookAt asks the program for its version, and compares the tags that it asks
// for with those of the archives.
func lookAt(ctx context.Context, path string, archives []release.Archive) (*gitlabRunner, error) {
	p, err := job.Look(ctx, path)
	if err != nil {
		return nil, err
	}
	r := gitlabRunner{program: p}
	// A version that is not a number asks for latest (GitLab Runner v19.3.0, common/version.go).
	if v, err := catalogue.ParseVersion(p.Version, p.Revision); err == nil {
		r.version = v
	}
	for _, f := range archives {
		repository, got := splitTag(f.RepoTag)
		if repository != catalogue.Repository {
			return nil, fmt.Errorf("%s asks for images of %s; the archive of %s has the tag %s", path, catalogue.Repository, f.Helper, f.RepoTag)
		}
		if want := helperOf(f).Tag(r.version); got != want {
			return nil, fmt.Errorf("%s is GitLab Runner %s (revision %s), which asks for the tag %s; the archive of %s has the tag %s", path, p.Version, p.Revision, want, f.Helper, got)
		}
	}
	return &r, nil
}

// helperOf parses the name <flavor>-<arch>[-pwsh].
func helperOf(f release.Archive) catalogue.Helper {
	var h catalogue.Helper
	name, pwsh := strings.CutSuffix(f.Helper, "-pwsh")
	if pwsh {
		h.Shell = "pwsh"
	}
	dash := strings.LastIndexByte(name, '-')
	h.Flavor, h.Arch = name[:max(dash, 0)], name[dash+1:]
	return h
}

// jobs runs the jobs of every image that is for this machine and has passed the other
// checks.
func (run engineRun) jobs(ctx context.Context) error {
	dir, err := run.MkdirTemp()
	if err != nil {
		return fmt.Errorf("%s: %w", run.Kind, err)
	}
	installed, err := job.Install(run.runner.program, run.Instance, dir)
	if err != nil {
		return fmt.Errorf("%s: %w", run.Kind, err)
	}
	var images []expected
	for _, im := range run.images {
		switch {
		case !im.runsHere(): // the check run says so
		case worst(run.result.Of(im.Helper)) == Failed:
			run.skip(im, "another check of the image failed")
		default:
			images = append(images, im)
		}
	}
	for _, im := range images {
		j := helperJobs{run, installed, im, nil}
		for _, other := range images {
			if j.other == nil && other.Helper != im.Helper && hasShell(other) {
				j.other = &other
			}
		}
		if err := errors.Join(j.run(ctx), context.Cause(ctx)); err != nil {
			return fmt.Errorf("%s: %s: %w", run.Kind, im.Helper, err)
		}
		run.say(im)
	}
	return nil
}

// skip records why no job of im runs.
func (run engineRun) skip(im expected, why string) {
	run.result.Results = append(run.result.Results, Result{Subject: im.Helper, Check: jobCheck, Status: Skipped, Says: why})
}

// helperJobs are the jobs of one image in one engine.
type helperJobs struct {
	engineRun
	installed job.Runner
	im        expected
	other     *expected // another image that a script can run in, or nil
}

// jobRepository is the name for the job's image if it is the checked image itself,
// which must not be found as a helper image. No runner asks for this name.
const jobRepository = "registry.invalid/pretag/job"

// run runs the jobs. An error is fatal.
func (j helperJobs) run(ctx context.Context) error {
	if err := j.fill(ctx, j.im); err != nil {
		j.skip(j.im, lines(err)[0])
		return nil
	}
	if _, err := j.Run(ctx, j.im.RepoTag, "git", "--version"); err != nil {
		j.skip(j.im, "a job needs git, and the image does not run it: "+lines(err)[0])
		return nil
	}
	image := j.im.RepoTag // that the script runs in
	if !hasShell(j.im) {
		if j.other == nil {
			j.skip(j.im, "a job needs an image with a shell to run its script in, and no other image has one")
			return nil
		}
		image = j.other.RepoTag
		if err := j.load(ctx, byPipe, *j.other); err != nil {
			j.skip(j.im, lines(err)[0])
			return nil
		}
	}
	if err := j.job(ctx, jobCheck, image); err != nil {
		return err
	}
	image, err := j.withdraw(ctx)
	if err != nil {
		return err
	}
	if err := j.job(ctx, jobControl, image); err != nil {
		return err
	}
	control := j.result.Results[len(j.result.Results)-1]
	if control.Status == Failed || j.runner.version.Before(fileSince) {
		return nil // after a failed control the job would prove nothing
	}
	if err := j.installed.Offer(j.im.Path, j.im.Name); err != nil {
		return err
	}
	return errors.Join(j.job(ctx, jobFileCheck, image), j.installed.Withdraw())
}

// fill loads the images into the empty store.
func (run engineRun) fill(ctx context.Context, images ...expected) error {
	if err := run.Clear(ctx); err != nil {
		return err
	}
	for _, im := range images {
		if err := run.load(ctx, byPipe, im); err != nil {
			return err
		}
	}
	return nil
}

// withdraw takes the tag of the image out of the store, and returns the name of an image
// that a script can run in. If there is another one, nothing of the image stays.
func (j helperJobs) withdraw(ctx context.Context) (image string, err error) {
	if j.other != nil {
		return j.other.RepoTag, j.fill(ctx, *j.other)
	}
	if err := j.Tag(ctx, j.im.RepoTag, jobRepository, j.im.Helper); err != nil {
		return "", err
	}
	return jobRepository + ":" + j.im.Helper, j.Remove(ctx, j.im.RepoTag)
}

// attempts is how often a job is tried if the engine ends it. On a busy machine podman
// 4.3.1 sometimes refuses to attach to a container that has just ended, or kills one (seen
// with GitLab Runner 17.9.0: "unable to upgrade to tcp, received 500" and "exit code 137").
const attempts = 3

// ended reports whether a job failed because of the engine and not of its script: the
// runner reports a system failure, or a container got SIGKILL, which no script sends.
func ended(o job.Outcome) bool {
	return o.State != "success" && (o.Reason == systemFailure || strings.Contains(o.Trace, "exit code 137"))
}

// job runs one job, its script in image, and judges it.
func (j helperJobs) job(ctx context.Context, check, image string) error {
	h := helperOf(j.im.Archive)
	settings := job.Settings{Image: image, Shell: h.Shell, Concrete: !hasShell(j.im), NoNetwork: j.Kind == engine.PodmanRootless}
	if h.Flavor != j.runner.version.DefaultFlavor(h.Arch) {
		settings.Flavor = h.Flavor
	}
	return timed(&j.result.Results, Result{Subject: j.im.Helper, Check: check}, func(r *Result) error {
		tried := ""
		for n := 1; ; n++ {
			outcome, said, err := j.installed.Run(ctx, settings)
			r.log += fmt.Sprintf("%s\n--- the coordinator and gitlab-runner ---\n%s\n--- the engine ---\n%s\n", outcome.Trace, outcome.Log, j.LastWords())
			if cause := context.Cause(ctx); cause != nil {
				return cause
			}
			if err := j.ClearContainers(ctx); err != nil {
				return err
			}
			if ended(outcome) && !strings.Contains(outcome.Trace, missing(j.im)) && n < attempts {
				tried = fmt.Sprintf(" at attempt %d; before: %s", n+1, strings.Join(complaints(outcome.Trace), "; "))
				continue
			}
			j.judge(ctx, r, outcome, said, err)
			if r.Status == Passed {
				r.Says += tried
			}
			return nil
		}
	})
}

// systemFailure is the runner's reason for a failure that is not the script's
// (GitLab Runner v17.9.0, common/network.go).
const systemFailure = "runner_system_failure"

// missing is what the runner reports if it does not find the helper image (GitLab Runner
// v15.8.0 to v19.3.0, executors/docker/internal/pull/manager.go).
func missing(im expected) string { return fmt.Sprintf("failed to pull image %q", im.RepoTag) }

// judge sets what a job's outcome means for its check.
func (j helperJobs) judge(ctx context.Context, r *Result, outcome job.Outcome, said bool, err error) {
	why := refuses(j.Engine, j.im.Archive)
	switch {
	case err != nil:
		r.judge(append(lines(err), complaints(outcome.Log)...))
	case r.Check == jobControl:
		j.judgeControl(r, outcome)
	case r.Check == jobFileCheck && why != "" && outcome.State != "success":
		r.Status, r.Says = Refused, why
	default:
		judgeJob(r, outcome, said)
		if r.Status == Passed && r.Check == jobFileCheck {
			// The runner has loaded the image, so the engine must have the right one.
			r.judge(j.differences(ctx, j.im))
		}
	}
}

// judgeJob wants the runner's success and the word that only the repository has.
func judgeJob(r *Result, outcome job.Outcome, said bool) {
	var problems []string
	if outcome.State != "success" {
		problems = append(problems, fmt.Sprintf("the runner reports %s %s, want success", outcome.State, outcome.Reason))
		problems = append(problems, complaints(outcome.Trace)...)
	}
	if !said {
		problems = append(problems, "the trace lacks the word that the script prints from the cloned repository")
	}
	r.Says = "the job succeeded"
	r.judge(problems)
}

// judgeControl wants a job that fails because the image is missing. If it succeeds, the
// helper's other job proves nothing.
func (j helperJobs) judgeControl(r *Result, outcome job.Outcome) {
	switch {
	case outcome.State == "failed" && strings.Contains(outcome.Trace, missing(j.im)):
		r.judge(nil)
		r.Says = strings.Join(append([]string{"without the image the job fails, as it must"}, complaints(outcome.Trace)...), "; ")
	case outcome.State == "failed":
		problem := "without the image the job fails, but for another reason: the trace lacks " + missing(j.im)
		r.judge(append([]string{problem}, complaints(outcome.Trace)...))
	default:
		r.judge([]string{fmt.Sprintf("without the image the runner reports %q, want failed: the jobs of this helper prove nothing", outcome.State)})
		for n := range j.result.Results {
			if other := &j.result.Results[n]; other.Subject == j.im.Helper && other.Check == jobCheck {
				other.Status, other.Says, other.Problems = Void, "the same job succeeds without the image, so it proves nothing", nil
			}
		}
	}
}

// complaints lists the last lines of a log that report errors.
func complaints(text string) []string {
	var found []string
	for line := range strings.Lines(text) {
		if _, after, ok := strings.Cut(line, "ERROR: "); ok {
			found = append(found, strings.TrimSpace(strings.ReplaceAll(after, "\x1b[0;m", "")))
		}
	}
	return found[max(0, len(found)-3):]
}
