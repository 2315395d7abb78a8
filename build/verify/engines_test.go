//go:build acceptance

package verify

import (
	"bytes"
	"context"
	"errors"
	"io"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"pretag/build/archive"
	"pretag/build/catalogue"
	"pretag/build/engine"
	"pretag/build/release"
	"pretag/build/tarball"
	"pretag/build/testutil"
	"pretag/build/testutil/archivetest"
)

// runnable writes archives whose programs run on this machine, whatever the
// helper's architecture.
func runnable(t *testing.T, dir, compression string, helpers ...string) []release.Archive {
	t.Helper()
	return runnableAs(t, dir, testutil.Repository, testutil.Version, compression, nil, helpers...)
}

// runnableAs is runnable for a repository and a version, with more files.
func runnableAs(t *testing.T, dir, repository, version, compression string, more []testutil.Entry, helpers ...string) []release.Archive {
	t.Helper()
	v, versionErr := catalogue.ParseVersion(version, "")
	parsed, err := archive.ParseCompression(compression)
	if err := errors.Join(versionErr, err); err != nil {
		t.Fatal(err)
	}
	w := archive.Writer{Compression: parsed}
	var files []release.Archive
	for _, name := range helpers {
		h, ok := testutil.Catalogue(t).Lookup(name)
		if !ok {
			t.Fatalf("no helper %s", name)
		}
		rootfs := testutil.Tar(t, slices.Concat(testutil.Programs(t), more, []testutil.Entry{testutil.File("etc/helper", name)})...)
		f, err := w.Write(t.Context(), filepath.Join(dir, h.File()), archive.Spec{
			RepoTag: repository + ":" + h.Tag(v),
			Layers:  []tarball.Layer{func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(rootfs)), nil }},
			Config:  func(diffIDs []v1.Hash) ([]byte, error) { return tarball.FromRootfs(h, diffIDs, testutil.Created()) },
			Time:    testutil.Created(),
		})
		if err != nil {
			t.Fatal(err)
		}
		f.Helper, f.Name = name, h.File()
		files = append(files, f)
	}
	return files
}

func hostHelper(t *testing.T) string {
	t.Helper()
	arch, ok := map[string]string{"amd64": "x86_64", "arm64": "arm64", "riscv64": "riscv64", "s390x": "s390x", "ppc64le": "ppc64le"}[runtime.GOARCH]
	if !ok {
		testutil.Missing(t, "helper", "none runs on "+runtime.GOARCH)
	}
	return "ubuntu-" + arch
}

// installed returns the engines of this machine, at least one.
func installed(t *testing.T) []engine.Engine {
	t.Helper()
	found, _, err := engine.Find(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(found) == 0 {
		testutil.Missing(t, "podman", "nor any other engine")
	}
	return found
}

// oneEngine names an engine of this machine, for what does not depend on the engine.
func oneEngine(t *testing.T) []string {
	t.Helper()
	return []string{string(installed(t)[0].Kind)}
}

// newSession returns a session for the archives.
func newSession(ctx context.Context, archives []release.Archive, runner *gitlabRunner, progress func(string)) (session, error) {
	s := session{decoder: &decoder{}, runner: runner, progress: progress}
	for _, f := range archives {
		contents, err := archive.Read(ctx, f.Path)
		if err != nil {
			return s, err
		}
		s.images = append(s.images, expected{f, contents.Config})
	}
	return s, nil
}

// inEngines checks the archives in those engines, or in all if none is named, and passes
// each result to a subtest of its own. With a runner it runs jobs.
func inEngines(t *testing.T, engines []string, archives []release.Archive, runner *gitlabRunner, check func(*testing.T, EngineResult)) {
	t.Helper()
	s, err := newSession(t.Context(), archives, runner, func(line string) { t.Log(line) })
	if err != nil {
		t.Fatal(err)
	}
	results, err := s.run(t.Context(), engines)
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
				t.Logf("%s: %s: %s: %s %q", result.Subject, result.Check, result.Status, result.Says, result.Problems)
				if result.Status == Failed {
					t.Log(result.log)
				}
			}
			check(t, r)
		})
	}
}

