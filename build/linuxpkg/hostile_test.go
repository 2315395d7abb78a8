package linuxpkg_test

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"pretag/build/internal/fixture"
)

// rpmOf is an rpm without digests whose header holds tags, each of a type and a
// number of values, over one store.
func rpmOf(store []byte, tags ...[3]uint32) []byte {
	magic := []byte{0x8e, 0xad, 0xe8, 0x01, 0, 0, 0, 0}
	b := append([]byte("\xed\xab\xee\xdb\x03"), make([]byte, 91)...)
	b = append(append(b, magic...), make([]byte, 8)...)
	b = append(b, magic...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(tags)))
	b = binary.BigEndian.AppendUint32(b, uint32(len(store)))
	for _, tag := range tags {
		for _, word := range []uint32{tag[0], tag[1], 0, tag[2]} {
			b = binary.BigEndian.AppendUint32(b, word)
		}
	}
	return append(b, store...)
}

// debOf is a deb with the data.
func debOf(tb testing.TB, data []byte) []byte {
	tb.Helper()
	var b bytes.Buffer
	b.WriteString("!<arch>\n")
	control := fixture.Tar(tb, fixture.File("control", "Package: a\nVersion: 1\nArchitecture: all\n"))
	for _, member := range []struct {
		name string
		body []byte
	}{{"debian-binary", []byte("2.0\n")}, {"control.tar", control}, {"data.tar", data}} {
		fmt.Fprintf(&b, "%-16s%-12d%-6d%-6d%-8o%-10d`\n%s", member.name, 0, 0, 0, 0o100644, len(member.body), member.body)
		b.Write(make([]byte, len(member.body)&1))
	}
	return b.Bytes()
}

// What a package claims costs no memory that it does not have itself.
func TestRefusesFloods(t *testing.T) {
	zeros := make([]byte, 32<<20)
	var many [][3]uint32
	for _, tag := range []uint32{1117, 1118, 1039, 1040, 1036, 1035, 1049, 1047} { // strings, all empty
		many = append(many, [3]uint32{tag, 8, 32 << 20})
	}
	long := func(n int) []byte {
		var entries []fixture.Entry
		for i := range n {
			entries = append(entries, fixture.Entry{Header: tar.Header{Name: fmt.Sprint(i, "/") + strings.Repeat("n", 900_000), Typeflag: tar.TypeReg, Format: tar.FormatPAX}})
		}
		return fixture.Tar(t, entries...)
	}
	for name, row := range map[string]struct {
		input []byte
		want  string
	}{
		"rpm: strings of nothing": {rpmOf(zeros, many...), "values, at most"},
		"rpm: header cut":         {rpmOf(zeros)[:96+16+16+1000], "unexpected EOF"},
		"rpm: header of 4 GiB":    {bytes.Replace(rpmOf(zeros), []byte{2, 0, 0, 0}, []byte{0xff, 0xff, 0xff, 0xff}, 1), "at most"},
		"deb: names of 900 kB":    {debOf(t, long(3)), "a path of 9"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "package")
			write(t, path, row.input)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, _, _, err := readAll(path)
			runtime.ReadMemStats(&after)
			if err == nil || !strings.Contains(err.Error(), row.want) || len(err.Error()) > 2000 {
				t.Errorf("error %.300v, want one that holds %q", err, row.want)
			}
			if used := after.TotalAlloc - before.TotalAlloc; used > 256<<20 {
				t.Errorf("%d MiB were allocated", used>>20)
			}
		})
	}
}
