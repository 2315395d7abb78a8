//go:build acceptance

package tarball_test

import (
	"io"
	"os"
	"path/filepath"
	"testing"

	"pretag/build/internal/decompress"
	"pretag/build/tarball"
	"pretag/build/testutil"
)

// BenchmarkOpen reads a tarball of each layout to its end, with its sum.
func BenchmarkOpen(b *testing.B) {
	rootfs := testutil.Large(b, 64<<20)
	for name, body := range map[string][]byte{
		"rootfs":    rootfs,
		"rootfs.xz": testutil.Filter(b, rootfs, "xz", "-6", "-c"),
	} {
		b.Run(name, func(b *testing.B) {
			path := filepath.Join(b.TempDir(), "tarball")
			if err := os.WriteFile(path, body, 0o644); err != nil {
				b.Fatal(err)
			}
			b.SetBytes(int64(len(rootfs)))
			var decoders decompress.Decoders
			for b.Loop() {
				img, err := tarball.Open(b.Context(), path, amd64(), b.TempDir(), &decoders)
				if err != nil {
					b.Fatal(err)
				}
				for _, layer := range img.Layers {
					r, err := layer()
					if err != nil {
						b.Fatal(err)
					}
					if _, err := io.Copy(io.Discard, r); err != nil {
						b.Fatal(err)
					}
					if err := r.Close(); err != nil {
						b.Fatal(err)
					}
				}
				if _, _, err := img.Sum(); err != nil {
					b.Fatal(err)
				}
				if err := img.Close(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
