//go:build acceptance

package decompress_test

import (
	"bytes"
	"io"
	"testing"

	"github.com/ulikunitz/xz"

	"pretag/build/internal/decompress"
	"pretag/build/testutil"
)

// BenchmarkDecode decodes each format as a build does, and xz in the other ways
// that there are.
func BenchmarkDecode(b *testing.B) {
	plain := testutil.Large(b, 64<<20)
	xzipped := testutil.Filter(b, plain, "xz", "-6", "-T1")
	for name, compressed := range map[string][]byte{
		"xz":    xzipped,
		"gzip":  testutil.Filter(b, plain, "gzip"),
		"zstd":  testutil.Filter(b, plain, "zstd"),
		"bzip2": testutil.Filter(b, plain, "bzip2"),
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(plain)))
			var decoders decompress.Decoders
			for b.Loop() {
				r, err := decoders.NewReader(bytes.NewReader(compressed))
				drain(b, r, err)
				if err := r.Close(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("xz by ulikunitz", func(b *testing.B) {
		b.SetBytes(int64(len(plain)))
		for b.Loop() {
			r, err := xz.NewReader(bytes.NewReader(xzipped))
			drain(b, r, err)
		}
	})
	b.Run("xz by the xz program", func(b *testing.B) {
		b.SetBytes(int64(len(plain)))
		for b.Loop() {
			testutil.Filter(b, xzipped, "xz", "-dc")
		}
	})
}

func drain(b *testing.B, r io.Reader, err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, r); err != nil {
		b.Fatal(err)
	}
}
