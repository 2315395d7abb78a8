package pkgread_test

import (
	"bytes"
	"encoding/binary"
	"path/filepath"
	"testing"

	"pretag/build/release"
	"pretag/build/testutil"
)

// FuzzHeader changes the header of an rpm that has no digest of it.
func FuzzHeader(f *testing.F) {
	const lead = 96
	magic := []byte{0x8e, 0xad, 0xe8, 0x01, 0, 0, 0, 0}
	unsigned := append(append([]byte("\xed\xab\xee\xdb\x03"), make([]byte, lead-5)...), append(bytes.Clone(magic), make([]byte, 8)...)...)
	data := packages(f)[release.RPM]
	at := lead + bytes.Index(data[lead+1:], magic) + 1
	words := data[at+8:]
	size := 16 + 16*int(binary.BigEndian.Uint32(words)) + int(binary.BigEndian.Uint32(words[4:]))
	f.Add(data[at+8:at+size], data[at+size:])
	path := filepath.Join(f.TempDir(), "fuzz.rpm")
	f.Fuzz(func(t *testing.T, header, payload []byte) {
		write(t, path, bytes.Join([][]byte{unsigned, magic, header, payload}, nil))
		_, _, _, _ = readAll(path) // neither panics nor takes for ever
	})
}

// FuzzControl changes what a deb says of itself, and its files.
func FuzzControl(f *testing.F) {
	f.Add("Package: a\nVersion: 1:2-3\nArchitecture: all\nDescription: b\n c\n .\n", "d41d8cd98f00b204e9800998ecf8427e  a\n", testutil.Tar(f, testutil.Dir("./"), testutil.File("./a", "")))
	f.Add("Package: a\n", "", []byte{})
	path := filepath.Join(f.TempDir(), "fuzz.deb")
	f.Fuzz(func(t *testing.T, control, sums string, data []byte) {
		write(t, path, debOf(t, control, sums, data))
		_, _, _, _ = readAll(path) // neither panics nor takes for ever
	})
}
