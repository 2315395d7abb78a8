//go:build acceptance

package tarball_test

import (
	"os"
	"path/filepath"
	"testing"

	"pretag/build/testutil"
)

// compressed is b in every compression, as the usual programs write it.
func compressed(t *testing.T, b []byte) map[string][]byte {
	t.Helper()
	half := len(b) / 2
	return map[string][]byte{
		"none":             b,
		"gzip":             testutil.Filter(t, b, "gzip", "-c"),
		"gzip members":     append(testutil.Filter(t, b[:half], "gzip", "-c"), testutil.Filter(t, b[half:], "gzip", "-c")...),
		"xz":               testutil.Filter(t, b, "xz", "-c"),
		"xz -8e, crc32":    testutil.Filter(t, b, "xz", "-8e", "-C", "crc32", "-c"),
		"xz sha256":        testutil.Filter(t, b, "xz", "-C", "sha256", "-c"),
		"xz x86 filter":    testutil.Filter(t, b, "xz", "--x86", "--lzma2", "-c"),
		"xz streams":       append(append(testutil.Filter(t, b[:half], "xz", "-c"), make([]byte, 8)...), testutil.Filter(t, b[half:], "xz", "-c")...),
		"xz by 7z, 128MiB": sevenZip(t, b),
		"zstd":             testutil.Filter(t, b, "zstd", "-c"),
		"zstd --long":      testutil.Filter(t, b, "zstd", "--long=27", "-19", "-c"),
		"zstd frames":      append(testutil.Filter(t, b[:half], "zstd", "-c"), testutil.Filter(t, b[half:], "zstd", "-c")...),
		"zstd skippable":   append([]byte("\x5a\x2a\x4d\x18\x04\x00\x00\x00skip"), testutil.Filter(t, b, "zstd", "-c")...),
		"bzip2":            testutil.Filter(t, b, "bzip2", "-c"),
	}
}

func sevenZip(t *testing.T, b []byte) []byte {
	t.Helper()
	out := filepath.Join(t.TempDir(), "a.xz")
	testutil.Filter(t, b, "7z", "a", "-txz", "-m0=LZMA2:d=128m", "-si", out)
	body, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return body
}

func TestRootfsByPrograms(t *testing.T) { readsRootfs(t, compressed) }

// What asks for much memory is in TestHostileInputs of package build.
func TestOpenSaysWhatItIsByPrograms(t *testing.T) {
	opensWithError(t, append(testutil.Filter(t, testutil.Rootfs(t, "x"), "bzip2", "-c"), "garbage!"...), "other data after the end of the bzip2 stream")
}
