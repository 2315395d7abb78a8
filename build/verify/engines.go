package verify

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"pretag/build/engine"
	"pretag/build/release"
)

// A Progress is called with a line for a person when a step ends. Calls do not overlap.
type Progress func(line string)

// checkEngines loads every image into every engine on this machine, each engine with
// a store of its own, all engines at once. The words of wanted name the engines
// that must be there (see [engine.Find]). Without them, engines that are missing
// are in the result with the reason. With a runner it also runs jobs. An error
// says that the checks could not be made; what they found is in the result. When
// checkEngines returns, also because ctx was canceled, nothing of the engines is left.
func checkEngines(ctx context.Context, wanted []string, images []expected, decoder *decoder, runner *Runner, progress Progress) ([]EngineResult, error) {
	found, absent, err := engine.Find(ctx, wanted)
	if err != nil {
		return nil, err
	}
	var mutex sync.Mutex
	say := func(format string, args ...any) {
		mutex.Lock()
		defer mutex.Unlock()
		if progress != nil {
			progress(fmt.Sprintf(format, args...))
		}
	}
	results := make([]EngineResult, len(found))
	errs := make([]error, len(found))
	var all sync.WaitGroup
	for n, e := range found {
		all.Go(func() {
			results[n], errs[n] = inEngine(ctx, e, images, decoder, runner, runtime.NumCPU()/len(found), say)
		})
	}
	all.Wait()
	var ran []engine.Engine
	for n, e := range found {
		if why := results[n].NotChecked; why != "" {
			absent = append(absent, engine.Absent{Kind: e.Kind, Why: why})
		} else {
			ran = append(ran, e)
		}
	}
	for _, a := range absent {
		if !slices.ContainsFunc(results, func(r EngineResult) bool { return r.Kind == a.Kind }) {
			results = append(results, EngineResult{Kind: a.Kind, NotChecked: a.Why})
		}
	}
	slices.SortStableFunc(results, func(a, b EngineResult) int {
		return slices.Index(engine.Kinds(), a.Kind) - slices.Index(engine.Kinds(), b.Kind)
	})
	return results, errors.Join(append(errs, engine.Missing(wanted, ran, absent))...)
}

// An expected is an archive and the image that an engine should make of it.
type expected struct {
	release.Archive
	Config v1.ConfigFile
	open   func() (io.ReadCloser, error)
}

// runsHere reports whether the image is for this machine.
func (im expected) runsHere() bool {
	return im.Config.OS == runtime.GOOS && im.Config.Architecture == runtime.GOARCH
}

// expect returns what the config in an archive says.
func expect(f release.Archive, config v1.ConfigFile) expected {
	return expected{f, config, func() (io.ReadCloser, error) { return os.Open(f.Path) }}
}

// An engineRun is an engine while it is being checked.
type engineRun struct {
	*engine.Instance
	decoder *decoder
	result  *EngineResult
	jobs    *jobs // nil where no job is run
}

// inEngine checks the images in up to atOnce instances of e side by side, each with
// its share. Jobs need all images in one instance.
func inEngine(ctx context.Context, e engine.Engine, images []expected, decoder *decoder, runner *Runner, atOnce int, say func(string, ...any)) (EngineResult, error) {
	if runner != nil {
		atOnce = 1
	}
	start := time.Now()
	parts := make([]EngineResult, max(1, min(atOnce, len(images))))
	errs := make([]error, len(parts))
	var all sync.WaitGroup
	for k := range parts {
		share := func(n int) bool { return n%len(parts) == k }
		all.Go(func() { parts[k], errs[k] = inInstance(ctx, e, images, share, decoder, runner, say) })
	}
	all.Wait()
	result := parts[0]
	for _, part := range parts[1:] {
		result.Results = append(result.Results, part.Results...)
		if result.NotChecked == "" {
			result.NotChecked = part.NotChecked
		}
	}
	result.sort(images)
	result.Seconds = time.Since(start).Seconds()
	return result, errors.Join(errs...)
}

