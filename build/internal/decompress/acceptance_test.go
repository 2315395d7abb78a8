//go:build acceptance

package decompress_test

import (
	"testing"

	"pretag/build/internal/decompress"
	"pretag/build/testutil"
)

// programParts is parts with streams that the usual programs write.
func programParts(tb testing.TB, bodies ...[]byte) map[decompress.Format][][]byte {
	tb.Helper()
	all := map[decompress.Format][][]byte{}
	for _, body := range bodies {
		for format, command := range map[decompress.Format][]string{
			decompress.Gzip: {"gzip", "-c"}, decompress.XZ: {"xz", "--block-size=1024", "-c"},
			decompress.Zstd: {"zstd", "-c"}, decompress.Bzip2: {"bzip2", "-c"},
		} {
			all[format] = append(all[format], testutil.Filter(tb, body, command[0], command[1:]...))
		}
	}
	return all
}

func TestCutAnywhereByPrograms(t *testing.T) { cutAnywhere(t, programParts) }

func TestFlippedAnywhereByPrograms(t *testing.T) { flippedAnywhere(t, programParts) }

func TestStopsBombsByPrograms(t *testing.T) {
	zeros := make([]byte, 16<<20)
	stopsBombs(t, map[decompress.Format][]byte{
		decompress.Gzip: testutil.Filter(t, zeros, "gzip", "-c"), decompress.XZ: testutil.Filter(t, zeros, "xz", "-1", "-c"),
		decompress.Zstd: testutil.Filter(t, zeros, "zstd", "-c"), decompress.Bzip2: testutil.Filter(t, zeros, "bzip2", "-c"),
	})
}

// 7-Zip's -mx8 asks for up to 256 MiB of history.
func TestHistoryOfXZ(t *testing.T) {
	if got, err := plain(testutil.Filter(t, []byte("x"), "xz", "--lzma2=preset=0,dict=256MiB", "-c")); err != nil || string(got) != "x" {
		t.Errorf("got %q, %v", got, err)
	}
	_, err := plain(testutil.Filter(t, []byte("x"), "xz", "--lzma2=dict=1536MiB", "-c"))
	testutil.WantError(t, err, "history")
}
