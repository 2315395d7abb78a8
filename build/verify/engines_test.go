//go:build acceptance

package verify

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"os/exec"
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
	return runnableAs(t, dir, testutil.Repository, testutil.Version, compression)(helpers...)
}

// runnableAs is runnable for a repository and a version, with more files.
func runnableAs(t *testing.T, dir, repository, version, compression string, more ...testutil.Entry) func(helpers ...string) []release.Archive {
	t.Helper()
	body := compiled(t, "pretag/build/demo/sample")
	v, err := catalogue.ParseVersion(version, "")
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := archive.ParseCompression(compression)
	if err != nil {
		t.Fatal(err)
	}
	w := archive.Writer{Compression: parsed}
	return func(helpers ...string) []release.Archive {
		t.Helper()
		var files []release.Archive
		for _, name := range helpers {
			h, ok := testutil.Catalogue(t).Lookup(name)
			if !ok {
				t.Fatalf("no helper %s", name)
			}
			rootfs := testutil.Tar(t, append([]testutil.Entry{
				testutil.File("etc/helper", name),
				executable("bin/sh", body), executable("usr/bin/dumb-init", body), executable("entrypoint", body),
			}, more...)...)
			f, err := w.Write(t.Context(), filepath.Join(dir, h.File()), archive.Spec{
				RepoTag: repository + ":" + h.Tag(v),
				Layers:  []archive.Opener{func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(rootfs)), nil }},
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
}

// compiled is a program of this module.
func compiled(t *testing.T, pkg string) []byte {
	t.Helper()
	program := filepath.Join(t.TempDir(), "program")
	build := exec.CommandContext(t.Context(), "go", "build", "-ldflags=-s -w", "-o", program, pkg)
	build.Env = append(build.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	body, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	return body
}

func executable(name string, body []byte) testutil.Entry {
	return testutil.Entry{Header: tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o755}, Body: body}
}

func hostHelper(t *testing.T) string {
	t.Helper()
	arch, ok := map[string]string{"amd64": "x86_64", "arm64": "arm64", "riscv64": "riscv64", "s390x": "s390x", "ppc64le": "ppc64le"}[runtime.GOARCH]
	if !ok {
		testutil.Missing(t, "helper", "none runs on "+runtime.GOARCH)
	}
	return "ubuntu-" + arch
}

// inEngines runs the checks in those engines, or in all if none is named, and
// gives each result to a subtest of its own.
func inEngines(t *testing.T, engines []string, archives []release.Archive, check func(*testing.T, EngineResult)) {
	t.Helper()
	results, err := Engines(t.Context(), engines, archives, nil, func(line string) { t.Log(line) })
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
			check(t, r)
		})
	}
}

// containerdDriver is the driver of Docker's containerd store; that of its own is overlay2.
const containerdDriver = "overlayfs"

func statuses(results []Result) map[string]Status {
	m := map[string]Status{}
	for _, r := range results {
		m[r.Subject+" "+r.Check] = r.Status
	}
	return m
}

func TestEngines(t *testing.T) { testEngines(t) }

