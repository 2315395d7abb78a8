package decompress_test

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"github.com/ulikunitz/xz/lzma"

	"pretag/build/internal/decompress"
)

// lzmaOf compresses size zeros.
func lzmaOf(tb testing.TB, size int64) []byte {
	tb.Helper()
	var b bytes.Buffer
	w, err := lzma.NewWriter(&b)
	if err == nil {
		_, err = io.CopyN(w, zeros{}, size)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestLZMA(t *testing.T) {
	small := lzmaOf(t, 1000)
	history := bytes.Clone(small)
	history[4] = 0xff // of the dictionary's size
	for name, row := range map[string]struct {
		input []byte
		size  int64
		want  string
	}{
		"whole":   {small, 1000, ""},
		"cut":     {small[:len(small)-3], 0, "unexpected EOF (truncated lzma stream)"},
		"header":  {small[:5], 0, "offset 5: unexpected EOF (truncated lzma stream)"},
		"history": {history, 0, "the lzma stream asks for more than 256 MiB of history"},
	} {
		r, err := decompress.NewLZMA(bytes.NewReader(row.input))
		var n int64
		if err == nil {
			n, err = io.Copy(io.Discard, r)
		}
		if row.want == "" && (err != nil || n != row.size) {
			t.Errorf("%s: %d bytes, error %v, want %d bytes", name, n, err, row.size)
		}
		if row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want)) {
			t.Errorf("%s: %d bytes, error %v, want %q", name, n, err, row.want)
		}
	}
}
