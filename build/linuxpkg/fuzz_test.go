package linuxpkg_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"pretag/build/internal/fixture"
)

// FuzzHeader changes the header of an rpm that has no digest of it.
func FuzzHeader(f *testing.F) {
	dir := f.TempDir()
	packages := build(f, options(f, dir), fixture.Archives(f, dir, "alpine-x86_64")).Packages
	const lead = 96
	magic := []byte{0x8e, 0xad, 0xe8, 0x01, 0, 0, 0, 0}
	unsigned := append(append([]byte("\xed\xab\xee\xdb\x03"), make([]byte, lead-5)...), append(bytes.Clone(magic), make([]byte, 8)...)...)
	for _, p := range packages {
		if p.Format != "rpm" {
			continue
		}
		data, err := os.ReadFile(p.Path)
		if err != nil {
			f.Fatal(err)
		}
		at := lead + bytes.Index(data[lead+1:], magic) + 1
		words := data[at+8:]
		size := 16 + 16*int(binary.BigEndian.Uint32(words)) + int(binary.BigEndian.Uint32(words[4:]))
		f.Add(data[at+8:at+size], data[at+size:])
	}
	path := filepath.Join(dir, "fuzz.rpm")
	f.Fuzz(func(t *testing.T, header, payload []byte) {
		write(t, path, bytes.Join([][]byte{unsigned, magic, header, payload}, nil))
		_, _, _, _ = readAll(path) // neither panics nor takes for ever
	})
}

// FuzzControl changes what a deb says of itself, and its files.
func FuzzControl(f *testing.F) {
	f.Add("Package: a\nVersion: 1:2-3\nArchitecture: all\nDescription: b\n c\n .\n", "d41d8cd98f00b204e9800998ecf8427e  a\n", fixture.Tar(f, fixture.Dir("./"), fixture.File("./a", "")))
	f.Add("Package: a\n", "", []byte{})
	path := filepath.Join(f.TempDir(), "fuzz.deb")
	f.Fuzz(func(t *testing.T, control, sums string, data []byte) {
		var b bytes.Buffer
		b.WriteString("!<arch>\n")
		for _, member := range []struct {
			name string
			body []byte
		}{
			{"debian-binary", []byte("2.0\n")}, {"control.tar", fixture.Tar(t, fixture.File("control", control), fixture.File("md5sums", sums))}, {"data.tar", data},
		} {
			fmt.Fprintf(&b, "%-16s%-12d%-6d%-6d%-8o%-10d`\n%s", member.name, 0, 0, 0, 0o100644, len(member.body), member.body)
			b.Write(make([]byte, len(member.body)&1))
		}
		write(t, path, b.Bytes())
		_, _, _, _ = readAll(path) // neither panics nor takes for ever
	})
}
