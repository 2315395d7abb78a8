package archive_test

import (
	"archive/tar"
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"strings"
	"testing"

	"pretag/build/archive"
	"pretag/build/testutil"
)

func link(name, target string, typeflag byte) testutil.Entry {
	return testutil.Entry{Header: tar.Header{Name: name, Linkname: target, Typeflag: typeflag}}
}

// program is the head of an ELF file.
func program(name string, machine elf.Machine, data elf.Data) testutil.Entry {
	head := make([]byte, 64)
	copy(head, elf.ELFMAG)
	head[elf.EI_DATA] = byte(data)
	var order binary.ByteOrder = binary.LittleEndian
	if data == elf.ELFDATA2MSB {
		order = binary.BigEndian
	}
	order.PutUint16(head[18:], uint16(machine))
	return testutil.File(name, string(head))
}

func examine(layers ...[]byte) error {
	_, err := archive.Examine(context.Background(), archive.Spec{Rootfs: len(layers) == 1, GoArch: "amd64", Layers: layersOf(layers...)})
	return err
}

func TestRefusesEntries(t *testing.T) {
	good := testutil.File("usr/bin/good", "x")
	whole := testutil.Tar(t, good, testutil.File("etc/file", strings.Repeat("x", 2000)))
	sparse := testutil.Tar(t, testutil.File("sparse", ""))
	sparse[156] = tar.TypeGNUSparse
	copy(sparse[257:], "ustar  \x00")
	unknown := testutil.Tar(t, testutil.File("unknown", ""))
	unknown[156] = 'Z'
	huge := testutil.Tar(t, testutil.File("huge", ""))
	copy(huge[124:136], "\x80\x00\x00\x00\x10\x00\x00\x00\x00\x00\x00\x00") // base-256, 1 EiB

	for name, row := range map[string]struct {
		layer []byte
		want  string
	}{
		"nothing":                      {nil, "no end marker"},
		"no end marker":                {whole[:len(whole)-1024], "no end marker"},
		"half an end marker":           {whole[:len(whole)-512], "no end marker"},
		"cut in a body":                {whole[:2000], "entry 3: unexpected EOF (truncated tar)"},
		"cut in a header":              {whole[:1400], "unexpected EOF"},
		"cut between entries":          {whole[:1024], "no end marker"},
		"data after the end marker":    {append(bytes.Clone(whole), "rest"...), "data after the end marker"},
		"second archive":               {append(bytes.Clone(whole), whole...), "data after the end marker"},
		"damaged header":               {flip(whole, 3), "not a tar file"},
		"damaged second header":        {flip(whole, 1027), "entry 2: archive/tar: invalid tar header"},
		"text":                         {[]byte(strings.Repeat("<html>", 500)), "not a tar file"},
		"no entries":                   {make([]byte, 1024), "no entries"},
		"duplicate":                    {testutil.Tar(t, good, good), `"usr/bin/good": is in the layer twice`},
		"duplicate after cleaning":     {testutil.Tar(t, good, testutil.File("./usr//bin/./good", "")), "is in the layer twice"},
		"directory twice":              {testutil.Tar(t, testutil.Dir("usr/"), testutil.Dir("./usr")), "is in the layer twice"},
		"parent":                       {testutil.Tar(t, testutil.File("../evil", "")), "path contains"},
		"parent within":                {testutil.Tar(t, testutil.File("usr/../../evil", "")), "path contains"},
		"absolute":                     {testutil.Tar(t, testutil.File("/etc/passwd", "")), "absolute path"},
		"hard link out":                {testutil.Tar(t, link("l", "../../etc/passwd", tar.TypeLink)), "path contains"},
		"hard link, absolute":          {testutil.Tar(t, link("l", "/etc/passwd", tar.TypeLink)), "absolute path"},
		"dangling hard link":           {testutil.Tar(t, link("l", "nowhere", tar.TypeLink)), `dangling hard link to "nowhere"`},
		"hard link before its file":    {testutil.Tar(t, link("l", "usr/bin/good", tar.TypeLink), good), "dangling hard link"},
		"hard link to a directory":     {testutil.Tar(t, testutil.Dir("d"), link("l", "d", tar.TypeLink)), "dangling hard link"},
		"symbolic link out":            {testutil.Tar(t, link("a/l", "../../etc/passwd", tar.TypeSymlink)), "leads out of the root"},
		"symbolic link to nothing":     {testutil.Tar(t, link("l", "", tar.TypeSymlink)), "symbolic link to nothing"},
		"through a symbolic link":      {testutil.Tar(t, link("l", "/etc", tar.TypeSymlink), testutil.File("l/passwd", "")), `leads through the symbolic link "l"`},
		"through a file":               {testutil.Tar(t, good, testutil.File("usr/bin/good/x", "")), "which is not a directory"},
		"link in place of a directory": {testutil.Tar(t, good, link("usr", "/etc", tar.TypeSymlink)), "earlier entries are below it"},
		"root is a link":               {testutil.Tar(t, link("./", "/etc", tar.TypeSymlink)), "the root is not a directory"},
		"whiteout":                     {testutil.Tar(t, testutil.File("etc/.wh.passwd", "")), "whiteout in a root filesystem"},
		"opaque whiteout":              {testutil.Tar(t, testutil.File("etc/.wh..wh..opq", "")), "whiteout in a root filesystem"},
		"old GNU sparse":               {checksum(sparse), "old GNU sparse"},
		"unknown type":                 {checksum(unknown), `unknown type 'Z'`},
		"file of an exbibyte":          {checksum(huge), "claim more than"},
		"name of a megabyte":           {testutil.Tar(t, testutil.File(strings.Repeat("x/", 2500)+"x", "")), "name of 5001 bytes"},
		"programs for arm64":           {testutil.Tar(t, program("usr/bin/a", elf.EM_AARCH64, elf.ELFDATA2LSB)), "usr/bin/a is a program for arm64, want amd64"},
		"oci-archive":                  {testutil.Tar(t, testutil.File("first", ""), testutil.File("oci-layout", "{}")), "an image archive"},
		"docker-archive":               {testutil.Tar(t, testutil.File("first", ""), testutil.File("./manifest.json", "[]")), "an image archive"},
		"programs of a big endian":     {testutil.Tar(t, program("bin/a", elf.EM_S390, elf.ELFDATA2MSB)), "bin/a is a program for s390x"},
	} {
		t.Run(name, func(t *testing.T) {
			err := examine(row.layer)
			testutil.WantError(t, err, row.want)
		})
	}
}

