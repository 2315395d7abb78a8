package archive_test

import (
	"context"
	"path/filepath"
	"testing"

	"pretag/build/archive"
	"pretag/build/release"
	"pretag/build/testutil"
)

// BenchmarkWrite writes an archive at each compression, and reports its size.
func BenchmarkWrite(b *testing.B) {
	layer := testutil.Large(b, 64<<20)
	for _, compression := range []string{"none", "gzip", "zstd:fastest", "zstd:default", "zstd:better", "zstd:best"} {
		b.Run(compression, func(b *testing.B) {
			b.SetBytes(int64(len(layer)))
			w := writer(b, compression)
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
		if _, err := archive.Examine(context.Background(), spec(b, layer)); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkCheck checks a whole archive against its record.
func BenchmarkCheck(b *testing.B) {
	layer := testutil.Large(b, 64<<20)
	f := benchWrite(b, writer(b, "zstd:best"), layer)
	b.SetBytes(int64(len(layer)))
	for b.Loop() {
		if err := archive.Check(b.Context(), f); err != nil {
			b.Fatal(err)
		}
	}
}

func benchWrite(b *testing.B, w *archive.Writer, layer []byte) release.Archive {
	b.Helper()
	f, err := w.Write(context.Background(), filepath.Join(b.TempDir(), "archive"), spec(b, layer))
	if err != nil {
		b.Fatal(err)
	}
	return f
}
