package archive_test

import (
	"archive/tar"
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"pretag/build/testutil"
)

// block is one tar header by hand, with the fields that archive/tar would not write.
func block(name, prefix, link string, typeflag byte, size int) []byte {
	b := make([]byte, 512)
	copy(b, name)
	copy(b[100:], "0000644\x000000000\x000000000\x00")
	copy(b[124:], fmt.Sprintf("%011o\x0000000000000\x00", size))
	b[156] = typeflag
	copy(b[157:], link)
	copy(b[257:], "ustar\x0000")
	copy(b[345:], prefix)
	return checksum(b)
}

// raw is a tar file of blocks by hand: bodies are padded, and the end is marked.
func raw(parts ...[]byte) []byte {
	var b []byte
	for _, part := range parts {
		b = append(b, part...)
		b = append(b, make([]byte, -len(b)&511)...)
	}
	return append(b, make([]byte, 1024)...)
}

// pax is an extended header of records, keys and values in turn.
func pax(pairs ...string) []byte {
	var body string
	for i := 0; i < len(pairs); i += 2 {
		record := fmt.Sprintf(" %s=%s\n", pairs[i], pairs[i+1])
		size := len(record) + 1
		for size != len(record)+len(fmt.Sprint(size)) {
			size = len(record) + len(fmt.Sprint(size))
		}
		body += fmt.Sprint(size) + record
	}
	return raw(block("x", "", "", tar.TypeXHeader, len(body)), []byte(body))[:512+(len(body)+511)&^511]
}

// long is a GNU long name ('L') or long link ('K').
func long(typeflag byte, name string) []byte {
	b := raw(block("././@LongLink", "", "", typeflag, len(name)+1), []byte(name+"\x00"))
	return b[:len(b)-1024]
}

// A path out of the root is refused however it is spelled.
func TestRefusesEscapesInEveryEncoding(t *testing.T) {
	file := block("f", "", "", tar.TypeReg, 0)
	symlink, hardlink := block("l", "", "t", tar.TypeSymlink, 0), block("l", "", "f", tar.TypeLink, 0)
	for name, row := range map[string]struct {
		layer []byte
		want  string
	}{
		"name":                    {raw(block("../evil", "", "", tar.TypeReg, 0)), "path contains"},
		"name of a directory":     {raw(block("../evil/", "", "", tar.TypeDir, 0)), "path contains"},
		"V7, name alone":          {raw(v7(block("../evil", "", "", 0, 0))), "path contains"},
		"V7, absolute":            {raw(v7(block("/etc/passwd", "", "", 0, 0))), "absolute path"},
		"two dots alone":          {raw(block("..", "", "", tar.TypeDir, 0)), "path contains"},
		"prefix":                  {raw(block("evil", "..", "", tar.TypeReg, 0)), "path contains"},
		"prefix and name":         {raw(block("../../evil", "usr", "", tar.TypeReg, 0)), "path contains"},
		"prefix, absolute":        {raw(block("passwd", "/etc", "", tar.TypeReg, 0)), "absolute path"},
		"PAX path":                {raw(pax("path", "../evil"), file), "path contains"},
		"PAX path, absolute":      {raw(pax("path", "/etc/passwd"), file), "absolute path"},
		"PAX path twice":          {raw(pax("path", "good", "path", "a/../../evil"), file), "path contains"},
		"PAX path, NUL":           {raw(pax("path", "good\x00/../evil"), file), "not a tar file"},
		"PAX linkpath":            {raw(pax("linkpath", "../../etc/passwd"), symlink), "leads out of the root"},
		"PAX linkpath, hard":      {raw(file, pax("linkpath", "../f"), hardlink), "path contains"},
		"PAX, no key":             {raw(pax("", "x"), file), "not a tar file"},
		"PAX, wrong length":       {raw(pax("path", "good")[:512], []byte("99 path=good\n"), file), "not a tar file"},
		"PAX over PAX":            {raw(pax("path", "good"), pax("path", "../evil"), file), "path contains"},
		"PAX sparse name":         {raw(pax("GNU.sparse.major", "0", "GNU.sparse.minor", "1", "GNU.sparse.name", "../evil", "GNU.sparse.size", "0", "GNU.sparse.numblocks", "0", "GNU.sparse.map", ""), file), "path contains"},
		"GNU long name":           {raw(long(tar.TypeGNULongName, strings.Repeat("a/", 60)+"../../evil"), gnu(file)), "path contains"},
		"GNU long link":           {raw(long(tar.TypeGNULongLink, strings.Repeat("../", 60)+"etc"), gnu(symlink)), "leads out of the root"},
		"GNU long hard link":      {raw(file, long(tar.TypeGNULongLink, "../"+strings.Repeat("a", 150)), gnu(hardlink)), "path contains"},
		"size below zero":         {raw(sized(block("f", "", "", tar.TypeReg, 0), "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00")), "not a tar file"},
		"size beyond 64 bits":     {raw(sized(block("f", "", "", tar.TypeReg, 0), "\x80\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00")), "not a tar file"},
		"size no number":          {raw(sized(block("f", "", "", tar.TypeReg, 0), "0000000000z\x00")), "not a tar file"},
		"PAX size of 1 EiB":       {raw(pax("size", "1152921504606846976"), file), "claim more than"},
		"PAX size below zero":     {raw(pax("size", "-1"), file), "not a tar file"},
		"many sizes":              {raw(pax("size", "8589934000"), file), "unexpected EOF"},
		"link, size of 1 EiB":     {raw(pax("size", "1152921504606846976"), symlink), "claim more than"},
		"link through parents":    {raw(block("a/b/l", "", "../../../etc", tar.TypeSymlink, 0)), "leads out of the root"},
		"file over a link":        {raw(block("l", "", "/etc", tar.TypeSymlink, 0), block("l", "", "", tar.TypeReg, 0)), "is in the layer twice"},
		"link over a directory":   {raw(block("d/", "", "", tar.TypeDir, 0), block("d", "", "/etc", tar.TypeSymlink, 0)), "is in the layer twice"},
		"through a hard link":     {raw(block("l", "", "/etc", tar.TypeSymlink, 0), block("h", "", "l", tar.TypeLink, 0), block("h/passwd", "", "", tar.TypeReg, 0)), `leads through the symbolic link "h"`},
		"file called a directory": {raw(block("d/", "", "", tar.TypeReg, 0), block("d", "", "", tar.TypeReg, 0)), "is in the layer twice"},
		"root is a file":          {raw(block("./", "", "", tar.TypeReg, 512), make([]byte, 512)), "the root is not a directory"},
		"padding of one byte":     {append(raw(file), 0), "ends within a block"},
		"no name":                 {raw(block("", "", "", tar.TypeReg, 0)), "empty name"},
	} {
		t.Run(name, func(t *testing.T) {
			err := examine(row.layer)
			testutil.WantError(t, err, row.want)
			if err != nil && len(err.Error()) > 1000 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
		})
	}
}