func flip(b []byte, at int) []byte {
	b = bytes.Clone(b)
	b[at] ^= 0x40
	return b
}

// checksum fixes the checksum of the first header (POSIX pax, "ustar Interchange Format").
func checksum(b []byte) []byte {
	copy(b[148:156], "        ")
	sum := 0
	for _, c := range b[:512] {
		sum += int(c)
	}
	copy(b[148:156], []byte(strings.Repeat("0", 6)+"\x00 "))
	for i := 5; i >= 0; i-- {
		b[148+i] = byte('0' + sum&7)
		sum >>= 3
	}
	return b
}

func TestAcceptsEntries(t *testing.T) {
	lower := testutil.Tar(t, testutil.Dir("etc"), testutil.File("etc/a", "a"))
	sized := testutil.Tar(t, testutil.Entry{Header: tar.Header{Name: "bin/fifo", Typeflag: tar.TypeFifo}})
	copy(sized[124:], "00000000005")
	for name, layers := range map[string][][]byte{
		"odd but legal": {testutil.Tar(
			t,
			testutil.Dir("./"), link("bin", "usr/bin", tar.TypeSymlink), testutil.File("usr/bin/setuid", "x"),
			link("usr/bin/hard", "usr/bin/setuid", tar.TypeLink), link("etc/mtab", "../proc/self/mounts", tar.TypeSymlink),
			link("etc/abs", "/usr/../etc/x", tar.TypeSymlink), testutil.File("caf\xe9", "not UTF-8"),
			testutil.Entry{Header: tar.Header{Name: "dev/null", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3}},
			testutil.Entry{Header: tar.Header{Name: "run/fifo", Typeflag: tar.TypeFifo}},
			testutil.Entry{Header: tar.Header{Name: "x", PAXRecords: map[string]string{"SCHILY.xattr.security.capability": "\x01\x00\x00\x02"}}},
			testutil.Entry{Header: tar.Header{Typeflag: tar.TypeXGlobalHeader, PAXRecords: map[string]string{"comment": "x"}}},
			testutil.Entry{Header: tar.Header{Name: "ids", Uid: 1 << 30, Gid: 1 << 30, Format: tar.FormatGNU}},
		)},
		"a manifest of its own": {testutil.Tar(t, testutil.File("manifest.json", "{}"), testutil.File("etc/a", "a"))},
		"padding":               {append(testutil.Tar(t, testutil.File("a", "a")), make([]byte, 10240)...)},
		"foreign next to right": {testutil.Tar(t, program("usr/bin/qemu", elf.EM_ARM, elf.ELFDATA2LSB), program("usr/bin/sh", elf.EM_X86_64, elf.ELFDATA2LSB))},
		"foreign elsewhere":     {testutil.Tar(t, program("usr/lib/firmware/a", elf.EM_ARM, elf.ELFDATA2LSB))},
		"layers of an image":    {lower, testutil.Tar(t, testutil.File("etc/.wh.a", ""), testutil.File("etc/b", "b"))},
		"fifo with a size":      {checksum(sized)},
		"the same layer twice":  {lower, lower},
	} {
		t.Run(name, func(t *testing.T) {
			if err := examine(layers...); err != nil {
				t.Error(err)
			}
		})
	}
	upper := testutil.Tar(t, link("etc/b", "etc/a", tar.TypeLink))
	for name, layers := range map[string][][]byte{
		"lower layer": {lower, upper}, "upper layer": {upper, lower},
		"later entry": {lower, testutil.Tar(t, link("l", "a", tar.TypeLink), testutil.File("a", "a"))},
	} {
		t.Run(name, func(t *testing.T) { testutil.WantError(t, examine(layers...), "dangling hard link") })
	}
}

func FuzzExamine(f *testing.F) {
	f.Add(testutil.Tar(f, testutil.Dir("usr"), testutil.File("usr/a", "a"), link("l", "usr/a", tar.TypeLink)))
	f.Add(testutil.Tar(f, link("l", "../x", tar.TypeSymlink)))
	f.Fuzz(func(t *testing.T, layer []byte) {
		if examine(layer) == nil && len(layer)%512 != 0 {
			t.Errorf("accepted %d bytes, which is not a whole number of blocks", len(layer))
		}
	})
}
