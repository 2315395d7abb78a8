package deb822_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"pretag/build/internal/deb822"
)

func read(ctx context.Context, text string) (all []deb822.Paragraph, err error) {
	for p, err := range deb822.Paragraphs(ctx, []byte(text)) {
		if err != nil {
			return all, err
		}
		all = append(all, p)
	}
	return all, nil
}

func TestParagraphs(t *testing.T) {
	got, err := read(t.Context(), `
# a comment
Package: a
Version:1:2-3
Description: first
 second: not a field
  indented
# another comment
 .
	tab
Empty:
  

Package: b`+"\r\n\r\n\n")
	want := []deb822.Paragraph{
		{"package": "a", "version": "1:2-3", "description": "first\nsecond: not a field\n indented\n\ntab", "empty": ""},
		{"package": "b"},
	}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Error(err, diff)
	}
}

func TestErrors(t *testing.T) {
	many := strings.Builder{}
	for i := range 257 {
		fmt.Fprintf(&many, "f%d: x\n", i)
	}
	for text, want := range map[string]string{
		"a: b\n\nIt is free.\n": `line 3: "It is free." is not a field`,
		"a: b\n\n c\n":          `line 3: " c" continues no field`,
		many.String():           "line 257: paragraph of more than 256 fields",
	} {
		if _, err := read(t.Context(), text); fmt.Sprint(err) != want {
			t.Errorf("error %v, want %s", err, want)
		}
	}
}

func TestContext(t *testing.T) {
	stop := errors.New("stop")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(stop)
	for _, text := range []string{"a: b\n\nc: d\n\n", "a: b\n c\n", "\n\n"} {
		if got, err := read(ctx, text); err != stop || len(got) > 0 {
			t.Errorf("%q: %d paragraphs, error %v, want none and %v", text, len(got), err, stop)
		}
	}
}

// A value of a million lines costs about its own size.
func TestLongValue(t *testing.T) {
	text := "a: b\n" + strings.Repeat(" c\n", 1_000_000)
	allocated := testing.Benchmark(func(b *testing.B) {
		for b.Loop() {
			_, _ = read(b.Context(), text)
		}
	}).AllocedBytesPerOp()
	if allocated > 64<<20 {
		t.Errorf("%d MiB were allocated for %d bytes", allocated>>20, len(text))
	}
}

func FuzzParagraphs(f *testing.F) {
	f.Add("a: b\n c\n\n# d\ne:\n .\n")
	f.Fuzz(func(t *testing.T, text string) {
		size := 0
		all, _ := read(t.Context(), text)
		for _, p := range all {
			for name, value := range p {
				size += len(name) + len(value)
			}
		}
		if size > 3*len(text) { // lower case may take more bytes
			t.Errorf("fields of %d bytes from %d", size, len(text))
		}
	})
}