// inInstance checks its share of the images in a new instance of e.
func inInstance(ctx context.Context, e engine.Engine, images []expected, share func(n int) bool, decoder *decoder, runner *Runner, say func(string, ...any)) (result EngineResult, err error) {
	result = EngineResult{Kind: e.Kind, Version: e.Version}
	instance, err := e.Start(ctx)
	if instance != nil {
		defer func() { err = errors.Join(err, instance.Close()) }()
	}
	if cause := context.Cause(ctx); cause != nil {
		result.NotChecked = cause.Error()
		return result, cause
	}
	if err != nil {
		result.NotChecked = err.Error()
		say("%s: not checked: %v", e, err)
		return result, nil
	}
	result.Driver = instance.Driver
	run := engineRun{Instance: instance, decoder: decoder, result: &result}
	if runner != nil {
		if run.jobs, err = runner.install(instance); err != nil {
			return result, fmt.Errorf("%s: %w", e.Kind, err)
		}
	}
	plan, provedBy := run.plan(images)
	result.ProvedBy = provedBy
	for n, im := range images {
		if !share(n) {
			continue
		}
		from := len(result.Results)
		err := run.helper(ctx, im, plan[n])
		if err == nil && run.jobs != nil {
			err = run.jobsOf(ctx, im)
		}
		if err != nil {
			return result, fmt.Errorf("%s: %s: %w", e.Kind, im.Helper, err)
		}
		say("%s: %s: %s", e.Kind, im.Helper, summarize(result.Results[from:]))
	}
	if run.jobs != nil {
		if err := run.jobsLeft(ctx); err != nil {
			return result, fmt.Errorf("%s: %w", e.Kind, err)
		}
	}
	return result, nil
}

// sort brings the results of each helper together, in the order of images. Jobs may
// have run later.
func (e *EngineResult) sort(images []expected) {
	place := map[string]int{}
	for n, im := range images {
		place[im.Helper] = n
	}
	slices.SortStableFunc(e.Results, func(a, b Result) int { return place[a.Subject] - place[b.Subject] })
}

// plan chooses the ways in which each image is loaded. Ways to load differ by
// engine and by form of archive, not by image. So each way is proved once for each
// form, and every image is loaded once: if a form has fewer images than there are
// ways, its smallest archive is loaded in several. The last way of an image leaves
// it in the store.
func (run engineRun) plan(images []expected) (ways [][]way, provedBy map[string]map[string]string) {
	ways, provedBy = make([][]way, len(images)), map[string]map[string]string{}
	order := make([]int, len(images))
	for n := range order {
		order[n] = n
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(images[a].Size, images[b].Size) })
	byForm := map[string][]int{}
	for _, n := range order {
		form := method(images[n].Archive)
		byForm[form] = append(byForm[form], n)
	}
	for form, of := range byForm {
		prove := run.ways()
		shared := max(0, len(prove)-len(of)) // so many more ways than images
		if run.refuses(images[of[0]].Archive) != "" {
			// Only the pipe works. It comes last, to leave the image in the store.
			prove = []way{run.load(), run.runner(), run.pipe()}
			shared = len(prove) - 1
		}
		provedBy[form] = map[string]string{}
		for w, way := range prove {
			n := of[max(0, w-shared)]
			ways[n] = append(ways[n], way)
			provedBy[form][way.name] = images[n].Helper
		}
		for _, n := range of {
			if len(ways[n]) == 0 {
				ways[n] = []way{prove[len(prove)-1]}
			}
		}
	}
	return ways, provedBy
}

// worst returns the status that represents all.
func worst(results []Result) Status {
	for _, s := range []Status{Failed, Void, Refused, Passed} {
		if slices.ContainsFunc(results, func(r Result) bool { return r.Status == s }) {
			return s
		}
	}
	return Skipped
}

// A way is how an archive reaches a store on a host.
type way struct {
	name string
	load func(context.Context, io.Reader, expected) error
	// repeat is the shell command that does it by hand.
	repeat func(expected) string
}

func (run engineRun) ways() []way { return []way{run.runner(), run.pipe(), run.load()} }

// command is what a person types for the engine.
func (run engineRun) command() string {
	if run.Kind == engine.Docker {
		return "docker"
	}
	return "podman"
}

// runner is how GitLab Runner 17.9 and later load an archive.
func (run engineRun) runner() way {
	return way{
		"runner",
		func(ctx context.Context, archive io.Reader, im expected) error {
			repository, tag := splitTag(im.RepoTag)
			return run.RunnerLoad(ctx, archive, repository, tag)
		},
		func(im expected) string {
			service, socket := "podman system service --time=0 unix:///tmp/podman.sock & ", "/tmp/podman.sock"
			if run.Kind == engine.Docker {
				service, socket = "", "/var/run/docker.sock"
			}
			return fmt.Sprintf("%scurl --unix-socket %s -H 'Content-Type: application/x-tar' -X POST -T %s 'http://engine/images/load?quiet=1'", service, socket, im.Path)
		},
	}
}

