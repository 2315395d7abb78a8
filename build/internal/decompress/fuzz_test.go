package decompress_test

import (
	"bytes"
	"io"
	"testing"

	"pretag/build/internal/decompress"
)

// Whatever comes in, reading ends, and a reader gives the same a second time.
func FuzzReader(f *testing.F) {
	for _, streams := range parts(f, []byte("one"), []byte("two")) {
		f.Add(bytes.Join(streams, nil))
	}
	f.Add([]byte("\x5a\x2a\x4d\x18\x04\x00\x00\x00skip"))
	var kept decompress.Decoders
	f.Fuzz(func(t *testing.T, input []byte) {
		const most = 1 << 20
		var got [2][]byte
		var errs [2]error
		for i := range got {
			r, err := kept.NewReader(bytes.NewReader(input))
			if err == nil {
				got[i], err = io.ReadAll(io.LimitReader(r, most))
				r.Close()
			}
			errs[i] = err
		}
		if !bytes.Equal(got[0], got[1]) || (errs[0] == nil) != (errs[1] == nil) {
			t.Errorf("%d bytes, %v; then %d bytes, %v", len(got[0]), errs[0], len(got[1]), errs[1])
		}
	})
}
