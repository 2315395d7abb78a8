//go:build acceptance

package decompress_test

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"pretag/build/internal/decompress"
)

// Half a gibibyte of zeros takes the decoder some seconds.
func TestLZMABomb(t *testing.T) {
	r, err := decompress.NewLZMA(bytes.NewReader(lzmaOf(t, 640<<20)))
	if err != nil {
		t.Fatal(err)
	}
	const want = "the lzma stream grows to more than 250 times its size"
	if n, err := io.Copy(io.Discard, r); err == nil || !strings.Contains(err.Error(), want) || n > 600<<20 {
		t.Errorf("%d bytes, error %v, want %q", n, err, want)
	}
}
