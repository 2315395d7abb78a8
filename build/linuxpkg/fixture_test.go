package linuxpkg_test

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"pretag/build/archive"
	"pretag/build/catalogue"
	"pretag/build/linuxpkg"
	"pretag/build/linuxpkg/loaders"
	"pretag/build/linuxpkg/pkgread"
	"pretag/build/release"
	"pretag/build/testutil"
	"pretag/packaging"
)

const ours = "gitlab-runner-helper-images"

// sixHelpers is a build for three architectures, with one helper that is in no
// native package.
func sixHelpers() []string {
	return []string{"alpine-x86_64", "alpine-x86_64-pwsh", "alpine-arm", "alpine-arm64", "ubuntu-x86_64", "ubuntu-arm64"}
}

// options returns those of a split build of the fixtures into out, without loaders.
func options(tb testing.TB, out string) linuxpkg.Options {
	tb.Helper()
	return linuxpkg.Options{
		Files:      packaging.Files,
		Formats:    []string{release.RPM, release.Deb},
		Layout:     linuxpkg.Split,
		Version:    version(tb, testutil.Version),
		Release:    "1",
		MTime:      testutil.Created(),
		Out:        out,
		Helpers:    testutil.Catalogue(tb).Helpers(),
		Maintainer: "Pat Packager <pat@example.com>",
		Vendor:     "Example",
		Homepage:   "https://example.com/pretag",
	}
}

func fixtureCompression() archive.Compression {
	return archive.Compression{Method: "zstd", Level: "fastest"}
}

func version(tb testing.TB, s string) catalogue.Version {
	tb.Helper()
	v, err := catalogue.ParseVersion(s, "0123abcd")
	if err != nil {
		tb.Fatal(err)
	}
	return v
}

// standIns writes, for each architecture, a small file that takes the place of a
// loader: the Go build information of a program that links every module with a license
// below packaging/licenses.
func standIns(tb testing.TB, goArches ...string) map[string]string {
	tb.Helper()
	var modules strings.Builder
	err := fs.WalkDir(packaging.Files, "licenses", func(name string, d fs.DirEntry, err error) error {
		if module := strings.TrimPrefix(name, "licenses/"); err == nil && !d.IsDir() && module != "std" {
			fmt.Fprintf(&modules, "dep\t%s\tv1.0.0\n", module)
		}
		return err
	})
	if err != nil {
		tb.Fatal(err)
	}
	file := testutil.GoProgram(tb, "go1.26.0", modules.String())
	paths, dir := map[string]string{}, tb.TempDir()
	for _, goarch := range goArches {
		paths[goarch] = filepath.Join(dir, loaders.Name(goarch))
		write(tb, paths[goarch], file)
	}
	return paths
}

func build(tb testing.TB, opts linuxpkg.Options, archives []release.Archive) linuxpkg.Result {
	tb.Helper()
	result, err := linuxpkg.Build(tb.Context(), opts, archives)
	if err != nil {
		tb.Fatal(err)
	}
	return result
}

// find returns the package of that format, name and arch ("" for any).
func find(tb testing.TB, packages []release.Package, format, name, arch string) release.Package {
	tb.Helper()
	i := slices.IndexFunc(packages, func(p release.Package) bool {
		return p.Format == format && p.Name == name && (arch == "" || p.Arch == arch)
	})
	if i < 0 {
		tb.Fatalf("no %s %s %s among %v", format, name, arch, packages)
	}
	return packages[i]
}

func metadata(tb testing.TB, path string) pkgread.Metadata {
	tb.Helper()
	r, err := pkgread.Open(tb.Context(), path)
	if err != nil {
		tb.Fatal(err)
	}
	defer r.Close()
	return r.Metadata
}

// eachEntry reads a package to its end.
func eachEntry(tb testing.TB, path string, do func(pkgread.Entry)) pkgread.Metadata {
	tb.Helper()
	r, err := pkgread.Open(tb.Context(), path)
	if err != nil {
		tb.Fatal(err)
	}
	defer r.Close()
	for e, err := range r.Contents() {
		if err != nil {
			tb.Fatalf("%s: %v", path, err)
		}
		do(e)
	}
	return r.Metadata
}

// overlay returns the definitions with a small root/ and no scriptlets, for hosts
// that have no shell.
func overlay(tb testing.TB) fstest.MapFS {
	tb.Helper()
	files := fstest.MapFS{
		"root/usr/share/man/man8/gitlab-runner-helper-images.8":           {Data: []byte(".TH X 8\n")},
		"root/etc/gitlab-runner/helper-images.conf":                       {Data: []byte("USERS=\n")},
		"root/usr/lib/systemd/system/gitlab-runner-helper-images.service": {Data: []byte("[Unit]\nDescription=x\n")},
	}
	err := fs.WalkDir(packaging.Files, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasPrefix(name, "root/") || strings.HasPrefix(name, "scriptlets/") {
			return err
		}
		data, err := fs.ReadFile(packaging.Files, name)
		files[name] = &fstest.MapFile{Data: data}
		return err
	})
	if err != nil {
		tb.Fatal(err)
	}
	return files
}

func write(tb testing.TB, path string, data []byte) {
	tb.Helper()
	err := os.MkdirAll(filepath.Dir(path), 0o755)
	if err == nil {
		err = os.WriteFile(path, data, 0o644)
	}
	if err != nil {
		tb.Fatal(err)
	}
}

// run runs a program in the C locale and returns what it prints.
func run(tb testing.TB, program string, args ...string) string {
	tb.Helper()
	out, err := try(program, args...)
	if err != nil {
		tb.Fatalf("%s %s: %v\n%s", program, strings.Join(args, " "), err, out)
	}
	return out
}

func try(program string, args ...string) (string, error) {
	cmd := exec.Command(program, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive")
	out, err := cmd.CombinedOutput()
	return string(out), err
}
