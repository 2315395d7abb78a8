package decompress_test

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"pretag/build/internal/decompress"
	"pretag/build/testutil"
)

// parts returns streams of each format that Go can write, to be read one after the other.
func parts(tb testing.TB, bodies ...[]byte) map[decompress.Format][][]byte {
	tb.Helper()
	all := map[decompress.Format][][]byte{}
	for _, body := range bodies {
		for _, format := range []decompress.Format{decompress.Gzip, decompress.XZ, decompress.Zstd} {
			all[format] = append(all[format], testutil.Compress(tb, string(format), body))
		}
	}
	return all
}

func plain(input []byte) ([]byte, error) {
	r, err := decompress.NewReader(bytes.NewReader(input))
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

// A stream that is cut anywhere is an error, except between two streams.
func TestCutAnywhere(t *testing.T) { cutAnywhere(t, parts) }

func cutAnywhere(t *testing.T, parts func(testing.TB, ...[]byte) map[decompress.Format][][]byte) {
	t.Helper()
	one, two := bytes.Repeat([]byte("0123456789abcdef"), 100), []byte("two")
	for format, streams := range parts(t, one, two) {
		whole := bytes.Join(streams, nil)
		if got, err := plain(whole); err != nil || !bytes.Equal(got, append(bytes.Clone(one), two...)) {
			t.Fatalf("%s: %d bytes, %v", format, len(got), err)
		}
		for at := 1; at < len(whole); at++ {
			got, err := plain(whole[:at])
			if at == len(streams[0]) {
				if err != nil || !bytes.Equal(got, one) {
					t.Errorf("%s: cut between streams: %d bytes, %v", format, len(got), err)
				}
				continue
			}
			if err == nil && decompress.Detect(whole[:at]) == format {
				t.Errorf("%s: cut at %d of %d: no error", format, at, len(whole))
			}
			if errors.Is(err, io.EOF) {
				t.Errorf("%s: cut at %d of %d: the error is an end: %v", format, at, len(whole), err)
			}
		}
	}
}

// A changed bit is an error, or changes nothing of what comes out.
func TestFlippedAnywhere(t *testing.T) { flippedAnywhere(t, parts) }

func flippedAnywhere(t *testing.T, parts func(testing.TB, ...[]byte) map[decompress.Format][][]byte) {
	t.Helper()
	one := bytes.Repeat([]byte("0123456789abcdef"), 100)
	var kept decompress.Decoders // new ones for each bit would take most of the time
	plain := func(input []byte) ([]byte, error) {
		r, err := kept.NewReader(bytes.NewReader(input))
		if err != nil {
			return nil, err
		}
		defer r.Close()
		return io.ReadAll(r)
	}
	for format, streams := range parts(t, one, []byte("two")) {
		whole := bytes.Join(streams, nil)
		want, err := plain(whole)
		if err != nil {
			t.Fatal(err)
		}
		for at := range whole {
			for bit := range 8 {
				flipped := bytes.Clone(whole)
				flipped[at] ^= 1 << bit
				if decompress.Detect(flipped) != format {
					continue // not a stream of that format any more
				}
				if got, err := plain(flipped); err == nil && !bytes.Equal(got, want) {
					t.Errorf("%s: bit %d of byte %d: other bytes and no error", format, bit, at)
				}
			}
		}
	}
}

// Ten gigabytes of zeros stop early. Other formats take seconds; TestStopsBombsByPrograms has them.
func TestStopsBombs(t *testing.T) {
	stopsBombs(t, map[decompress.Format][]byte{decompress.Zstd: testutil.Compress(t, "zstd", make([]byte, 16<<20))})
}

func stopsBombs(t *testing.T, streams map[decompress.Format][]byte) {
	t.Helper()
	for format, stream := range streams {
		r, err := decompress.NewReader(bytes.NewReader(bytes.Repeat(stream, 640)))
		if err != nil {
			t.Fatal(err)
		}
		n, err := io.Copy(io.Discard, r)
		if err == nil || !strings.Contains(err.Error(), "grows to more than 250 times its size") || n > 1<<30 {
			t.Errorf("%s: %d bytes, %v", format, n, err)
		}
		r.Close()
	}
	// A small stream may grow by any factor.
	for format, stream := range streams {
		if got, err := plain(bytes.Repeat(stream, 8)); err != nil || len(got) != 128<<20 {
			t.Errorf("%s: %d bytes, %v", format, len(got), err)
		}
	}
}

func TestRefusesHistories(t *testing.T) {
	single := func(size string) []byte { // one segment: the window is the content (RFC 8878 3.1.1.1.1)
		return []byte("\x28\xb5\x2f\xfd\xe0" + size + "\x01\x00\x00")
	}
	for name, row := range map[string]struct {
		input []byte
		want  string
	}{
		"zstd content of 1 TiB":   {single("\x00\x00\x00\x00\x00\x01\x00\x00"), "history"},
		"zstd window of 3.75 TiB": {[]byte("\x28\xb5\x2f\xfd\x00\xff\x01\x00\x00"), "history"},
		"gzip name without end":   {append([]byte("\x1f\x8b\x08\x08\x00\x00\x00\x00\x00\x00"), bytes.Repeat([]byte("x"), 1<<20)...), "corrupt gzip"},
	} {
		if _, err := plain(row.input); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: error %v, want one that holds %q", name, err, row.want)
		}
	}
}
