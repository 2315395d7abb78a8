package archive_test

import (
	"bytes"
	"context"
	"io"
	"path/filepath"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"pretag/build/archive"
	"pretag/build/image"
	"pretag/build/internal/fixture"
)

// BenchmarkWrite writes an archive at each compression, and reports its size.
func BenchmarkWrite(b *testing.B) {
	layer := fixture.Large(b, 64<<20)
	for _, compression := range []string{"none", "gzip", "zstd:fastest", "zstd:default", "zstd:better", "zstd:best"} {
		b.Run(compression, func(b *testing.B) {
			b.SetBytes(int64(len(layer)))
			w := benchWriter(b, compression)
			var f archive.File
			for b.Loop() {
				f = benchWrite(b, w, layer)
			}
			b.ReportMetric(float64(f.Size), "bytes/archive")
		})
	}
}

// BenchmarkExamine is Write without encoder and disk: sha256 and the checks of entries.
func BenchmarkExamine(b *testing.B) {
	layer := fixture.Large(b, 64<<20)
	b.SetBytes(int64(len(layer)))
	for b.Loop() {
		if _, _, err := archive.Examine(context.Background(), benchSpec(b, layer)); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkCheck checks a whole archive against its record.
func BenchmarkCheck(b *testing.B) {
	layer := fixture.Large(b, 64<<20)
	f := benchWrite(b, benchWriter(b, "zstd:best"), layer)
	b.SetBytes(int64(len(layer)))
	for b.Loop() {
		if err := archive.Check(f); err != nil {
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
	h, _ := fixture.Catalogue(b).Lookup("alpine-x86_64")
	return archive.Spec{
		RepoTag: fixture.Repository + ":x86_64-v" + fixture.Version,
		Layers:  []archive.Opener{func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(layer)), nil }},
		Config:  func(diffIDs []v1.Hash) ([]byte, error) { return image.FromRootfs(h, diffIDs, fixture.Created()) },
		Rootfs:  true,
		GoArch:  h.GoArch(),
		Time:    fixture.Created(),
	}
}

func benchWrite(b *testing.B, w *archive.Writer, layer []byte) archive.File {
	b.Helper()
	f, err := w.Write(context.Background(), filepath.Join(b.TempDir(), "archive"), benchSpec(b, layer))
	if err != nil {
		b.Fatal(err)
	}
	return f
}