// containerdDriver is the driver of Docker's containerd store. Its other store has overlay2.
const containerdDriver = "overlayfs"

func statuses(results []Result) map[string]Status {
	m := map[string]Status{}
	for _, r := range results {
		m[r.Subject+" "+r.Check] = r.Status
	}
	return m
}

func TestEngines(t *testing.T) { testEngines(t) }

// TestContainerdStore checks in Docker with its other store.
func TestContainerdStore(t *testing.T) {
	testutil.Root(t, "dockerd needs it")
	testutil.UseContainerdStore(t)
	testEngines(t, string(engine.Docker))
}

// testEngines finds good archives good in those engines, or in all: of two forms
// at once, two archives each.
func testEngines(t *testing.T, engines ...string) {
	host := hostHelper(t)
	other := strings.Replace(host, "ubuntu", "alpine", 1)
	archives := append(runnable(t, t.TempDir(), "zstd:fastest", host, "alpine-arm"), runnable(t, t.TempDir(), "gzip", other, "ubuntu-arm")...)
	archives[1].Size, archives[3].Size = 1, 1
	inEngines(t, engines, archives, nil, func(t *testing.T, r EngineResult) {
		if len(engines) > 0 && r.Driver != containerdDriver {
			t.Errorf("the store is %s, want %s", r.Driver, containerdDriver)
		}
		want := map[string]Status{}
		for _, helper := range []string{host, other, "alpine-arm", "ubuntu-arm"} {
			want[helper+" lookup"], want[helper+" stored"], want[helper+" run"] = Passed, Passed, Passed
		}
		want["alpine-arm run"], want["ubuntu-arm run"] = Skipped, Skipped
		want[host+" load"], want["alpine-arm runner"], want["alpine-arm pipe"] = Passed, Passed, Passed
		want[other+" load"], want["ubuntu-arm runner"], want["ubuntu-arm pipe"] = Passed, Passed, Passed
		provedBy := map[string]map[string]string{
			"zstd": {"runner": "alpine-arm", "pipe": "alpine-arm", "load": host},
			"gzip": {"runner": "ubuntu-arm", "pipe": "ubuntu-arm", "load": other},
		}
		if old := (engine.Engine{Kind: r.Kind, Version: r.Version}); old.Kind == engine.Docker && old.Before("23.0") {
			delete(want, host+" load")
			want["alpine-arm load"], want["alpine-arm runner"], want[host+" pipe"] = Refused, Refused, Passed
			provedBy["zstd"]["load"] = "alpine-arm"
		}
		if diff := cmp.Diff(want, statuses(r.Results)); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff(provedBy, r.ProvedBy); diff != "" {
			t.Error(diff)
		}
	})
}

