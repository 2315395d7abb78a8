package rpmheader

import (
	"encoding/binary"
	"strings"
	"testing"
)

// headerOf is a header of files: their names, the folders, and each file's folder
// as a number of width bytes.
func headerOf(names, folders []string, width int, indexes ...uint64) []byte {
	var index, store []byte
	add := func(tag, kind uint32, count int, data []byte) {
		for _, word := range []uint32{tag, kind, uint32(len(store)), uint32(count)} {
			index = binary.BigEndian.AppendUint32(index, word)
		}
		store = append(store, data...)
	}
	texts := func(values []string) []byte { return []byte(strings.Join(values, "\x00") + "\x00") }
	add(tagBaseNames, typeStrings, len(names), texts(names))
	add(tagDirNames, typeStrings, len(folders), texts(folders))
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
	ab, folders := []string{"a", "b"}, []string{"/", "/usr/"}
	for name, row := range map[string]struct {
		header []byte
		want   string
	}{
		"whole":              {headerOf(ab, folders, 4, 1, 0), "/usr/a /b"},
		"of 64 bits":         {headerOf(ab, folders, 8, 1, 0), "/usr/a /b"},
		"folder -1":          {headerOf(ab, folders, 8, 1, 1<<64-1), "tag 1116: 18446744073709551615 is no number"},
		"folder 2":           {headerOf(ab, folders, 4, 1, 2), "b: folder 2 of 2"},
		"one without":        {headerOf(ab, folders, 4, 1), "2 files, but folders of 1"},
		"a folder as a name": {headerOf([]string{"a/b"}, folders, 4, 0), `"a/b" is no file name`},
		"long paths":         {headerOf(make([]string, 17_000), []string{"/" + strings.Repeat("d", 4000)}, 4, make([]uint64, 17_000)...), "paths of more than 67108864 bytes"},
		"a long path":        {headerOf(ab, []string{"/" + strings.Repeat("d", 5000)}, 4, 0, 0), "a path of 5002 bytes, at most 4096"},
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
