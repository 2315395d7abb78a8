//go:build acceptance

package decompress_test

import (
	"bytes"
	"io"
	"testing"

	"pretag/build/internal/decompress"
)

// 7-Zip's -mx8 asks for up to 256 MiB of history.
func TestLargestDictionary(t *testing.T) {
	want := []byte("a root filesystem")
	compressed := pipe(t, want, "xz", "--lzma2=preset=0,dict=256MiB")
	r, err := decompress.NewReader(bytes.NewReader(compressed))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%q, %v, want %q", got, err, want)
	}
}
