package build_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"pretag/build"
	"pretag/build/internal/ociarchive"
	"pretag/build/release"
	"pretag/build/testutil"
)

// A bench is directories to build in, and what was printed.
type bench struct {
	dir      string
	out, err bytes.Buffer
}

// newBench returns a bench with a root filesystem in each named input file.
func newBench(t *testing.T, inputs ...string) *bench {
	t.Helper()
	b := &bench{dir: t.TempDir()}
	if err := os.MkdirAll(b.path("in"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range inputs {
		b.input(t, name, testutil.Rootfs(t, name))
	}
	return b
}

func (b *bench) input(t *testing.T, name string, body []byte) {
	t.Helper()
	write(t, b.path("in", name), body)
}

func (b *bench) path(elem ...string) string {
	return filepath.Join(append([]string{b.dir}, elem...)...)
}

// archive returns the path of a helper's archive.
func (b *bench) archive(helper string) string {
	return b.path("out", "helper-images", "prebuilt-"+helper+".docker.tar.zst")
}

// run runs a stage with the variables, and returns its error.
func (b *bench) run(t *testing.T, stage build.Stage, pairs ...string) error {
	t.Helper()
	b.out.Reset()
	b.err.Reset()
	vars := append([]string{
		"RUNNER_VERSION=19.3.0", "SOURCE_DATE_EPOCH=1700000000", "ARCHIVE_COMPRESSION=zstd:fastest",
		"HELPER_IMAGES=" + b.path("in"), "OUT=" + b.path("out"),
	}, pairs...)
	c, err := build.FromEnv(t.Context(), vars, build.NeedVersionOrDryRun)
	if err != nil {
		return err
	}
	c.LoaderArches = []string{} // none: building them takes long
	return stage(t.Context(), c, &build.UI{Out: &b.out, Err: &b.err})
}

// must is run for a stage that succeeds.
func (b *bench) must(t *testing.T, stage build.Stage, pairs ...string) {
	t.Helper()
	if err := b.run(t, stage, pairs...); err != nil {
		t.Fatal(err)
	}
}

// leavesNothing reports an OUT that exists.
func (b *bench) leavesNothing(t *testing.T) {
	t.Helper()
	if left, err := os.ReadDir(b.path("out")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("left behind: %v (%v)", left, err)
	}
}

// manifest returns manifest.json.
func (b *bench) manifest(t *testing.T) release.Manifest {
	t.Helper()
	m, err := release.ReadManifest(b.path("out"))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// record returns the record of a helper's archive.
func (b *bench) record(t *testing.T, helper string) release.Archive {
	t.Helper()
	f, err := release.ReadArchive(b.archive(helper))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func (b *bench) inspect(t *testing.T, file string, pairs ...string) error {
	t.Helper()
	return b.run(t, func(ctx context.Context, c build.Config, ui *build.UI) error {
		return build.Inspect(ctx, c, file, false, ui)
	}, pairs...)
}

func archives(ctx context.Context, c build.Config, ui *build.UI) error {
	_, err := build.Archives(ctx, c, ui)
	return err
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	body, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return body
}

// write writes a file, and makes its directory.
func write(t *testing.T, path string, body []byte) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, body, 0o644)); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, paths ...string) {
	t.Helper()
	for _, path := range paths {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}

// one returns the one file whose path matches the pattern.
func one(t *testing.T, pattern string) string {
	t.Helper()
	paths, err := filepath.Glob(pattern)
	if err != nil || len(paths) != 1 {
		t.Fatalf("%s: got %q, %v, want one file", pattern, paths, err)
	}
	return paths[0]
}

// tree returns the content of every file below a directory.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := fs.WalkDir(os.DirFS(dir), ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			files[name] = string(read(t, filepath.Join(dir, name)))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// incompressible returns a root filesystem of about size bytes.
func incompressible(t *testing.T, size int) []byte {
	t.Helper()
	body := make([]byte, size)
	if _, err := rand.Read(body); err != nil {
		t.Fatal(err)
	}
	return testutil.Rootfs(t, "x", testutil.File("usr/noise", string(body)))
}

// ociImage returns an image of one layer.
func ociImage(t *testing.T, c v1.ConfigFile, annotations map[string]string) v1.Image {
	t.Helper()
	config, err := mutate.ConfigFile(empty.Image, &c)
	if err != nil {
		t.Fatal(err)
	}
	img, err := mutate.AppendLayers(config, static.NewLayer(testutil.Rootfs(t, "x"), types.OCIUncompressedLayer))
	if err != nil {
		t.Fatal(err)
	}
	return mutate.Annotations(img, annotations).(v1.Image)
}

// ociArchive returns an oci-archive of one layer.
func ociArchive(t *testing.T, c v1.ConfigFile, annotations map[string]string) []byte {
	t.Helper()
	var archive bytes.Buffer
	if err := ociarchive.Write(&archive, ociImage(t, c, annotations), "x", testutil.Created()); err != nil {
		t.Fatal(err)
	}
	return archive.Bytes()
}

// contains reports each part that the text lacks.
func contains(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("got\n%s\nwant %q in it", text, part)
		}
	}
}

// same reports each file that differs between two trees.
func same(t *testing.T, what string, want, got map[string]string) {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if body, found := got[name]; !found || body != want[name] {
			t.Errorf("%s: %s is missing or differs", what, name)
		}
	}
	for name := range got {
		if _, found := want[name]; !found {
			t.Errorf("%s: %s is new", what, name)
		}
	}
}
