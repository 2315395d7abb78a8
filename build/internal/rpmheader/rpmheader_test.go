package rpmheader

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// headerOf makes a header of files: their names, the directories, and the directory
// of each file as a number of width bytes.
func headerOf(names, dirs []string, width int, indexes ...uint64) []byte {
	var index, store []byte
	add := func(tag, kind uint32, count int, data []byte) {
		for _, word := range []uint32{tag, kind, uint32(len(store)), uint32(count)} {
			index = binary.BigEndian.AppendUint32(index, word)
		}
		store = append(store, data...)
	}
	texts := func(values []string) []byte { return []byte(strings.Join(values, "\x00") + "\x00") }
	add(tagBaseNames, typeStrings, len(names), texts(names))
	add(tagDirNames, typeStrings, len(dirs), texts(dirs))
	var numbers []byte
	for _, n := range indexes {
		numbers = append(numbers, binary.BigEndian.AppendUint64(nil, n)[8-width:]...)
	}
	add(tagDirIndexes, map[int]uint32{2: typeInt16, 4: typeInt32, 8: typeInt64}[width], len(indexes), numbers)
	b := binary.BigEndian.AppendUint32(nil, 3)
	b = binary.BigEndian.AppendUint32(b, uint32(len(store)))
	return append(append(b, index...), store...)
}

func TestPaths(t *testing.T) {
	ab, dirs := []string{"a", "b"}, []string{"/", "/usr/"}
	for name, row := range map[string]struct {
		header []byte
		want   string
	}{
		"whole":            {headerOf(ab, dirs, 4, 1, 0), "/usr/a /b"},
		"of 64 bits":       {headerOf(ab, dirs, 8, 1, 0), "/usr/a /b"},
		"directory -1":     {headerOf(ab, dirs, 8, 1, 1<<64-1), "tag 1116: 18446744073709551615 is out of range"},
		"directory 2":      {headerOf(ab, dirs, 4, 1, 2), `"b" is in directory 2 of 2`},
		"one without":      {headerOf(ab, dirs, 4, 1), "2 files, but directories of 1"},
		"a path as a name": {headerOf([]string{"a/b"}, dirs, 4, 0), `file name "a/b" contains a slash`},
		"long paths":       {headerOf(make([]string, 17_000), []string{"/" + strings.Repeat("d", 4000)}, 4, make([]uint64, 17_000)...), "paths of more than 67108864 bytes"},
		"a long path":      {headerOf(ab, []string{"/" + strings.Repeat("d", 5000)}, 4, 0, 0), "... has 5002 bytes, at most 4096 are allowed"},
	} {
		t.Run(name, func(t *testing.T) {
			h, err := Parse(row.header)
			if err != nil {
				t.Fatal(err)
			}
			paths, err := h.Paths()
			got := strings.Join(paths, " ")
			if err != nil {
				got = err.Error()
			}
			if !strings.Contains(got, row.want) {
				t.Errorf("got %.300s, want %s", got, row.want)
			}
		})
	}
}

// A tag is an index entry: tag, type, offset and count.
type tag [4]uint32

// raw makes a header of index entries and a store.
func raw(store string, tags ...tag) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(tags)))
	b = binary.BigEndian.AppendUint32(b, uint32(len(store)))
	for _, t := range tags {
		for _, word := range t {
			b = binary.BigEndian.AppendUint32(b, word)
		}
	}
	return append(b, store...)
}

func TestParse(t *testing.T) {
	many := make([]tag, 65_536)
	for name, row := range map[string]struct {
		header []byte
		want   string
	}{
		"whole":           {raw("a\x00b\x00\x00\x00\x00\x01", tag{1000, typeString, 0, 1}, tag{1001, typeString, 2, 1}, tag{1003, typeInt32, 4, 1}), ""},
		"region":          {raw("a\x00"+strings.Repeat("t", 16), tag{63, typeBin, 2, 16}, tag{1000, typeString, 0, 1}), ""},
		"gap":             {raw("a\x00??b\x00", tag{1000, typeString, 0, 1}, tag{1001, typeString, 4, 1}), ""},
		"empty array":     {raw("a\x00", tag{1117, typeStrings, 0, 0}, tag{1000, typeString, 0, 1}), ""},
		"same bytes":      {raw("a\x00", tag{1000, typeString, 0, 1}, tag{1001, typeString, 0, 1}), "tag 1001 at offset 0 overlaps the tag before it, which ends at 2"},
		"partly":          {raw("a\x00b\x00", tag{1000, typeStrings, 0, 2}, tag{1001, typeString, 2, 1}), "tag 1001 at offset 2 overlaps the tag before it, which ends at 4"},
		"wrong order":     {raw("a\x00b\x00", tag{1000, typeString, 2, 1}, tag{1001, typeString, 0, 1}), "tag 1001 at offset 0 overlaps"},
		"second region":   {raw("a\x00b\x00", tag{1000, typeString, 2, 1}, tag{63, typeBin, 0, 4}), "tag 63 at offset 0 overlaps"},
		"beyond":          {raw("a\x00", tag{1000, typeString, 3, 1}), "tag 1000 at offset 3 of 2 bytes"},
		"without end":     {raw("abc", tag{1000, typeString, 0, 1}), "tag 1000: unexpected EOF"},
		"number cut":      {raw("abc", tag{1003, typeInt32, 0, 1}), "tag 1003: unexpected EOF"},
		"many numbers":    {raw("abc", tag{1003, typeInt64, 0, 1<<32 - 1}), "tag 1003: 4294967295 values, at most 262144 are read"},
		"many bytes":      {raw("abc", tag{1003, typeBin, 0, 1<<32 - 1}), "tag 1003: unexpected EOF"},
		"of unknown type": {raw("abc", tag{1003, 10, 0, 1}), "tag 1003: unknown type 10"},
		"65,536 tags":     {raw("", many...), "header has 65536 tags, at most 65535 are allowed"},
		"cut":             {raw("abc", tag{1003, typeBin, 0, 3})[:20], "1 tags and 3 bytes do not fit into 12 bytes"},
		"shorter":         {[]byte("\x00\x00"), "unexpected EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse(row.header)
			if got := fmt.Sprint(err); row.want == "" && err != nil || !strings.Contains(got, row.want) {
				t.Errorf("error %v, want %q", err, row.want)
			}
		})
	}
}