// What is wrong with an archive is found in the engines, too. TestControls has the
// other ways.
func TestEnginesReport(t *testing.T) {
	host := hostHelper(t)
	dir := t.TempDir()
	good := runnable(t, dir, "none", host)[0]
	wrongTag := good
	wrongTag.Size = 3 // so that load loads it
	wrongTag.Helper, wrongTag.RepoTag = "wrong-tag", testutil.Repository+":other"
	wrongID := good
	wrongID.Size = 1 // runner
	wrongID.Helper, wrongID.ImageID = "wrong-id", "sha256:"+strings.Repeat("0", 64)
	broken := archivetest.ArchivesOf(t, t.TempDir(), testutil.Version, archive.Compression{Method: "none"}, host)[0]
	broken.Helper, broken.Size = "does-not-run", 2
	inEngines(t, nil, []release.Archive{wrongTag, wrongID, broken}, nil, func(t *testing.T, r EngineResult) {
		problems := map[string]string{}
		for _, result := range r.Results {
			problems[result.Subject+" "+result.Check] = strings.Join(result.Problems, "; ")
			if result.Status == Failed && result.Repeat == "" {
				t.Errorf("%s %s: the report does not say how to repeat it", result.Subject, result.Check)
			}
		}
		byID := `image ID is "` + good.ImageID + `", want "` + wrongID.ImageID + `"`
		if r.Driver == containerdDriver { // the check stored finds it
			byID = ""
		}
		for check, want := range map[string]string{
			"wrong-tag load":   `is tagged ["` + good.RepoTag + `"], want ["` + wrongTag.RepoTag + `"]`,
			"wrong-tag lookup": "404",
			"wrong-id runner":  byID,
			"wrong-id lookup":  byID,
			"wrong-id stored":  "the stored config is " + good.ImageID,
			"does-not-run run": "exit status 126",
		} {
			if !strings.Contains(problems[check], want) {
				t.Errorf("%s: %q, want %q", check, problems[check], want)
			}
		}
	})
}

// If the last way could not load the image, the other checks are not made.
func TestNotLoadedByTheLastWay(t *testing.T) {
	archives := runnable(t, t.TempDir(), "gzip", "alpine-arm")
	s, err := newSession(t.Context(), archives, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	instance, err := installed(t)[0].Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := instance.Close(); err != nil {
			t.Error(err)
		}
	}()
	run := engineRun{s, instance, &EngineResult{}}
	broken := s.images[0]
	broken.Path = filepath.Join(t.TempDir(), "archive")
	write(t, broken.Path, []byte("no archive"))
	for _, im := range []expected{s.images[0], broken} {
		run.result.Results = nil
		if err := run.helper(t.Context(), im, []way{byRunner}); err != nil {
			t.Fatal(err)
		}
	}
	want := map[string]Status{"alpine-arm runner": Failed, "alpine-arm lookup": Skipped, "alpine-arm stored": Skipped, "alpine-arm run": Skipped}
	if diff := cmp.Diff(want, statuses(run.result.Results)); diff != "" {
		t.Error(diff)
	}
}

// An engine that cannot continue reports where it stopped, and keeps the results before.
func TestEnginesStop(t *testing.T) {
	archives := runnable(t, t.TempDir(), "none", "alpine-arm", "alpine-s390x", "alpine-x86_64")
	archives[0].Size, archives[1].Size = 1, 2
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("stop")
	s, err := newSession(ctx, archives, nil, func(string) { cancel(stop) })
	if err != nil {
		t.Fatal(err)
	}
	r, err := s.inEngine(ctx, installed(t)[0], 1)
	if !errors.Is(err, stop) || !strings.HasPrefix(err.Error(), string(r.Kind)+": alpine-s390x: ") {
		t.Errorf("got %v, want %v at alpine-s390x", err, stop)
	}
	cells := []string{r.Cell(archives[0]), r.Cell(archives[1]), r.Cell(archives[2])}
	if diff := cmp.Diff([]string{"ok, not run", "FAILED: pipe", "not checked"}, cells); diff != "" {
		t.Error(diff)
	}
}

// Equal archives in equal engines give equal reports, except for the time. Two
// instances of the engine share these images.
func TestEnginesRepeat(t *testing.T) {
	s, err := newSession(t.Context(), runnable(t, t.TempDir(), "zstd:fastest", "alpine-arm", "alpine-s390x"), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	var reports [2][]EngineResult
	for n := range reports {
		if reports[n], err = s.run(t.Context(), oneEngine(t)); err != nil {
			t.Fatal(err)
		}
	}
	timeless := cmp.FilterPath(func(p cmp.Path) bool { return p.Last().String() == ".Seconds" }, cmp.Ignore())
	if diff := cmp.Diff(reports[0], reports[1], timeless, cmpopts.IgnoreUnexported(Result{})); diff != "" {
		t.Error(diff)
	}
}
