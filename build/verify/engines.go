package verify

import (
	"cmp"
	"context"
	"errors"
	"fmt"
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

// A session is what is checked in every engine.
type session struct {
	images   []expected
	decoder  *decoder
	runner   *gitlabRunner // nil: no jobs are run
	progress func(line string)
}

// An expected is an archive and the config of the image that an engine should make of it.
type expected struct {
	release.Archive
	Config v1.ConfigFile
}

// runsHere reports whether the image is for this machine.
func (im expected) runsHere() bool {
	return im.Config.OS == runtime.GOOS && im.Config.Architecture == runtime.GOARCH
}

// run loads every image into every engine on this machine. Each engine has its own
// store, and all run at the same time. The words of wanted name the engines that must be
// there (see [engine.Find]). Without them, engines that are missing are in the result
// with the reason. With a runner it also runs jobs. An error says that the checks could
// not be made; what they found is in the result. When run returns, also because ctx was
// canceled, nothing of the engines is left.
func (s session) run(ctx context.Context, wanted []string) ([]EngineResult, error) {
	found, absent, err := engine.Find(ctx, wanted)
	if err != nil {
		return nil, err
	}
	progress := s.progress
	var mutex sync.Mutex
	s.progress = func(line string) {
		mutex.Lock()
		defer mutex.Unlock()
		if progress != nil {
			progress(line)
		}
	}
	results := make([]EngineResult, len(found))
	errs := make([]error, len(found))
	var all sync.WaitGroup
	for n, e := range found {
		all.Go(func() { results[n], errs[n] = s.inEngine(ctx, e, runtime.NumCPU()/len(found)) })
	}
	all.Wait()
	for _, a := range absent {
		results = append(results, EngineResult{Kind: a.Kind, NotChecked: a.Why})
	}
	var ran []engine.Engine
	for n, e := range found {
		if why := results[n].NotChecked; why != "" {
			absent = append(absent, engine.Absent{Kind: e.Kind, Why: why})
		} else {
			ran = append(ran, e)
		}
	}
	slices.SortFunc(results, func(a, b EngineResult) int {
		return slices.Index(engine.Kinds(), a.Kind) - slices.Index(engine.Kinds(), b.Kind)
	})
	return results, errors.Join(append(errs, engine.Missing(wanted, ran, absent))...)
}

// inEngine checks the images in up to atOnce instances of e at the same time, each with
// its share. Jobs need all images in one instance.
func (s session) inEngine(ctx context.Context, e engine.Engine, atOnce int) (EngineResult, error) {
	if s.runner != nil {
		atOnce = 1
	}
	start := time.Now()
	parts := make([]EngineResult, max(1, min(atOnce, len(s.images))))
	errs := make([]error, len(parts))
	var all sync.WaitGroup
	for k := range parts {
		share := func(n int) bool { return n%len(parts) == k }
		all.Go(func() { parts[k], errs[k] = s.inInstance(ctx, e, share) })
	}
	all.Wait()
	result := parts[0]
	for _, part := range parts[1:] {
		result.Results = append(result.Results, part.Results...)
		result.NotChecked = cmp.Or(result.NotChecked, part.NotChecked)
	}
	result.sort(s.images)
	result.Seconds = time.Since(start).Seconds()
	return result, errors.Join(errs...)
}

// An engineRun is an instance of an engine while it is being checked.
type engineRun struct {
	session
	*engine.Instance
	result *EngineResult
}

// inInstance checks its share of the images in a new instance of e.
func (s session) inInstance(ctx context.Context, e engine.Engine, share func(n int) bool) (result EngineResult, err error) {
	result = EngineResult{Kind: e.Kind, Version: e.Version}
	instance, err := e.Start(ctx)
	if cause := context.Cause(ctx); err != nil {
		result.NotChecked = cmp.Or(cause, err).Error()
		s.progress(fmt.Sprintf("%s: not checked: %s", e, result.NotChecked))
		return result, cause
	}
	defer func() { err = errors.Join(err, instance.Close()) }()
	result.Driver = instance.Driver
	run := engineRun{s, instance, &result}
	plan, provedBy := plan(e, s.images)
	result.ProvedBy = provedBy
	for n, im := range s.images {
		if !share(n) {
			continue
		}
		if err := run.helper(ctx, im, plan[n]); err != nil {
			return result, fmt.Errorf("%s: %s: %w", e.Kind, im.Helper, err)
		}
		run.say(im)
	}
	if s.runner != nil {
		err = run.jobs(ctx)
	}
	return result, err
}

// say reports what was found about an image.
func (run engineRun) say(im expected) {
	run.progress(fmt.Sprintf("%s: %s: %s", run.Engine, im.Helper, summarize(run.result.Of(im.Helper))))
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
func plan(e engine.Engine, images []expected) (ways [][]way, provedBy map[string]map[string]string) {
	ways, provedBy = make([][]way, len(images)), map[string]map[string]string{}
	byForm := map[string][]int{}
	for n, im := range images {
		form := method(im.Archive)
		byForm[form] = append(byForm[form], n)
	}
	for form, of := range byForm {
		slices.SortStableFunc(of, func(a, b int) int { return cmp.Compare(images[a].Size, images[b].Size) })
		prove := []way{byRunner, byPipe, byLoad}
		shared := max(0, len(prove)-len(of)) // so many more ways than images
		if refuses(e, images[of[0]].Archive) != "" {
			// Only the pipe works. It comes last, to leave the image in the store.
			prove = []way{byLoad, byRunner, byPipe}
			shared = len(prove) - 1
		}
		provedBy[form] = map[string]string{}
		for w, way := range prove {
			n := of[max(0, w-shared)]
			ways[n] = append(ways[n], way)
			provedBy[form][string(way)] = images[n].Helper
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
type way string

const (
	byRunner way = "runner" // as GitLab Runner 17.9 and later load it
	byPipe   way = "pipe"   // as the loader does, decompressed: every engine takes every form
	byLoad   way = "load"   // as a person does
)

// load loads one more archive.
func (run engineRun) load(ctx context.Context, w way, im expected) error {
	file, err := os.Open(im.Path)
	if err != nil {
		return err
	}
	defer file.Close()
	switch w {
	case byRunner:
		repository, tag := splitTag(im.RepoTag)
		return run.RunnerLoad(ctx, file, repository, tag)
	case byPipe:
		run.decoder.Lock()
		defer run.decoder.Unlock()
		plain, err := run.decoder.NewReader(file)
		if err != nil {
			return err
		}
		defer plain.Close()
		return run.Load(ctx, plain)
	default:
		return run.Load(ctx, file)
	}
}

// repeat returns the shell command that loads an archive by hand.
func (run engineRun) repeat(w way, im expected) string {
	switch {
	case w == byRunner && run.Kind == engine.Docker:
		return curl("/var/run/docker.sock", im)
	case w == byRunner:
		return "podman system service --time=0 unix:///tmp/podman.sock & " + curl("/tmp/podman.sock", im)
	case w == byPipe && method(im.Archive) == "zstd":
		return "zstd -dc --long=27 " + im.Path + " | " + run.command() + " load"
	default:
		return run.command() + " load < " + im.Path
	}
}

func curl(socket string, im expected) string {
	return fmt.Sprintf("curl --unix-socket %s -H 'Content-Type: application/x-tar' -X POST -T %s 'http://engine/images/load?quiet=1'", socket, im.Path)
}

// command is what a person types for the engine.
func (run engineRun) command() string {
	if run.Kind == engine.Docker {
		return "docker"
	}
	return "podman"
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
func refuses(e engine.Engine, f release.Archive) string {
	if e.Kind == engine.Docker && e.Before("23.0") && method(f) == "zstd" {
		// moby/moby v23.0.0, pkg/archive/archive.go, is the first with zstd.
		return "Docker below 23.0 does not know zstd"
	}
	return ""
}

// helper loads one archive in those ways and checks its image. An error is fatal; what
// is wrong with the image is in the results.
func (run engineRun) helper(ctx context.Context, im expected, ways []way) error {
	var loaded bool // by the last way: each clears the store first
	for _, w := range ways {
		r := Result{Subject: im.Helper, Check: string(w), Repeat: run.repeat(w, im)}
		err := timed(&run.result.Results, r, func(r *Result) (err error) {
			loaded, err = run.loadAlone(ctx, w, im, r)
			return err
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
		{"run", "run --rm --network none " + im.RepoTag + " '" + strings.Join(probe(im), "' '") + "'", run.container},
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

// loadAlone loads the image into the empty store and compares what is there then. It
// reports whether the engine took the archive. An error is fatal.
func (run engineRun) loadAlone(ctx context.Context, w way, im expected, r *Result) (loaded bool, err error) {
	if err := run.Clear(ctx); err != nil {
		return false, err
	}
	err = run.load(ctx, w, im)
	why := refuses(run.Engine, im.Archive)
	switch {
	case context.Cause(ctx) != nil:
		return false, context.Cause(ctx)
	case err == nil:
		r.judge(run.compare(ctx, im))
		return true, nil
	case why != "" && w != byPipe:
		r.judge(run.empty(ctx))
		if r.Status == Passed {
			r.Status, r.Says = Refused, fmt.Sprintf("%s: %v", why, err)
		}
	default:
		r.judge(lines(err))
	}
	return false, nil
}
