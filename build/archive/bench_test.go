package archive_test

import (
	"bytes"
	"context"
	"io"
	"path/filepath"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"pretag/build/archive"
	"pretag/build/release"
	"pretag/build/tarball"
	"pretag/build/testutil"
)

// BenchmarkWrite writes an archive at each compression, and reports its size.
func BenchmarkWrite(b *testing.B) {
	layer := testutil.Large(b, 64<<20)
	for _, compression := range []string{"none", "gzip", "zstd:fastest", "zstd:default", "zstd:better", "zstd:best"} {
		b.Run(compression, func(b *testing.B) {
			b.SetBytes(int64(len(layer)))
			w := benchWriter(b, compression)
			var f release.Archive
			for b.Loop() {
				f = benchWrite(b, w, layer)
			}
			b.ReportMetric(float64(f.Size), "bytes/archive")
		})
	}
}

// BenchmarkExamine is Write without encoder and disk: sha256 and the checks of entries.
func BenchmarkExamine(b *testing.B) {
	layer := testutil.Large(b, 64<<20)
	b.SetBytes(int64(len(layer)))
	for b.Loop() {
		if _, err := archive.Examine(context.Background(), benchSpec(b, layer)); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkCheck checks a whole archive against its record.
func BenchmarkCheck(b *testing.B) {
	layer := testutil.Large(b, 64<<20)
	f := benchWrite(b, benchWriter(b, "zstd:best"), layer)
	b.SetBytes(int64(len(layer)))
	for b.Loop() {
		if err := archive.Check(b.Context(), f); err != nil {
			b.Fatal(err)
		}
	}
}

func benchWriter(b *testing.B, compression string) *archive.Writer {
	b.Helper()
	c, err := archive.ParseCompression(compression)
	if err != nil {
		b.Fatal(err)
	}
	return &archive.Writer{Compression: c}
}

func benchSpec(b *testing.B, layer []byte) archive.Spec {
	b.Helper()
	h, _ := testutil.Catalogue(b).Lookup("alpine-x86_64")
	return archive.Spec{
		RepoTag: testutil.Repository + ":x86_64-v" + testutil.Version,
		Layers:  []archive.Opener{func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(layer)), nil }},
		Config:  func(diffIDs []v1.Hash) ([]byte, error) { return tarball.FromRootfs(h, diffIDs, testutil.Created()) },
		Rootfs:  true,
		GoArch:  h.GoArch(),
		Time:    testutil.Created(),
	}
}

func benchWrite(b *testing.B, w *archive.Writer, layer []byte) release.Archive {
	b.Helper()
	f, err := w.Write(context.Background(), filepath.Join(b.TempDir(), "archive"), benchSpec(b, layer))
	if err != nil {
		b.Fatal(err)
	}
	return f
}
