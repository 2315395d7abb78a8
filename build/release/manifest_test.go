package release

import (
	"os"
	"path/filepath"
	"testing"

	"pretag/build/testutil"
)

func TestReadManifestRefuses(t *testing.T) {
	for text, want := range map[string]string{
		`{"archives":[{"name":"x"}]}`:          "manifest.json: pretag did not write it",
		`{"schema":99,"tools":{"pretag":"1"}}`: "manifest.json: schema 99 is newer than this pretag, which knows 1",
		`[`:                                    "manifest.json: unexpected end of JSON input",
	} {
		out := t.TempDir()
		if err := os.WriteFile(filepath.Join(out, ManifestName), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		_, err := ReadManifest(out)
		testutil.WantError(t, err, want)
	}
}

func TestReadSumsRefuses(t *testing.T) {
	sum := "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
	for text, want := range map[string]string{
		sum + " *x\n":                         `line 1: "` + sum + ` *x" is not <sha256>  <file>`,
		sum + "  ../x\n":                      "line 1",
		sum + "  x\n" + sum + "  x\n":         "line 2: x is listed twice",
		sum + "  x\n":                         "",
		"ba78  x\n":                           "line 1",
		sum + "  /etc/passwd\n":               "line 1",
		sum + "  a/../../x\n":                 "line 1",
		sum + "  rpm/a.rpm\n" + sum + "  b\n": "",
	} {
		out := t.TempDir()
		if err := os.WriteFile(filepath.Join(out, SumsName), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		_, err := ReadSums(out)
		testutil.WantError(t, err, want)
	}
}
