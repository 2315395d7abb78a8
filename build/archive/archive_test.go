package archive_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	ggcr "github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"pretag/build/archive"
	"pretag/build/internal/decompress"
	"pretag/build/release"
	"pretag/build/tarball"
	"pretag/build/testutil"
)

func layersOf(bodies ...[]byte) (layers []tarball.Layer) {
	for _, body := range bodies {
		layers = append(layers, func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil })
	}
	return layers
}

func spec(tb testing.TB, layers ...[]byte) archive.Spec {
	tb.Helper()
	h, ok := testutil.Catalogue(tb).Lookup("alpine-x86_64")
	if !ok {
		tb.Fatal("no alpine-x86_64")
	}
	return archive.Spec{
		RepoTag: testutil.Repository + ":x86_64-v19.3.0",
		Config: func(diffIDs []v1.Hash) ([]byte, error) {
			return tarball.FromRootfs(h, diffIDs, testutil.Created())
		},
		Rootfs: len(layers) == 1,
		GoArch: "amd64",
		Time:   testutil.Created(),
		Layers: layersOf(layers...),
	}
}

func write(t *testing.T, compression string, s archive.Spec) (release.Archive, error) {
	t.Helper()
	return writer(t, compression).Write(t.Context(), filepath.Join(t.TempDir(), "a.docker.tar.zst"), s)
}

func writer(tb testing.TB, compression string) *archive.Writer {
	tb.Helper()
	c, err := archive.ParseCompression(compression)
	if err != nil {
		tb.Fatal(err)
	}
	return &archive.Writer{Compression: c}
}

// Round trips are checked with go-containerregistry's reader as well as our own.
func TestWriteReadsBack(t *testing.T) {
	writeReadsBack(t, []string{"zstd:fastest", "zstd:best", "gzip", "none"}, plainBytes)
}

// plainBytes decompresses the archive.
func plainBytes(t *testing.T, f release.Archive) []byte {
	t.Helper()
	file, err := os.Open(f.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	plain, err := decompress.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	data, err := io.ReadAll(plain)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// writeReadsBack writes archives and reads them from what plainBytes returns. A
// writer that was used before writes the same bytes.
func writeReadsBack(t *testing.T, compressions []string, plainBytes func(*testing.T, release.Archive) []byte) {
	t.Helper()
	first := testutil.Rootfs(t, strings.Repeat("one", 5000))
	second := testutil.Tar(t, testutil.File("etc/second", strings.Repeat("layer two\n", 1000)))
	third := testutil.Tar(t, testutil.Dir("etc"), testutil.File("etc/.wh.second", ""))
	for _, compression := range compressions {
		t.Run(compression, func(t *testing.T) {
			w := writer(t, compression)
			var sums []string
			for _, layers := range [][][]byte{{first}, {first, second, third}, {first}} {
				f, err := w.Write(t.Context(), filepath.Join(t.TempDir(), "a"), spec(t, layers...))
				if err != nil {
					t.Fatal(err)
				}
				if sums = append(sums, f.SHA256); len(sums) < 3 {
					readsBack(t, f, plainBytes(t, f), layers)
				}
			}
			if sums[0] != sums[2] || sums[0] == sums[1] {
				t.Errorf("sums %q, want the first and the third alike", sums)
			}
		})
	}
}

// readsBack compares the archive of record f with the layers that it was written from.
func readsBack(t *testing.T, f release.Archive, plain []byte, layers [][]byte) {
	t.Helper()
	if err := archive.Check(t.Context(), f); err != nil {
		t.Fatal(err)
	}
	tag, err := name.NewTag(f.RepoTag, name.StrictValidation)
	if err != nil {
		t.Fatal(err)
	}
	img, err := ggcr.Image(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(plain)), nil }, &tag)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Image(img); err != nil {
		t.Fatal(err)
	}
	id, err := img.ConfigName()
	if err != nil {
		t.Fatal(err)
	}
	if id.String() != f.ImageID {
		t.Errorf("image ID %s, want %s", f.ImageID, id)
	}
	got, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	for i, layer := range got {
		r, err := layer.Uncompressed()
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(body, layers[i]) {
			t.Errorf("layer %d is not the input byte for byte", i+1)
		}
	}
}

// Engines read the members in the order of the manifest, and need no oci-layout.
func TestMembers(t *testing.T) {
	f, err := write(t, "none", spec(t, testutil.Rootfs(t, "one"), testutil.Tar(t, testutil.File("two", "2"))))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	tr := tar.NewReader(bytes.NewReader(plainBytes(t, f)))
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, h.Name)
	}
	want := []string{"layer.tar", "layer-2.tar", strings.TrimPrefix(f.ImageID, "sha256:") + ".json", "manifest.json"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("members (-want +got):\n%s", diff)
	}
}

// Whatever fails, the older file stays and nothing else is left.
func TestFailureLeavesNothing(t *testing.T) {
	broken := errors.New("broken")
	whole := testutil.Rootfs(t, "one")
	for name, damage := range map[string]func(*archive.Spec){
		"open":   func(s *archive.Spec) { s.Layers[0] = func() (io.ReadCloser, error) { return nil, broken } },
		"read":   func(s *archive.Spec) { s.Layers[0] = faulty(whole[:2000], broken, nil) },
		"close":  func(s *archive.Spec) { s.Layers[0] = faulty(whole, io.EOF, broken) },
		"config": func(s *archive.Spec) { s.Config = func([]v1.Hash) ([]byte, error) { return nil, broken } },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "a")
			if err := os.WriteFile(path, []byte("old"), 0o644); err != nil {
				t.Fatal(err)
			}
			s := spec(t, whole)
			damage(&s)
			w := archive.Writer{Compression: archive.Compression{Method: "zstd", Level: "fastest"}}
			if _, err := w.Write(context.Background(), path, s); !errors.Is(err, broken) {
				t.Errorf("error %v, want %v", err, broken)
			}
			assertOnly(t, dir, "a", "old")
			if _, err := w.Write(context.Background(), path, spec(t, whole)); err != nil {
				t.Errorf("the writer does not work after a failure: %v", err)
			}
		})
	}
	t.Run("cancelled", func(t *testing.T) {
		dir := t.TempDir()
		ctx, cancel := context.WithCancelCause(context.Background())
		cancel(broken)
		w := archive.Writer{Compression: archive.Compression{Method: "none"}}
		if _, err := w.Write(ctx, filepath.Join(dir, "a"), spec(t, whole)); !errors.Is(err, broken) {
			t.Errorf("error %v, want %v", err, broken)
		}
		assertOnly(t, dir)
	})
}

func faulty(b []byte, readErr, closeErr error) tarball.Layer {
	return func() (io.ReadCloser, error) {
		return &faultyReader{bytes.NewReader(b), readErr, closeErr}, nil
	}
}

type faultyReader struct {
	r                 io.Reader
	readErr, closeErr error
}

func (f *faultyReader) Read(p []byte) (int, error) {
	n, err := f.r.Read(p)
	if errors.Is(err, io.EOF) {
		err = f.readErr
	}
	return n, err
}

func (f *faultyReader) Close() error { return f.closeErr }

// assertOnly asserts that dir holds the files of the name-content pairs alone.
func assertOnly(t *testing.T, dir string, pairs ...string) {
	t.Helper()
	got := []string{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, e.Name(), string(b))
	}
	if diff := cmp.Diff(append([]string{}, pairs...), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", dir, diff)
	}
}
