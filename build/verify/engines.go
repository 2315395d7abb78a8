package verify

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"pretag/build/archive"
	"pretag/build/engine"
	"pretag/build/internal/decompress"
	"pretag/build/release"
)

// A Progress is told of each step as it ends, in a line for a person. Calls do not overlap.
type Progress func(line string)

// Engines loads every archive into every engine at hand, each engine with a
// store of its own, all engines at once. The words of wanted name the engines
// that must be there (see [engine.Find]); without them those that are
// missing are in the result with the reason. An error says that the checks
// could not be made; what they found is in the result. When it returns, also
// because ctx was cancelled, nothing of the engines is left.
func Engines(ctx context.Context, wanted []string, archives []release.Archive, progress Progress) ([]EngineResult, error) {
	found, absent, err := engine.Find(ctx, wanted)
	if err != nil {
		return nil, err
	}
	images, err := expect(ctx, archives)
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
		all.Go(func() { results[n], errs[n] = inEngine(ctx, e, images, say) })
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

// expected is an archive and what an engine should make of it.
type expected struct {
	release.Archive
	Config v1.ConfigFile
	open   func() (io.ReadCloser, error)
}

// expect reads what the archives' configs say.
func expect(ctx context.Context, archives []release.Archive) ([]expected, error) {
	images := make([]expected, len(archives))
	for n, f := range archives {
		if err := context.Cause(ctx); err != nil {
			return nil, err
		}
		contents, err := archive.Read(f.Path)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.Helper, err)
		}
		images[n] = expected{f, contents.Config, func() (io.ReadCloser, error) { return os.Open(f.Path) }}
	}
	return images, nil
}

// An engineRun is an engine while it is being asked.
type engineRun struct {
	*engine.Instance
	result *EngineResult
}

func inEngine(ctx context.Context, e engine.Engine, images []expected, say func(string, ...any)) (result EngineResult, err error) {
	start := time.Now()
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
	run := engineRun{instance, &result}
	if err := run.controls(ctx); err != nil {
		return result, fmt.Errorf("%s: %w", e.Kind, err)
	}
	for _, im := range images {
		from := len(result.Results)
		if err := run.helper(ctx, im); err != nil {
			return result, fmt.Errorf("%s: %s: %w", e.Kind, im.Helper, err)
		}
		say("%s: %s: %s", e.Kind, im.Helper, summarize(result.Results[from:]))
	}
	result.Seconds = time.Since(start).Seconds()
	return result, nil
}

// worst is the status that stands for all.
func worst(results []Result) Status {
	for _, s := range []Status{Failed, Refused, Passed} {
		if slices.ContainsFunc(results, func(r Result) bool { return r.Status == s }) {
			return s
		}
	}
	return Skipped
}

// A way is how an archive gets into an engine.
type way struct {
	name string
	load func(context.Context, io.Reader, expected) error
	// repeat is the shell command that does it by hand.
	repeat func(expected) string
}

// ways are all by which an archive reaches a store on a host. The last works
// everywhere; after it come the checks of what is stored.
func (run engineRun) ways() []way {
	load := func(ctx context.Context, archive io.Reader, _ expected) error {
		_, err := run.Load(ctx, archive)
		return err
	}
	command := "podman"
	service := "podman system service --time=0 unix:///tmp/podman.sock & "
	socket := "/tmp/podman.sock"
	if run.Kind == engine.Docker {
		command, service, socket = "docker", "", "/var/run/docker.sock"
	}
	return []way{
		{"load", load, func(im expected) string { return command + " load < " + im.Path }},
		{
			"runner",
			func(ctx context.Context, archive io.Reader, im expected) error {
				repository, tag := splitTag(im.RepoTag)
				return run.RunnerLoad(ctx, archive, repository, tag)
			},
			func(im expected) string {
				return fmt.Sprintf("%scurl --unix-socket %s -H 'Content-Type: application/x-tar' -X POST -T %s 'http://engine/images/load?quiet=1'", service, socket, im.Path)
			},
		},
		{
			"pipe",
			func(ctx context.Context, archive io.Reader, im expected) error {
				plain, err := decompress.NewReader(archive)
				if err != nil {
					return err
				}
				defer plain.Close()
				return load(ctx, plain, im)
			},
			func(im expected) string {
				if method(im.Archive) == "zstd" {
					return "zstd -dc --long=27 " + im.Path + " | " + command + " load"
				}
				return command + " load < " + im.Path
			},
		},
	}
}

