package decompress_test

import (
	"encoding/base64"
	"encoding/binary"
	"hash/crc32"
	"strings"
	"testing"

	"pretag/build/testutil"
)

// What is merely not supported, or follows the stream, is not called corrupt or
// truncated, and the error says what to do.
func TestUnsupported(t *testing.T) {
	const plainText = "a root filesystem"
	behind := func(format, tail string) string {
		return string(testutil.Compress(t, format, []byte(plainText))) + tail
	}
	for name, row := range map[string]struct{ input, want string }{
		"xz, ARM64 filter":   {xzFilter(t, 0x0a), "unsupported xz stream: it uses the ARM64 filter, which newer versions of 7-Zip choose by themselves. Compress it again: xz -dc"},
		"xz, RISC-V filter":  {xzFilter(t, 0x0b), "unsupported xz stream: it uses the RISC-V filter"},
		"xz, unknown filter": {xzFilter(t, 0x3f), "it uses a filter or an option that is not supported"},
		// A frame with a dictionary ID (RFC 8878 3.1.1.1.3) and one raw block.
		"zstd, dictionary":        {"\x28\xb5\x2f\xfd\x21\x07\x01\x09\x00\x00x", "unsupported zstd stream: it needs a dictionary"},
		"gzip, a zero byte":       {behind("gzip", "\x00"), "1 zero bytes after the end of the gzip stream. Remove them"},
		"gzip, padded to 512":     {behind("gzip", strings.Repeat("\x00", 512)), "512 zero bytes after the end of the gzip stream"},
		"gzip, padded, then text": {behind("gzip", "\x00\x00x"), "other data after the end of the gzip stream"},
		"gzip, text":              {behind("gzip", "text"), "other data after the end of the gzip stream"},
		"gzip, second cut":        {behind("gzip", behind("gzip", "")[:5]), "truncated gzip stream"},
		"gzip, half a magic":      {behind("gzip", "\x1f"), "truncated gzip stream"},
		"xz, text":                {behind("xz", "text"), "other data after the end of the xz stream"},
		"xz, padded, then text":   {behind("xz", "\x00\x00\x00\x00 and a long text"), "other data after the end of the xz stream"},
		"xz, three zero bytes":    {behind("xz", "\x00\x00\x00"), "zero bytes after the end of the xz stream, and their number is not a multiple of 4"},
		"zstd, text":              {behind("zstd", "text"), "other data after the end of the zstd stream"},
		"lz4":                     {"\x04\x22\x4d\x18\x64\x40\xa7", "lz4 compression is not supported. Decompress it first: lz4 -dc"},
		"lz4, legacy":             {"\x02\x21\x4c\x18\x00", "old lz4 compression is not supported"},
		"lzip":                    {"LZIP\x01\x0c", "lzip compression is not supported"},
		"compress":                {"\x1f\x9d\x90", "compress (.Z) compression is not supported"},
	} {
		got, err := plain([]byte(row.input))
		if err == nil || !strings.Contains(err.Error(), row.want) || strings.Contains(err.Error(), "corrupt") || strings.Contains(row.want, "after") && strings.Contains(err.Error(), "truncated") {
			t.Errorf("%s: %q, error %v, want one that holds %q", name, got, err, row.want)
		}
	}
	for format, padding := range map[string]string{"gzip": "", "xz": "\x00\x00\x00\x00", "zstd": ""} {
		two := behind(format, padding+behind(format, padding))
		if got, err := plain([]byte(two)); err != nil || string(got) != plainText+plainText {
			t.Errorf("%s, two streams: %q, %v", format, got, err)
		}
	}
}

// xzFilter is a stream by xz 5.4.1 --arm64 --lzma2, with the ID of the filter changed.
func xzFilter(t *testing.T, id byte) string {
	t.Helper()
	b, err := base64.StdEncoding.DecodeString("/Td6WFoAAATm1rRGAgEKACEBFgB95z8lAQAQYSByb290IGZpbGVzeXN0ZW0AAAAA1ZNK1rUzH9cAASkRMgpwDh+2830BAAAAAARZWg==")
	if err != nil {
		t.Fatal(err)
	}
	header := b[12:20]
	header[2] = id
	binary.LittleEndian.PutUint32(b[20:], crc32.ChecksumIEEE(header))
	return string(b)
}
