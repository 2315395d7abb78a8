package release

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestOrigin(t *testing.T) {
	tarball := filepath.Join(t.TempDir(), "x.tar")
	write := func(file, text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want := func(of Origin, part string) {
		t.Helper()
		got, err := OriginOf(t.Context(), tarball)
		if part == "" && err != nil || part != "" && (err == nil || !strings.Contains(err.Error(), part)) {
			t.Errorf("got error %v, want %q", err, part)
		}
		if part == "" && got != of {
			t.Errorf("got %+v, want %+v", got, of)
		}
	}
	want(Origin{}, "")
	write(tarball, "abc")
	want(Origin{}, "was not fetched by pretag")
	o := Origin{
		Source: "a.deb@sha256:1", Digest: "sha256:2", Size: 3,
		SHA256: "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", // FIPS 180-2, B.1
	}
	if err := o.Write(tarball); err != nil {
		t.Fatal(err)
	}
	want(o, "")
	write(tarball, "abd")
	want(o, "does not match its record")
	write(tarball, "abcd")
	want(o, "does not match its record")
	write(tarball, "abc")

	for text, message := range map[string]string{
		"helper=alpine-arm\nsize=3\n": `x.tar.origin: line 1: unknown or repeated key "helper"`,
		"size=3\nsha256=x\n":          "x.tar.origin: no line source=",
		"source=a\nsize=three\n":      `x.tar.origin: line 2: size="three": want a number`,
		"source=a\nsize\n":            `x.tar.origin: line 2: "size" is not KEY=value`,
	} {
		write(tarball+OriginSuffix, text)
		want(Origin{}, message)
	}
}
