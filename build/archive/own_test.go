package archive_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"pretag/build/archive"
	"pretag/build/testutil"
	"pretag/build/testutil/archivetest"
)

// An archive is known by its form alone, and nothing else has this form.
func TestOwn(t *testing.T) {
	dir := t.TempDir()
	own := archivetest.Archives(t, dir, "alpine-x86_64")[0]
	packed, err := os.ReadFile(own.Path)
	if err != nil {
		t.Fatal(err)
	}
	plain := plainBytes(t, own)
	for name, row := range map[string]struct {
		content []byte
		want    bool
	}{
		"zstd":              {packed, true},
		"uncompressed":      {plain, true},
		"recompressed":      {testutil.Compress(t, "zstd", plain), false},
		"uncompressed, cut": {plain[:len(plain)/1024*512], false},
		"only a layer":      {testutil.Tar(t, testutil.File("layer.tar", "")), false},
		"other members":     {testutil.Tar(t, testutil.File("layer.tar", ""), testutil.File("config.json", ""), testutil.File("manifest.json", "")), false},
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