// v7 takes the magic away, gnu gives GNU's, sized sets the size's bytes.
func v7(b []byte) []byte { copy(b[257:265], make([]byte, 8)); return checksum(b) }

func gnu(b []byte) []byte {
	b = bytes.Clone(b)
	copy(b[257:], "ustar  \x00")
	return checksum(b)
}

func sized(b []byte, size string) []byte { copy(b[124:136], size); return checksum(b) }

// A name that only looks like an escape is a name like any other on Linux.
func TestAcceptsOddNames(t *testing.T) {
	for _, name := range []string{
		`..\..\evil`, `C:\evil`, "...", "..a/b", "a../b", "\u2024\u2024/evil", "..%2fevil", "a\nb", "a b", "-rf", "~root",
		"caf\xe9", "\xff\xfe", "con", "a/./b", "a//b", "./a", "a\x1b[2Jb", strings.Repeat("n", 255), "usr/" + strings.Repeat("d/", 1000) + "f",
	} {
		if err := examine(testutil.Tar(t, testutil.File(name, "x"))); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// Of all type flags those of POSIX are taken but 7, which docker and podman
// refuse, and what archive/tar resolves itself.
func TestTypeFlags(t *testing.T) {
	const taken, resolved = "\x000123456", "xgLK"
	for flag := range 256 {
		if strings.ContainsRune(resolved, rune(flag)) {
			continue
		}
		err := examine(raw(block("t", "", "", tar.TypeReg, 0), block("a", "", "t", byte(flag), 0)))
		if want := strings.IndexByte(taken, byte(flag)) >= 0; (err == nil) != want {
			t.Errorf("type %q: error %v, want it taken: %t", rune(flag), err, want)
		}
	}
}

// Every form in which GNU tar says sparse: an honest file passes, one that claims
// an exbibyte does not.
func TestSparse(t *testing.T) {
	form := func(version, size, first string) []byte {
		switch body := "1\n" + first + "\n4\n"; version {
		case "0.0":
			return raw(pax("GNU.sparse.size", size, "GNU.sparse.numblocks", "1", "GNU.sparse.offset", first, "GNU.sparse.numbytes", "4"), block("f", "", "", tar.TypeReg, 4), []byte("data"))
		case "0.1":
			return raw(pax("GNU.sparse.major", "0", "GNU.sparse.minor", "1", "GNU.sparse.name", "f", "GNU.sparse.size", size, "GNU.sparse.numblocks", "1", "GNU.sparse.map", first+",4"), block("f", "", "", tar.TypeReg, 4), []byte("data"))
		default:
			return raw(pax("GNU.sparse.major", "1", "GNU.sparse.minor", "0", "GNU.sparse.name", "f", "GNU.sparse.realsize", size), block("f", "", "", tar.TypeReg, 516), append([]byte(body), make([]byte, 512-len(body))...), []byte("data"))
		}
	}
	for _, version := range []string{"0.0", "0.1", "1.0"} {
		if err := examine(form(version, "1048576", "4096")); err != nil {
			t.Errorf("%s: %v", version, err)
		}
		for _, size := range []string{"1152921504606846976", "9223372036854775807"} {
			testutil.WantError(t, examine(form(version, size, "0")), "claim more than")
		}
		for what, layer := range map[string][]byte{
			"size below zero": form(version, "-1", "0"), "data behind the end": form(version, "10", "4096"), "offset below zero": form(version, "10", "-5"),
			"size no number": form(version, "x", "0"), "offset beyond 64 bits": form(version, "10", "99999999999999999999"),
		} {
			if err := examine(layer); err == nil {
				t.Errorf("%s, %s: accepted", version, what)
			}
		}
	}
}

// What costs a few bytes and would cost much memory.
func TestRefusesFloods(t *testing.T) {
	flood := func(n int, entry func(int) []byte) []byte {
		var b bytes.Buffer
		for i := range n {
			b.Write(entry(i))
		}
		return append(b.Bytes(), make([]byte, 1024)...)
	}
	for name, row := range map[string]struct {
		layer []byte
		want  string
	}{
		"PAX records of 2 MiB":   {raw(pax("comment", strings.Repeat("x", 2<<20)), block("f", "", "", tar.TypeReg, 0)), "header field too long"},
		"GNU long name of 2 MiB": {raw(long(tar.TypeGNULongName, strings.Repeat("x", 2<<20)), block("f", "", "", tar.TypeReg, 0)), "header field too long"},
		"PAX path of 1 MB":       {raw(pax("path", strings.Repeat("x/", 500_000)), block("f", "", "", tar.TypeReg, 0)), "name of 1000000 bytes"},
		"PAX link of 1 MB":       {raw(pax("linkpath", strings.Repeat("x/", 500_000)), block("f", "", "", tar.TypeSymlink, 0)), "link of 1000000 bytes"},
		"sparse map of 2 MiB": {raw(pax("GNU.sparse.major", "1", "GNU.sparse.minor", "0", "GNU.sparse.name", "f", "GNU.sparse.realsize", "1"),
			block("f", "", "", tar.TypeReg, 4<<20), []byte("500000\n"+strings.Repeat("0\n", 2<<20))), "sparse map too long"},
		// 2,000 directories each: 600 kB of names, 300,000 paths
		"directories implied by names": {flood(150, func(i int) []byte {
			return append(pax("path", fmt.Sprintf("%07d/", i)+strings.Repeat("a/", 2000)+"f"), block("f", "", "", tar.TypeReg, 0)...)
		}), "more than 262144 paths"},
	} {
		t.Run(name, func(t *testing.T) {
			err := examine(row.layer)
			testutil.WantError(t, err, row.want)
			if err != nil && len(err.Error()) > 2000 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
		})
	}
}

// A docker-archive that is a few kB and would be read into gigabytes.
func TestReadRefusesFloods(t *testing.T) {
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	zeros := func(n int) []byte {
		const frame = 16 << 20
		return append(bytes.Repeat(w.EncodeAll(make([]byte, frame), nil), n/frame), w.EncodeAll(make([]byte, n%frame), nil)...)
	}
	many := func(n int, size int, name string) []byte {
		var b []byte
		body := zeros(size)
		for i := range n {
			b = append(w.EncodeAll(block(fmt.Sprintf(name, i), "", "", tar.TypeReg, size), b), body...)
		}
		return append(b, zeros(1024)...)
	}
	for name, row := range map[string]struct {
		input []byte
		want  string
	}{
		"a config of 5 MiB":       {many(1, 5<<20, "c%d.json"), "more than 4194304 bytes"},
		"100 configs of 4 MiB":    {many(100, 4<<20, "c%d.json"), "bytes together with those before it"},
		"20,000 members":          {many(20_000, 0, "c%d.json"), "more than 10000 members"},
		"a layer of zeros, 1 GiB": {many(1, 1<<30, "l%d.tar"), "times its size"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := read(t, row.input)
			testutil.WantError(t, err, row.want)
		})
	}
}
