package linuxpkg_test

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"pretag/build/archive"
	"pretag/build/catalogue"
	"pretag/build/internal/fixture"
	"pretag/build/linuxpkg"
	"pretag/packaging"
)

// sixHelpers is a build of three architectures.
var sixHelpers = []string{"alpine-x86_64", "alpine-x86_64-pwsh", "alpine-arm", "alpine-arm64", "ubuntu-x86_64", "ubuntu-arm64"}

func version(tb testing.TB, s string) catalogue.Version {
	tb.Helper()
	v, err := catalogue.ParseVersion(s, "0123abcd")
	if err != nil {
		tb.Fatal(err)
	}
	return v
}

func options(tb testing.TB, out string) linuxpkg.Options {
	tb.Helper()
	return linuxpkg.Options{
		Files:      packaging.Files,
		Formats:    []string{linuxpkg.RPM, linuxpkg.Deb},
		Layout:     linuxpkg.Split,
		Version:    version(tb, fixture.Version),
		Release:    1,
		MTime:      fixture.Created(),
		Out:        out,
		Helpers:    fixture.Catalogue(tb).Helpers(),
		Maintainer: "Pat Packager <pat@example.com>",
		Vendor:     "Example",
		Homepage:   "https://example.com/pretag",
	}
}

func TestTmp(t *testing.T) {
	out := "/tmp/pk/out"
	os.RemoveAll(out)
	os.MkdirAll(out+"/helper-images", 0o755)
	a := fixture.Archives(t, out+"/helper-images", sixHelpers...)
	for _, l := range []string{"split", "single"} {
		o := options(t, filepath.Join(out, l))
		o.Layout = l
		r, err := linuxpkg.Build(context.Background(), o, a)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range r.Packages {
			t.Log(p)
		}
		t.Log(r.Warnings)
	}
}

var _ fs.FS
var _ archive.File