func TestTypes(t *testing.T) {
	h, err := Parse(raw("a\x00\x00b\x00\x01\x02\xff", tag{1, typeStrings, 0, 3}, tag{2, typeInt16, 5, 1}, tag{3, typeBin, 7, 1}, tag{4, typeStrings, 8, 0}))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := h.Strings(1); err != nil || !slices.Equal(got, []string{"a", "", "b"}) {
		t.Errorf("strings %q, %v", got, err)
	}
	if got, err := h.Strings(4); err != nil || len(got) != 0 {
		t.Errorf("no strings: %q, %v", got, err)
	}
	if got, err := h.Ints(2); err != nil || !slices.Equal(got, []int64{258}) {
		t.Errorf("numbers %d, %v", got, err)
	}
	if got, err := h.Bytes(3); err != nil || string(got) != "\xff" {
		t.Errorf("bytes %q, %v", got, err)
	}
	_, err1 := h.Strings(2)
	_, err2 := h.Ints(3)
	_, err3 := h.Bytes(1)
	want := "tag 2 has type 3, want strings\ntag 3 has type 7, want numbers\ntag 1 has type 8, want binary data"
	if got := fmt.Sprint(errors.Join(err1, err2, err3)); got != want {
		t.Errorf("errors\n%s\nwant\n%s", got, want)
	}
}

// Whatever the bytes, parsing ends without a panic, and the values of all tags
// together are not larger than the header.
func FuzzParse(f *testing.F) {
	f.Add(headerOf([]string{"a", "b"}, []string{"/", "/usr/"}, 4, 1, 0))
	f.Add(raw("a\x00"+strings.Repeat("t", 16), tag{63, typeBin, 2, 16}, tag{1000, typeString, 0, 1}))
	f.Fuzz(func(t *testing.T, data []byte) {
		h, err := Parse(data)
		if err != nil {
			return
		}
		total := 0
		for tag, v := range h.tags {
			total += len(v.data)
			_, _ = h.Strings(tag)
			_, _ = h.Ints(tag)
			_, _ = h.Bytes(tag)
		}
		if total > len(data) {
			t.Errorf("values of %d bytes in a header of %d", total, len(data))
		}
		_, _ = h.Paths()
	})
}

// TestEncode: a header that is read and written again is the same, and a tag that
// is set to a longer value moves those after it.
func TestEncode(t *testing.T) {
	h := &Header{tags: map[uint32]value{}}
	h.SetString(1000, "name")
	h.SetStrings(1001, "odd")
	h.SetInt(1003, 1<<31)
	h.SetBytes(1004, []byte{1, 2, 3})
	h.set(1005, typeInt16, 1, []byte{0, 7})
	h.set(1006, typeInt64, 1, []byte{0, 0, 0, 0, 0, 0, 0, 8})
	for _, name := range []string{"name", "another name"} {
		h.SetString(1000, name)
		want := h.Encode(ImmutableRegion)
		read, raw, err := Read(bytes.NewReader(want))
		if err != nil {
			t.Fatal(err)
		}
		if got := read.Encode(ImmutableRegion); !bytes.Equal(raw, want) || !bytes.Equal(got, want) {
			t.Errorf("read and written again:\n%x, want\n%x", got, want)
		}
		got, _ := read.String(1000)
		numbers := []int64{}
		for _, tag := range []uint32{1003, 1005, 1006} {
			n, err := read.Ints(tag)
			if err != nil {
				t.Fatal(err)
			}
			numbers = append(numbers, n...)
		}
		if got != name || !slices.Equal(numbers, []int64{1 << 31, 7, 8}) {
			t.Errorf("read %q and %v", got, numbers)
		}
	}
}
