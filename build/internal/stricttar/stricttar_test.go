package stricttar_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"pretag/build/internal/stricttar"
	"pretag/build/testutil"
)

// read reads a tar file to its end, with and without seeking.
func read(t *testing.T, b []byte) error {
	t.Helper()
	var errs [2]error
	for i, r := range []io.Reader{bytes.NewReader(b), struct{ io.Reader }{bytes.NewReader(b)}} {
		tr := stricttar.NewReader(r)
		for errs[i] == nil {
			_, errs[i] = tr.Next()
		}
		if errors.Is(errs[i], io.EOF) {
			errs[i] = nil
		}
	}
	if (errs[0] == nil) != (errs[1] == nil) {
		t.Errorf("%v with seeking, %v without", errs[0], errs[1])
	}
	return errs[0]
}

// A long name or a pax header must be followed by the entry that it belongs to.
func TestOrphans(t *testing.T) {
	long := strings.Repeat("n/", 150) + "f"
	file := testutil.File("f", "body")
	format := func(name string, format tar.Format) []byte {
		return testutil.Tar(t, testutil.Entry{Header: tar.Header{Name: name, Typeflag: tar.TypeReg, Format: format}})
	}
	end := make([]byte, 1024)
	// The headers of the long name without the last 512 bytes, those of the entry.
	orphan := func(b []byte) []byte { return bytes.Clone(b[:len(b)-1024-512]) }
	gnu, pax := format(long, tar.FormatGNU), format(long, tar.FormatPAX)
	before := testutil.Tar(t, file, testutil.Dir("d"))
	before = before[:len(before)-1024]
	global := testutil.Tar(t, file, testutil.Entry{Header: tar.Header{Typeflag: tar.TypeXGlobalHeader, PAXRecords: map[string]string{"comment": "x"}}})
	hardlink := testutil.Tar(t, file, testutil.Entry{Header: tar.Header{Name: "l", Linkname: "f", Typeflag: tar.TypeLink}})

	for name, b := range map[string][]byte{"GNU": gnu, "pax": pax, "global": global, "hard link": hardlink, "empty": end, "padded": append(bytes.Clone(pax), make([]byte, 8192)...)} {
		if err := read(t, b); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, b := range map[string][]byte{
		"GNU long name":        append(orphan(gnu), end...),
		"pax header":           append(orphan(pax), end...),
		"GNU, after entries":   append(append(bytes.Clone(before), orphan(gnu)...), end...),
		"pax, after entries":   append(append(bytes.Clone(before), orphan(pax)...), end...),
		"both, after a global": append(append(append(bytes.Clone(global[:len(global)-1024]), orphan(gnu)...), orphan(pax)...), end...),
		"after a hard link":    append(append(bytes.Clone(hardlink[:len(hardlink)-1024]), orphan(gnu)...), end...),
	} {
		if err := read(t, b); err == nil || !strings.Contains(err.Error(), "that no entry follows") {
			t.Errorf("%s: error %v, want that no entry follows", name, err)
		}
	}
}

func FuzzReader(f *testing.F) {
	f.Add(testutil.Tar(f, testutil.File(strings.Repeat("n", 200), "body"), testutil.Dir("d")))
	f.Add(make([]byte, 1024))
	f.Fuzz(func(t *testing.T, b []byte) { _ = read(t, b) })
}