// pipe is how the loader loads an archive. It works for every form in every engine.
func (run engineRun) pipe() way {
	return way{
		"pipe",
		func(ctx context.Context, archive io.Reader, _ expected) error {
			run.decoder.Lock()
			defer run.decoder.Unlock()
			plain, err := run.decoder.NewReader(archive)
			if err != nil {
				return err
			}
			defer plain.Close()
			_, err = run.Load(ctx, plain)
			return err
		},
		func(im expected) string {
			if method(im.Archive) == "zstd" {
				return "zstd -dc --long=27 " + im.Path + " | " + run.command() + " load"
			}
			return run.command() + " load < " + im.Path
		},
	}
}

// load is how a person loads an archive.
func (run engineRun) load() way {
	return way{
		"load",
		func(ctx context.Context, archive io.Reader, _ expected) error {
			_, err := run.Load(ctx, archive)
			return err
		},
		func(im expected) string { return run.command() + " load < " + im.Path },
	}
}

func splitTag(repoTag string) (repository, tag string) {
	colon := strings.LastIndexByte(repoTag, ':')
	return repoTag[:colon], repoTag[colon+1:]
}

// method is an archive's form: zstd, gzip or none.
func method(f release.Archive) string {
	m, _, _ := strings.Cut(f.Compression, ":")
	return m
}

// refuses returns why the engine is known to refuse the archive as it is.
func (run engineRun) refuses(f release.Archive) string {
	if run.Kind == engine.Docker && run.Before("23.0") && method(f) == "zstd" {
		// moby/moby v23.0.0, pkg/archive/archive.go, is the first with zstd.
		return "Docker below 23.0 does not know zstd"
	}
	return ""
}

// helper checks one archive, which it loads in those ways. An error is fatal; what
// is wrong with the image is in the results. The image is then alone in the store,
// if it could be loaded.
func (run engineRun) helper(ctx context.Context, im expected, ways []way) error {
	var loaded bool // by the last way: each clears the store first
	for _, w := range ways {
		r := Result{Subject: im.Helper, Check: w.name, Repeat: w.repeat(im)}
		err := timed(&run.result.Results, r, func(r *Result) error {
			loadErr, problems, err := run.loadAlone(ctx, w, im)
			loaded = loadErr == nil
			why := run.refuses(im.Archive)
			switch {
			case err != nil:
				return err
			case loadErr != nil && why != "" && w.name != "pipe":
				r.judge(run.empty(ctx))
				if r.Status == Passed {
					r.Status, r.Says = Refused, fmt.Sprintf("%s: %v", why, loadErr)
				}
			case loadErr != nil:
				r.judge(lines(loadErr))
			default:
				r.judge(problems)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	for _, check := range []struct {
		name   string
		repeat string
		do     func(context.Context, expected, *Result)
	}{
		{"lookup", "image inspect " + im.RepoTag, run.lookup},
		{"stored", "save " + im.RepoTag + " | tar -x -O | sha256sum", run.stored},
		{"run", "run --rm --network none " + im.RepoTag + " " + shellWords(probe(im)), run.container},
	} {
		r := Result{Subject: im.Helper, Check: check.name, Repeat: run.command() + " " + check.repeat}
		err := timed(&run.result.Results, r, func(r *Result) error {
			if loaded {
				check.do(ctx, im, r)
			} else {
				r.Status, r.Says = Skipped, "the image could not be loaded"
			}
			return context.Cause(ctx)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// timed calls do to fill in r, and keeps r. A check that could not be made has failed.
func timed(results *[]Result, r Result, do func(*Result) error) error {
	start := time.Now()
	err := do(&r)
	if err != nil {
		r.judge(lines(err))
	}
	r.Seconds = time.Since(start).Seconds()
	*results = append(*results, r)
	return err
}

// loadAlone loads the image into the empty store and compares what is there then.
// loadErr is the engine's refusal; err is fatal.
func (run engineRun) loadAlone(ctx context.Context, w way, im expected) (loadErr error, problems []string, err error) {
	if err := run.Clear(ctx); err != nil {
		return nil, nil, err
	}
	file, err := im.open()
	if err != nil {
		return nil, nil, err
	}
	defer file.Close()
	loadErr = w.load(ctx, file, im)
	if err := context.Cause(ctx); err != nil || loadErr != nil {
		return loadErr, nil, err
	}
	return nil, run.compare(ctx, im), nil
}
