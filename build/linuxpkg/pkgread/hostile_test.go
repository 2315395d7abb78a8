package pkgread_test

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"pretag/build/testutil"
)

// A tag of an rpm header: number, type, count and values.
type tag struct {
	number, kind, count uint32
	data                []byte
}

// rpmOf makes an rpm without signatures and digests of the header.
func rpmOf(payload []byte, tags ...tag) []byte {
	magic := []byte{0x8e, 0xad, 0xe8, 0x01, 0, 0, 0, 0}
	b := append([]byte("\xed\xab\xee\xdb\x03"), make([]byte, 91)...)
	b = append(append(b, magic...), make([]byte, 8)...)
	var index, store []byte
	for _, tag := range tags {
		store = append(store, make([]byte, -len(store)&3)...)
		for _, word := range []uint32{tag.number, tag.kind, uint32(len(store)), tag.count} {
			index = binary.BigEndian.AppendUint32(index, word)
		}
		store = append(store, tag.data...)
	}
	b = append(b, magic...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(tags)))
	b = binary.BigEndian.AppendUint32(b, uint32(len(store)))
	return append(append(append(b, index...), store...), payload...)
}

func text(number uint32, value string) tag { return tag{number, 6, 1, []byte(value + "\x00")} }

func word(number, value uint32) tag {
	return tag{number, 4, 1, binary.BigEndian.AppendUint32(nil, value)}
}

// oneFile is the tags of a package with the file /f.
func oneFile(size uint64, digest string, more ...tag) []tag {
	return append([]tag{
		text(1000, "n"), text(1001, "1"), text(1022, "noarch"),
		{1030, 3, 1, []byte{0x81, 0xa4}},
		word(1034, 0), text(1035, digest), text(1036, ""), word(1037, 0), text(1039, "root"), text(1040, "root"),
		word(1116, 0), text(1117, "f"), text(1118, "/"),
		{5008, 5, 1, binary.BigEndian.AppendUint64(nil, size)},
	}, more...)
}

// newc is a cpio archive with the file ./f and its body.
func newc(body string) []byte {
	var b bytes.Buffer
	for _, e := range [][2]string{{"./f", body}, {"TRAILER!!!", ""}} {
		fmt.Fprintf(&b, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00", 1, 0o100644, 0, 0, 1, 0, len(e[1]), 0, 0, 0, 0, len(e[0])+1, 0, e[0])
		b.Write(make([]byte, -b.Len()&3))
		b.WriteString(e[1])
		b.Write(make([]byte, -b.Len()&3))
	}
	return b.Bytes()
}

// What cannot be checked or read is an error, not a success.
func TestUnsupported(t *testing.T) {
	sum := fmt.Sprintf("%x", sha256.Sum256([]byte("body")))
	for name, row := range map[string]struct {
		rpm  []byte
		want string
	}{
		"whole":                    {rpmOf(newc("body"), oneFile(4, sum, word(5011, 8))...), ""},
		"wrong digest":             {rpmOf(newc("bady"), oneFile(4, sum, word(5011, 8))...), "digest a372f0d"},
		"wrong size":               {rpmOf(newc("bod"), oneFile(4, sum, word(5011, 8))...), "/f: 3 bytes, want 4 as the header says"},
		"unknown digest":           {rpmOf(newc("body"), oneFile(4, sum, word(5011, 99))...), "header: /f: digest algorithm 99 is not supported"},
		"unknown payload digest":   {rpmOf(newc("body"), oneFile(4, "", text(5092, sum), word(5093, 99))...), "header: digest algorithm 99 is not supported"},
		"payload digest":           {rpmOf(newc("body"), oneFile(4, "", text(5092, fmt.Sprintf("%x", sha256.Sum256(newc("body")))))...), ""},
		"wrong payload digest":     {rpmOf(newc("body"), oneFile(4, "", text(5092, sum))...), "payload: digest "},
		"a file of 5 GiB":          {rpmOf([]byte("07070X00000000"+strings.Repeat("\x00", 200)), oneFile(5<<30, sum, word(5011, 8))...), "payload: rpm's own cpio format for files above 4 GiB (07070X) is not supported"},
		"another payload format":   {rpmOf(nil, text(1000, "n"), text(1001, "1"), text(1022, "noarch"), text(1124, "drpm")), `payload has the format "drpm", only cpio is supported`},
		"another compression":      {rpmOf(newc("body"), oneFile(4, sum, word(5011, 8), text(1125, "xz"))...), "payload is none, want xz as the package says"},
		"a file without its tags":  {rpmOf(nil, oneFile(4, sum)[:13]...), "header: 1 files, but 0 values of one of their tags"},
		"not in the payload":       {rpmOf([]byte(strings.Replace(string(newc("body")), "./f", "./g", 1)), oneFile(4, "")...), `payload: "./g" is not in the header`},
		"a payload without a file": {rpmOf(newc("")[116:], oneFile(4, "")...), "/f: listed in the header, missing in the payload"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "package")
			write(t, path, row.rpm)
			_, files, _, err := readAll(path)
			if row.want == "" && (err != nil || string(files["/f"]) != "body") {
				t.Errorf("files %q, error %v", files, err)
			}
			if row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want)) {
				t.Errorf("error %v, want one that holds %q", err, row.want)
			}
		})
	}
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
		"size not a number":  {good[:size] + "x" + good[size+1:], `member "debian-binary": its size is "x", want a number`},
		"size is negative":   {good[:size] + "-4" + good[size+2:], `its size is "-4", want a number`},
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
	zeros := make([]byte, 1<<20)
	var many []tag
	for _, number := range []uint32{1117, 1118, 1039, 1040, 1036, 1035, 1049, 1047} { // strings, all empty
		many = append(many, tag{number, 8, 1 << 20, zeros})
	}
	shared := rpmOf(nil, tag{1118, 8, 1 << 18, zeros[:1<<18]}, tag{1117, 8, 1, nil})
	copy(shared[96+16+16+16+8:], make([]byte, 4)) // the second tag's offset
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
		"rpm: strings of nothing": {rpmOf(nil, many...), "values, at most"},
		"rpm: tags that share":    {shared, "tag 1117 at offset 0 overlaps the tag before it, which ends at 262144"},
		"rpm: header cut":         {rpmOf(nil, tag{1000, 7, 1000, zeros[:1000]})[:96+16+16+500], "unexpected EOF"},
		"rpm: header of 4 GiB":    {bytes.Replace(rpmOf(nil, tag{1000, 7, 1 << 20, zeros}), []byte{0, 0x10, 0, 0}, []byte{0xff, 0xff, 0xff, 0xff}, 1), "1 tags and 4294967295 bytes, at most"},
		"deb: names of 900 kB":    {debOf(t, minimalControl, "", long(3)), "has 9000"},
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