// TestContainerdStore checks in Docker with its other store, whose image IDs are
// digests of manifests. A dockerd before the real one switches it on.
func TestContainerdStore(t *testing.T) {
	testutil.Root(t, "dockerd needs it")
	daemon := testutil.ContainerdStore(t)
	dir := t.TempDir()
	script := `#!/bin/sh
for argument do
	case $argument in
	--config-file=*) echo '{"features": {"containerd-snapshotter": true}}' >"${argument#*=}" ;;
	esac
done
exec ` + daemon + ` "$@"
`
	if err := os.WriteFile(filepath.Join(dir, "dockerd"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	testEngines(t, string(engine.Docker))
}

// testEngines finds good archives good in those engines, or in all.
func testEngines(t *testing.T, engines ...string) {
	host := hostHelper(t)
	for _, compression := range []string{"zstd:fastest", "gzip"} {
		t.Run(compression, func(t *testing.T) {
			archives := runnable(t, t.TempDir(), compression, host, "alpine-arm")
			archives[1].Size = 1
			inEngines(t, engines, archives, func(t *testing.T, r EngineResult) {
				if len(engines) > 0 && r.Driver != containerdDriver {
					t.Errorf("the store is %s, want %s", r.Driver, containerdDriver)
				}
				for _, result := range r.Results {
					t.Logf("%s: %s: %s: %s %v", result.Subject, result.Check, result.Status, result.Says, result.Problems)
				}
				direct, one := Passed, "load"
				if old := (engine.Engine{Kind: r.Kind, Version: r.Version}); old.Kind == engine.Docker && old.Before("23.0") && compression == "zstd:fastest" {
					direct, one = Refused, "pipe"
				}
				// alpine-arm proves every way, the other one is loaded once.
				want := map[string]Status{
					host + " " + one: Passed, host + " lookup": Passed, host + " stored": Passed, host + " run": Passed,
					"alpine-arm load": direct, "alpine-arm runner": direct, "alpine-arm pipe": Passed,
					"alpine-arm lookup": Passed, "alpine-arm stored": Passed, "alpine-arm run": Skipped,
				}
				if diff := cmp.Diff(want, statuses(r.Results)); diff != "" {
					t.Error(diff)
				}
				form, _, _ := strings.Cut(compression, ":")
				if diff := cmp.Diff(map[string]string{form: "alpine-arm"}, r.ProvedBy); diff != "" {
					t.Error(diff)
				}
			})
		})
	}
}

// What is wrong with an archive is found in the engines too, in the way that shows it.
func TestEnginesReport(t *testing.T) {
	host := hostHelper(t)
	dir := t.TempDir()
	good := runnable(t, dir, "none", host)[0]
	wrongTag := good
	wrongTag.Size = 1 // so that it is loaded in every way
	wrongTag.Helper, wrongTag.RepoTag = "wrong-tag", testutil.Repository+":other"
	wrongID := good
	wrongID.Helper, wrongID.ImageID = "wrong-id", "sha256:"+strings.Repeat("0", 64)
	broken := archivetest.ArchivesOf(t, t.TempDir(), testutil.Version, archive.Compression{Method: "none"}, host)[0]
	broken.Helper = "runs-not"
	garbage := filepath.Join(dir, "garbage")
	write(t, garbage, []byte("no archive"))

	if _, err := Engines(t.Context(), nil, []release.Archive{{Helper: "garbage", Path: garbage}}, nil, nil); err == nil || !strings.HasPrefix(err.Error(), "garbage: ") {
		t.Errorf("what is no archive: %v", err)
	}
	inEngines(t, nil, []release.Archive{wrongTag, wrongID, broken}, func(t *testing.T, r EngineResult) {
		problems := map[string]string{}
		for _, result := range r.Results {
			problems[result.Subject+" "+result.Check] = strings.Join(result.Problems, "; ")
			if result.Status == Failed && result.Repeat == "" {
				t.Errorf("%s %s: nothing tells how to repeat it", result.Subject, result.Check)
			}
		}
		byID := `image ID is "` + good.ImageID + `", want "` + wrongID.ImageID + `"`
		if r.Driver == containerdDriver { // what is stored tells
			byID = ""
		}
		for check, want := range map[string]string{
			"wrong-tag load":   `is tagged ["` + good.RepoTag + `"], want ["` + wrongTag.RepoTag + `"]`,
			"wrong-tag runner": `is tagged ["`, // both: Runner adds its own
			"wrong-tag lookup": "404",
			"wrong-id load":    byID,
			"wrong-id lookup":  byID,
			"wrong-id stored":  "the stored config is " + good.ImageID,
			"runs-not run":     "exit status 126",
		} {
			if !strings.Contains(problems[check], want) {
				t.Errorf("%s: %q, want %q", check, problems[check], want)
			}
		}
	})
}

// What the last way could not load is not there to be checked.
func TestNotLoadedByTheLastWay(t *testing.T) {
	found, _, err := engine.Find(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(found) == 0 {
		testutil.Missing(t, "podman", "nor any other engine")
	}
	images, err := expect(t.Context(), runnable(t, t.TempDir(), "gzip", "alpine-arm"))
	if err != nil {
		t.Fatal(err)
	}
	im, opened := images[0], 0
	whole := im.open
	im.open = func() (io.ReadCloser, error) {
		if opened++; opened == 3 {
			return inMemory([]byte("no archive"))()
		}
		return whole()
	}
	r, err := inEngine(t.Context(), found[0], []expected{im}, nil, t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	if r.NotChecked != "" {
		testutil.Missing(t, "podman", r.NotChecked)
	}
	want := map[string]Status{
		"alpine-arm runner": Passed, "alpine-arm pipe": Passed, "alpine-arm load": Failed,
		"alpine-arm lookup": Skipped, "alpine-arm stored": Skipped, "alpine-arm run": Skipped,
	}
	if diff := cmp.Diff(want, statuses(r.Results)); diff != "" {
		t.Error(diff)
	}
}

// An engine that cannot go on tells where, and what was found before stays.
func TestEnginesGoNotOn(t *testing.T) {
	archives := runnable(t, t.TempDir(), "none", "alpine-arm", "alpine-s390x", "alpine-x86_64")
	archives[0].Size = 1
	results, err := Engines(t.Context(), nil, archives, nil, func(string) { os.Remove(archives[1].Path) })
	for _, r := range results {
		t.Run(string(r.Kind), func(t *testing.T) {
			if r.NotChecked != "" {
				name, _, _ := strings.Cut(string(r.Kind), "-")
				testutil.Missing(t, name, r.NotChecked)
			}
			if want := string(r.Kind) + ": alpine-s390x: open "; err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want %s", err, want)
			}
			cells := []string{r.Cell("alpine-arm"), r.Cell("alpine-s390x"), r.Cell("alpine-x86_64")}
			if diff := cmp.Diff([]string{"ok, not run", "FAILED: load", "not checked"}, cells); diff != "" {
				t.Error(diff)
			}
		})
	}
	if len(results) != len(engine.Kinds()) {
		t.Errorf("%d results, want %d: %v", len(results), len(engine.Kinds()), err)
	}
}

// Equal archives in equal engines give equal reports, but for the time that it took.
func TestEnginesRepeat(t *testing.T) {
	archives := runnable(t, t.TempDir(), "zstd:fastest", "alpine-arm")
	var reports [2][]EngineResult
	for n := range reports {
		results, err := Engines(t.Context(), nil, archives, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		reports[n] = results
	}
	timeless := cmp.FilterPath(func(p cmp.Path) bool { return p.Last().String() == ".Seconds" }, cmp.Ignore())
	if diff := cmp.Diff(reports[0], reports[1], timeless, cmpopts.IgnoreUnexported(Result{})); diff != "" {
		t.Error(diff)
	}
}
