package verify

import (
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

// A Runner is a GitLab Runner that asks for the tags of the archives.
type Runner struct {
	program job.Program
	version catalogue.Version
}

// FindRunner returns the runner for the jobs: the program called name or, if name is
// empty, the gitlab-runner in PATH. If the one in PATH is missing or asks for other
// images, there is no runner, and why has the reason. For a named one that is an error.
func FindRunner(ctx context.Context, name string, archives []release.Archive) (runner *Runner, why string, err error) {
	program := name
	if name == "" {
		program = "gitlab-runner"
	}
	path, err := exec.LookPath(program)
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
func lookAt(ctx context.Context, path string, archives []release.Archive) (*Runner, error) {
	p, err := job.Look(ctx, path)
	if err != nil {
		return nil, err
	}
	r := Runner{program: p}
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

// jobs is a runner next to an engine, and the state of its jobs.
type jobs struct {
	*Runner
	installed job.Runner

	// A job that must not find its helper image needs another one to run its
	// script in. Such jobs wait until another image is in the store.
	shells  []expected // images that a script can run in
	alone   *expected  // the only image in the store
	waiting *expected  // whose jobs without the image have not run yet
}

// install puts the runner next to the engine.
func (r *Runner) install(instance *engine.Instance) (*jobs, error) {
	dir, err := instance.MkdirTemp()
	if err != nil {
		return nil, err
	}
	installed, err := job.Install(r.program, instance, dir)
	return &jobs{Runner: r, installed: installed}, err
}

// jobsOf runs the jobs that are possible now that im is alone in the store.
func (run engineRun) jobsOf(ctx context.Context, im expected) error {
	run.jobs.alone = &im
	if !im.runsHere() {
		return nil // the check run says so
	}
	if worst(about(run.result.Results, im.Helper)) == Failed {
		return run.skip(ctx, im, "another check of the image failed")
	}
	if _, err := run.Run(ctx, im.RepoTag, "git", "--version"); err != nil {
		return run.skip(ctx, im, "a job needs git, and the image does not run it: "+lines(err)[0])
	}
	if hasShell(im) {
		run.jobs.shells = append(run.jobs.shells, im)
		if err := run.job(ctx, im, jobCheck, im.RepoTag); err != nil {
			return err
		}
	}
	if run.jobs.waiting != nil {
		if err := run.jobsWithout(ctx, *run.jobs.waiting); err != nil {
			return err
		}
	}
	run.jobs.waiting = &im
	return nil
}

// jobsLeft runs the jobs that have not run yet.
func (run engineRun) jobsLeft(ctx context.Context) error {
	if run.jobs.waiting == nil {
		return nil
	}
	return run.jobsWithout(ctx, *run.jobs.waiting)
}

// jobsWithout runs the jobs that begin without im in the store.
func (run engineRun) jobsWithout(ctx context.Context, im expected) error {
	image, err := run.jobImage(ctx, im)
	run.jobs.alone = nil
	if err != nil {
		return run.skip(ctx, im, lines(err)[0])
	}
	if err := run.job(ctx, im, jobControl, image); err != nil {
		return err
	}
	if control := run.result.Results[len(run.result.Results)-1]; control.Status == Failed {
		return nil // what the other jobs would show is void
	}
	if !run.jobs.version.Before(fileSince) {
		if err := run.jobs.installed.Offer(im.Path, im.Name); err != nil {
			return err
		}
		err := run.job(ctx, im, jobFileCheck, image)
		if err := errors.Join(err, run.jobs.installed.Withdraw()); err != nil {
			return err
		}
	}
	if hasShell(im) {
		return nil
	}
	// Its job with the image in the store needs the other image, too.
	if _, err := run.Inspect(ctx, im.RepoTag); err == nil {
		if err := run.Remove(ctx, im.RepoTag); err != nil {
			return err
		}
	}
	if err := run.add(ctx, im); err != nil {
		return run.skip(ctx, im, lines(err)[0])
	}
	return run.job(ctx, im, jobCheck, image)
}

// skip records why no job of im runs.
func (run engineRun) skip(ctx context.Context, im expected, why string) error {
	run.result.Results = append(run.result.Results, Result{Subject: im.Helper, Check: jobCheck, Status: Skipped, Says: why})
	return context.Cause(ctx)
}

// jobRepository is the name for the job's image if it is the checked image itself,
// which must not be found as a helper image. No runner asks for this name.
const jobRepository = "registry.invalid/pretag/job"

// jobImage returns the name of an image in the store that a script can run in. Nothing
// in the store then has the tag of im. If there is another helper image, it takes
// that, so that nothing of im is in the store.
func (run engineRun) jobImage(ctx context.Context, im expected) (string, error) {
	others := run.jobs.shells
	if run.jobs.alone != nil && hasShell(*run.jobs.alone) {
		others = append([]expected{*run.jobs.alone}, others...)
	}
	for n, other := range others {
		if other.Helper == im.Helper {
			continue
		}
		if n == 0 && run.jobs.alone != nil && run.jobs.alone.Helper == other.Helper {
			return other.RepoTag, nil
		}
		if err := run.Clear(ctx); err != nil {
			return "", err
		}
		return other.RepoTag, run.add(ctx, other)
	}
	if !hasShell(im) {
		return "", errors.New("a job needs an image with a shell to run its script in, and no other image has one")
	}
	if run.jobs.alone == nil || run.jobs.alone.Helper != im.Helper {
		if err := run.Clear(ctx); err != nil {
			return "", err
		}
		if err := run.add(ctx, im); err != nil {
			return "", err
		}
	}
	if err := run.Tag(ctx, im.RepoTag, jobRepository, im.Helper); err != nil {
		return "", err
	}
	return jobRepository + ":" + im.Helper, run.Remove(ctx, im.RepoTag)
}

// add loads one more image.
func (run engineRun) add(ctx context.Context, im expected) error {
	file, err := im.open()
	if err != nil {
		return err
	}
	defer file.Close()
	return run.pipe().load(ctx, file, im)
}

// attempts is how often a job is tried that the engine has ended. On a busy machine
// podman 4.3.1 sometimes refuses to attach to a container that has just ended, or kills
// one (seen with GitLab Runner 17.9.0: "unable to upgrade to tcp, received 500" and
// "exit code 137").
const attempts = 3

// ended reports whether a job failed because of the engine and not of its script: the
// runner reports a system failure, or a container got SIGKILL, which no script sends.
func ended(o job.Outcome) bool {
	return o.State != "success" && (o.Reason == systemFailure || strings.Contains(o.Trace, "exit code 137"))
}

// job runs one job of the helper im, its script in image, and judges it.
func (run engineRun) job(ctx context.Context, im expected, check, image string) error {
	h := helperOf(im.Archive)
	settings := job.Settings{Image: image, Shell: h.Shell, Concrete: !hasShell(im), NoNetwork: run.Kind == engine.PodmanRootless}
	if h.Flavor != run.jobs.version.DefaultFlavor(h.Arch) {
		settings.Flavor = h.Flavor
	}
	r := Result{Subject: im.Helper, Check: check}
	return timed(&run.result.Results, r, func(r *Result) error {
		tried := ""
		for n := 1; ; n++ {
			outcome, said, err := run.jobs.installed.Run(ctx, settings)
			r.log += fmt.Sprintf("%s\n--- the coordinator and gitlab-runner ---\n%s\n--- the engine ---\n%s\n", outcome.Trace, outcome.Log, run.LastWords())
			if cause := context.Cause(ctx); cause != nil {
				return cause
			}
			if err := run.ClearContainers(ctx); err != nil {
				return err
			}
			if check != jobControl && ended(outcome) && run.refuses(im.Archive) == "" && n < attempts {
				tried = fmt.Sprintf(" at attempt %d; before: %s", n+1, strings.Join(complaints(outcome.Trace), "; "))
				continue
			}
			run.judge(ctx, im, r, outcome, said, err)
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

// judge sets what a job's outcome means for its check.
func (run engineRun) judge(ctx context.Context, im expected, r *Result, outcome job.Outcome, said bool, err error) {
	switch {
	case err != nil:
		r.judge(append(lines(err), complaints(outcome.Log)...))
	case r.Check == jobControl:
		run.judgeControl(im, r, outcome)
	case r.Check == jobFileCheck && run.refuses(im.Archive) != "" && outcome.State != "success":
		r.Status, r.Says = Refused, run.refuses(im.Archive)
	default:
		judgeJob(r, outcome, said)
		if r.Status == Passed && r.Check == jobFileCheck {
			// The runner has loaded the image, so the engine must have the right one.
			got, err := run.Inspect(ctx, im.RepoTag)
			if err != nil {
				r.judge(lines(err))
				return
			}
			r.judge(run.differences(got, im))
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

// judgeControl wants a failed job. If it succeeds, the helper's other jobs prove nothing.
func (run engineRun) judgeControl(im expected, r *Result, outcome job.Outcome) {
	if outcome.State == "failed" {
		r.Status = Passed
		r.Says = strings.Join(append([]string{"without the image the job fails, as it must"}, complaints(outcome.Trace)...), "; ")
		return
	}
	r.judge([]string{fmt.Sprintf("the runner reports %s without the image, want failed: the jobs of this helper prove nothing", outcome.State)})
	for n := range run.result.Results {
		if other := &run.result.Results[n]; other.Subject == im.Helper && other.Check == jobCheck {
			other.Status, other.Says, other.Problems = Void, "the same job succeeds without the image, so it proves nothing", nil
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