func splitTag(repoTag string) (repository, tag string) {
	colon := strings.LastIndexByte(repoTag, ':')
	return repoTag[:colon], repoTag[colon+1:]
}

func method(f release.Archive) string {
	m, _, _ := strings.Cut(f.Compression, ":")
	return m
}

// refuses tells why the engine is known not to take the archive as it is.
func (run engineRun) refuses(f release.Archive) string {
	if run.Kind == engine.Docker && run.Before("23.0") && method(f) == "zstd" {
		// moby/moby v23.0.0, pkg/archive/archive.go, is the first to know zstd.
		return "Docker below 23.0 knows no zstd"
	}
	return ""
}

// helper checks one archive in every way. An error means that there is no
// going on; what is wrong with the image is in the results.
func (run engineRun) helper(ctx context.Context, im expected) error {
	var loaded bool // by the last way: each clears the store first
	for _, w := range run.ways() {
		r := Result{Subject: im.Helper, Check: w.name, Repeat: w.repeat(im)}
		err := timed(&run.result.Results, r, func(r *Result) error {
			loadErr, problems, err := run.load(ctx, w, im)
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
		r := Result{Subject: im.Helper, Check: check.name, Repeat: strings.SplitN(string(run.Kind), "-", 2)[0] + " " + check.repeat}
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

// timed has do fill in r, and keeps r. A check that could not be made has failed.
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

// load brings the image into the empty store and compares what is there then.
// loadErr is the engine's refusal; err means that there is no going on.
func (run engineRun) load(ctx context.Context, w way, im expected) (loadErr error, problems []string, err error) {
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

// empty tells what is left in the store that should be empty.
func (run engineRun) empty(ctx context.Context) []string {
	images, err := run.Images(ctx)
	problems := lines(err)
	for _, got := range images {
		problems = append(problems, fmt.Sprintf("image %s %q is in the store after a refusal", got.ID, got.RepoTags))
	}
	return problems
}

// compare tells what is in the store that is not im, or not as im should be:
// exactly one image with exactly one tag, and its config.
func (run engineRun) compare(ctx context.Context, im expected) []string {
	images, err := run.Images(ctx)
	if err != nil {
		return lines(err)
	}
	var problems []string
	if len(images) != 1 {
		problems = append(problems, fmt.Sprintf("%d images in the store, want 1", len(images)))
	}
	for _, got := range images {
		slices.Sort(got.RepoTags)
		if want := []string{im.RepoTag}; !slices.Equal(got.RepoTags, want) {
			problems = append(problems, fmt.Sprintf("image %s is tagged %q, want %q", got.ID, got.RepoTags, want))
		}
	}
	got, err := run.Inspect(ctx, im.RepoTag)
	if err != nil {
		return append(problems, lines(err)...)
	}
	return append(problems, run.differences(got, im)...)
}

// differences compares what the engine says of the image with the archive's config.
func (run engineRun) differences(got engine.Image, im expected) []string {
	var problems []string
	differs := func(what string, got, want any) {
		problems = append(problems, fmt.Sprintf("%s is %q, want %q", what, got, want))
	}
	if got.ID != im.ImageID && !run.ManifestIDs {
		differs("image ID", got.ID, im.ImageID)
	}
	platform := v1.Platform{OS: got.Os, Architecture: got.Architecture, Variant: got.Variant}
	want := v1.Platform{OS: im.Config.OS, Architecture: im.Config.Architecture, Variant: im.Config.Variant}
	if got.Variant == "" {
		want.Variant = "" // not every engine tells it; the image ID covers it
	}
	if platform.String() != want.String() {
		differs("platform", platform, want)
	}
	diffIDs := make([]string, len(im.Config.RootFS.DiffIDs))
	for n, id := range im.Config.RootFS.DiffIDs {
		diffIDs[n] = id.String()
	}
	for _, list := range []struct {
		what      string
		got, want []string
	}{
		{"entrypoint", got.Config.Entrypoint, im.Config.Config.Entrypoint},
		{"cmd", got.Config.Cmd, im.Config.Config.Cmd},
		{"env", got.Config.Env, im.Config.Config.Env},
		{"diff IDs", got.RootFS.Layers, diffIDs},
	} {
		if !slices.Equal(list.got, list.want) {
			differs(list.what, list.got, list.want)
		}
	}
	return problems
}

// lookup is what GitLab Runner below 17.9, and each later one too, does first:
// it inspects repository:tag and uses what it finds (v15.8.0,
// executors/docker/docker.go). No load comes right before it here.
func (run engineRun) lookup(ctx context.Context, im expected, r *Result) {
	got, err := run.Inspect(ctx, im.RepoTag)
	if err != nil {
		r.judge(lines(err))
		return
	}
	r.Says = "finds " + im.RepoTag
	r.judge(run.differences(got, im))
}

// stored has the engine give the image out again and computes its digests from
// the bytes: what an engine says of an image is what the config said to it.
func (run engineRun) stored(ctx context.Context, im expected, r *Result) {
	r.judge(run.storedProblems(ctx, im))
}

func (run engineRun) storedProblems(ctx context.Context, im expected) []string {
	var got stored
	err := run.Export(ctx, im.RepoTag, func(body io.Reader) (err error) {
		got, err = readExport(body)
		return err
	})
	if err != nil {
		return lines(err)
	}
	var problems []string
	if got.ImageID != im.ImageID {
		problems = append(problems, fmt.Sprintf("the stored config is %s, want %s", got.ImageID, im.ImageID))
	}
	if !slices.Equal(got.DiffIDs, im.DiffIDs) {
		problems = append(problems, fmt.Sprintf("the stored layers are %q, want %q", got.DiffIDs, im.DiffIDs))
	}
	return problems
}

// container runs the image through its own entrypoint, as Runner does, and
// wants to hear a word that stands nowhere else.
func (run engineRun) container(ctx context.Context, im expected, r *Result) {
	if host := runtime.GOOS + "/" + runtime.GOARCH; im.Config.OS+"/"+im.Config.Architecture != host {
		r.Status, r.Says = Skipped, fmt.Sprintf("the image is for %s, this machine is %s", im.Platform, host)
		return
	}
	got, err := run.Run(ctx, im.RepoTag, probe(im)...)
	if err != nil {
		r.judge(lines(err))
		return
	}
	got, _, _ = strings.Cut(strings.TrimSpace(got), "\n")
	r.Says = "prints " + got
	switch {
	case !hasShell(im) && got == "":
		r.judge([]string{"prints nothing, want its version"})
	case hasShell(im) && got != word(im):
		r.judge([]string{fmt.Sprintf("prints %q, want %q", got, word(im))})
	default:
		r.judge(nil)
	}
}

// probe is what the image is asked to do: to echo a word or, where it has no
// shell to go through, to have its helper tell the version.
func probe(im expected) []string {
	if hasShell(im) {
		return []string{"sh", "-c", "echo " + word(im)}
	}
	return []string{im.Config.Config.Cmd[0], "--version"}
}

// hasShell reports whether the image has a shell: all have but the flavor
// concrete, whose command is the helper itself
// (GitLab Runner v19.3.0, dockerfiles/runner-helper).
func hasShell(im expected) bool {
	cmd := im.Config.Config.Cmd
	return len(cmd) == 0 || path.Base(cmd[0]) != "gitlab-runner-helper"
}

// shellWords spells arguments for a shell.
func shellWords(args []string) string {
	words := make([]string, len(args))
	for i, arg := range args {
		words[i] = arg
		if strings.Contains(arg, " ") {
			words[i] = "'" + arg + "'"
		}
	}
	return strings.Join(words, " ")
}

// word names the image and no other.
func word(im expected) string {
	return im.Helper + "-" + strings.TrimPrefix(im.ImageID, "sha256:")[:12]
}

// inMemory is an archive that is no file.
func inMemory(content []byte) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil }
}
