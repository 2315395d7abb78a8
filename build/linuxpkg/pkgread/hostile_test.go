package pkgread_test

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"pretag/build/testutil"
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

// minimalControl has the fields that a deb must have.
const minimalControl = "Package: a\nVersion: 1\nArchitecture: all\n"

// debOf is a deb with the control file, the digests and the data.
func debOf(tb testing.TB, control, sums string, data []byte) []byte {
	tb.Helper()
	deb := []byte("!<arch>\n")
	deb = appendMember(deb, "debian-binary", []byte("2.0\n"))
	deb = appendMember(deb, "control.tar", testutil.Tar(tb, testutil.File("control", control), testutil.File("md5sums", sums)))
	return appendMember(deb, "data.tar", data)
}

// appendMember adds a member to an ar archive.
func appendMember(archive []byte, name string, body []byte) []byte {
	archive = fmt.Appendf(archive, "%-16s%-12d%-6d%-6d%-8o%-10d`\n%s", name, 0, 0, 0, 0o100644, len(body), body)
	return append(archive, make([]byte, len(body)&1)...)
}

// The members of a deb are no others than its ar archive has.
func TestRefusesMembers(t *testing.T) {
	good := string(debOf(t, minimalControl, "", testutil.Tar(t, testutil.File("a", ""))))
	size := strings.Index(good, "4         `") // of debian-binary
	for name, row := range map[string]struct {
		deb  string
		want string
	}{
		"none":               {good[:8], "unexpected EOF"},
		"header cut":         {good + "cont", "header of member 4: unexpected EOF"},
		"size is no number":  {good[:size] + "x" + good[size+1:], `member "debian-binary": strconv.ParseInt`},
		"size is negative":   {good[:size] + "-4" + good[size+2:], "-4 bytes"},
		"size of 10 GB":      {good[:size] + "9999999999" + good[size+10:], "unexpected EOF"},
		"no end of a header": {strings.Replace(good, "`", " ", 1), "no end mark"},
		"another first":      {"!<arch>\n" + good[8+60+4:], "begins with control.tar"},
		"another version":    {strings.Replace(good, "2.0\n", "3.0\n", 1), "want debian-binary 2.0"},
		"no data":            {strings.Replace(good, "data.tar", "date.tar", 1), "no data.tar"},
		"no control":         {strings.Replace(good, "control.tar", "control.tgz", 1), "no control.tar"},
		"compressed by lzip": {strings.Replace(good, "data.tar   ", "data.tar.lz", 1), "data.tar.lz: unknown compression"},
		"without number":     {good + strings.Repeat(string(appendMember(nil, "_gpg", nil)), 100), "more than 64 members"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "package")
			write(t, path, []byte(row.deb))
			if _, _, _, err := readAll(path); err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("error %v, want one that holds %q", err, row.want)
			}
		})
	}
	t.Run("bare", func(t *testing.T) { // the fields that nobody needs, an odd end, a slash
		bare := strings.ReplaceAll(good, "0           0     0     100644  ", strings.Repeat(" ", 32))
		bare = strings.Replace(bare, "data.tar ", "data.tar/", 1) + string(appendMember(nil, "_gpgorigin", []byte("odd")))
		path := filepath.Join(t.TempDir(), "package")
		write(t, path, []byte(strings.TrimRight(bare, "\x00")))
		m, files, _, err := readAll(path)
		if err != nil || len(files) != 1 || len(m.Signatures) != 1 {
			t.Errorf("%d files, %d signatures, %v", len(files), len(m.Signatures), err)
		}
	})
}

// What a package claims costs no memory that it does not have itself.
func TestRefusesFloods(t *testing.T) {
	zeros := make([]byte, 32<<20)
	var many [][3]uint32
	for _, tag := range []uint32{1117, 1118, 1039, 1040, 1036, 1035, 1049, 1047} { // strings, all empty
		many = append(many, [3]uint32{tag, 8, 32 << 20})
	}
	long := func(n int) []byte {
		var entries []testutil.Entry
		for i := range n {
			entries = append(entries, testutil.Entry{Header: tar.Header{Name: fmt.Sprint(i, "/") + strings.Repeat("n", 900_000), Typeflag: tar.TypeReg, Format: tar.FormatPAX}})
		}
		return testutil.Tar(t, entries...)
	}
	for name, row := range map[string]struct {
		input []byte
		want  string
	}{
		"rpm: strings of nothing": {rpmOf(zeros, many...), "values, at most"},
		"rpm: tags that share":    {rpmOf(zeros, [3]uint32{1000, 8, 1 << 18}, [3]uint32{1001, 8, 1 << 18}), "tag 1001 at offset 0 overlaps the tag before it, which ends at 262144"},
		"rpm: header cut":         {rpmOf(zeros)[:96+16+16+1000], "unexpected EOF"},
		"rpm: header of 4 GiB":    {bytes.Replace(rpmOf(zeros), []byte{2, 0, 0, 0}, []byte{0xff, 0xff, 0xff, 0xff}, 1), "at most"},
		"deb: names of 900 kB":    {debOf(t, minimalControl, "", long(3)), "a path of 9"},
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
