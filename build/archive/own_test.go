package archive_test

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/klauspost/compress/zstd"

	"pretag/build/archive"
	"pretag/build/testutil/archivetest"
)

// An archive is known by its form alone, and nothing else has this form.
func TestOwn(t *testing.T) {
	dir := t.TempDir()
	own := archivetest.Archives(t, dir, "alpine-x86_64")[0].Path
	packed, err := os.ReadFile(own)
	if err != nil {
		t.Fatal(err)
	}
	decoder, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer decoder.Close()
	plain, err := decoder.DecodeAll(packed, nil)
	if err != nil {
		t.Fatal(err)
	}
	encoder, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer encoder.Close()
	for name, row := range map[string]struct {
		content []byte
		want    bool
	}{
		"zstd":              {packed, true},
		"uncompressed":      {plain, true},
		"recompressed":      {encoder.EncodeAll(plain, nil), false},
		"uncompressed, cut": {plain[:len(plain)/1024*512], false},
		"only a layer":      {tarOf(t, "layer.tar"), false},
		"other members":     {tarOf(t, "layer.tar", "config.json", "manifest.json"), false},
		"text":              {bytes.Repeat([]byte("text "), 1000), false},
		"empty":             {nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(dir, "file")
			if err := os.WriteFile(path, row.content, 0o644); err != nil {
				t.Fatal(err)
			}
			if got, err := archive.Own(path); err != nil || got != row.want {
				t.Errorf("got %v, %v, want %v", got, err, row.want)
			}
		})
	}
}

func tarOf(t *testing.T, names ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, name := range names {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Format: tar.FormatUSTAR}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
