package linuxpkg_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"pretag/build/internal/fixture"
	"pretag/build/internal/require"
	"pretag/build/linuxpkg"
)

// payload is what the packages made by rpmbuild and dpkg-deb hold.
func payload() map[string][]byte {
	return map[string][]byte{
		"/usr/lib/gitlab-runner/helper-images/prebuilt-alpine-x86_64.tar.xz": bytes.Repeat([]byte("helper image "), 40_000),
		"/usr/lib/gitlab-runner/helper-images/prebuilt-alpine-arm.tar.xz":    []byte("small"),
		"/usr/share/doc/old/empty": nil,
	}
}

// rpmbuild makes an rpm with a payload of that kind, in rpm's own words.
func rpmbuild(t *testing.T, compression string) string {
	t.Helper()
	require.Tool(t, "rpmbuild")
	dir := t.TempDir()
	var list strings.Builder
	for path, data := range payload() {
		write(t, filepath.Join(dir, "files", path), data)
		fmt.Fprintf(&list, "%s\n", path)
	}
	if err := os.Symlink("prebuilt-alpine-arm.tar.xz", filepath.Join(dir, "files/usr/lib/gitlab-runner/helper-images/link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(filepath.Join(dir, "files/usr/lib/gitlab-runner/helper-images/prebuilt-alpine-arm.tar.xz"), filepath.Join(dir, "files/usr/lib/gitlab-runner/helper-images/hard")); err != nil {
		t.Fatal(err)
	}
	spec := filepath.Join(dir, "old.spec")
	write(t, spec, []byte(`Name: old
Version: 17.6.0
Release: 2
Epoch: 3
Summary: Old package
License: MIT
BuildArch: noarch
Requires: git >= 2
%description
Two
lines.
%install
cp -a `+dir+`/files/. %{buildroot}/
%post
true
%files
%config /usr/share/doc/old/empty
/usr/lib/gitlab-runner
`))
	run(t, "rpmbuild", "-bb", "--define", "_topdir "+dir, "--define", "_binary_payload "+compression, "--define", "_build_id_links none", spec)
	packages, err := filepath.Glob(filepath.Join(dir, "RPMS/noarch/*.rpm"))
	if err != nil || len(packages) != 1 {
		t.Fatalf("rpmbuild made %q, %v", packages, err)
	}
	return packages[0]
}

// dpkgDeb makes a deb with a payload of that kind.
func dpkgDeb(t *testing.T, compression string) string {
	t.Helper()
	require.Tool(t, "dpkg-deb")
	dir := t.TempDir()
	for path, data := range payload() {
		write(t, filepath.Join(dir, "files", path), data)
	}
	write(t, filepath.Join(dir, "files/DEBIAN/control"), []byte("Package: old\nVersion: 3:17.6.0-2\nArchitecture: all\nMaintainer: x <x@example.com>\nDepends: git (>= 2)\nDescription: Old package\n Two\n lines.\n"))
	if err := os.Symlink("prebuilt-alpine-arm.tar.xz", filepath.Join(dir, "files/usr/lib/gitlab-runner/helper-images/link")); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "old.deb")
	run(t, "dpkg-deb", "--root-owner-group", "-Z"+compression, "-b", filepath.Join(dir, "files"), out)
	return out
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

// readAll reads a package to its end.
func readAll(path string) (linuxpkg.Metadata, map[string][]byte, []linuxpkg.Entry, error) {
	r, err := linuxpkg.Open(path)
	if err != nil {
		return linuxpkg.Metadata{}, nil, nil, err
	}
	defer r.Close()
	files := map[string][]byte{}
	var entries []linuxpkg.Entry
	for e, err := range r.Contents() {
		if err != nil {
			return r.Metadata, files, entries, err
		}
		if e.Body != nil {
			if files[e.Path], err = io.ReadAll(e.Body); err != nil {
				return r.Metadata, files, entries, err
			}
		}
		e.Body = nil
		entries = append(entries, e)
	}
	return r.Metadata, files, entries, nil
}

// TestForeign reads packages that rpmbuild and dpkg-deb made.
func TestForeign(t *testing.T) {
	type maker func(*testing.T, string) string
	for _, test := range []struct {
		make              maker
		kind, compression string
	}{
		{rpmbuild, "w9.gzdio", "gzip"},
		{rpmbuild, "w9.bzdio", "bzip2"},
		{rpmbuild, "w2.xzdio", "xz"},
		{rpmbuild, "w2.lzdio", "lzma"},
		{rpmbuild, "w3.zstdio", "zstd"},
		{rpmbuild, "w.ufdio", "none"},
		{dpkgDeb, "gzip", "gzip"},
		{dpkgDeb, "xz", "xz"},
		{dpkgDeb, "zstd", "zstd"},
		{dpkgDeb, "none", "none"},
	} {
		t.Run(test.kind, func(t *testing.T) {
			m, files, entries, err := readAll(test.make(t, test.kind))
			if err != nil {
				t.Fatal(err)
			}
			if m.Name != "old" || m.Epoch != "3" || m.Version != "17.6.0" || m.Release != "2" || m.Summary != "Old package" {
				t.Errorf("metadata %+v", m)
			}
			if m.Compression != test.compression {
				t.Errorf("compression %s, want %s", m.Compression, test.compression)
			}
			relation := map[string]string{linuxpkg.RPM: "git >= 2", linuxpkg.Deb: "git (>= 2)"}[m.Format]
			if !slices.Contains(append(m.Relations["requires"], m.Relations["depends"]...), relation) {
				t.Errorf("relations %q, want %q in it", m.Relations, relation)
			}
			hard := 0
			for _, e := range entries {
				switch {
				case e.Hard:
					hard++
				case filepath.Base(e.Path) == "link" && (e.Mode&fs.ModeSymlink == 0 || e.Link != "prebuilt-alpine-arm.tar.xz"):
					t.Errorf("link is %+v", e)
				}
			}
			if m.Format == linuxpkg.RPM {
				if hard != 1 {
					t.Errorf("%d hard links, want 1", hard)
				}
				if m.Scripts["postin"] != "true" {
					t.Errorf("scripts %q", m.Scripts)
				}
				// of the two names of one file either may have the body
				const base = "/usr/lib/gitlab-runner/helper-images/"
				if body, ok := files[base+"hard"]; ok {
					files[base+"prebuilt-alpine-arm.tar.xz"] = body
					delete(files, base+"hard")
				}
			}
			want := payload()
			for path := range want {
				if !bytes.Equal(files[path], want[path]) {
					t.Errorf("%s: %d bytes, want %d", path, len(files[path]), len(want[path]))
				}
				delete(files, path)
			}
			if len(files) > 0 {
				t.Errorf("more files: %d", len(files))
			}
		})
	}
}

// TestTruncated: a package that ends early is never read to its end, wherever it is cut.
func TestTruncated(t *testing.T) {
	dir := t.TempDir()
	packages := build(t, options(t, dir), fixture.Archives(t, dir, "alpine-x86_64")).Packages
	for _, format := range []string{linuxpkg.RPM, linuxpkg.Deb} {
		p := find(t, packages, format, "gitlab-runner-helper-images-alpine-amd64", "")
		data, err := os.ReadFile(p.Path)
		if err != nil {
			t.Fatal(err)
		}
		cut := filepath.Join(dir, "cut")
		for n := 0; n < len(data)-1; n += 1 + n/97 { // a deb may end in one byte of padding
			write(t, cut, data[:n])
			if _, _, _, err := readAll(cut); err == nil {
				t.Fatalf("%s: %d of %d bytes are read without an error", format, n, len(data))
			} else if errors.Is(err, io.EOF) {
				t.Fatalf("%s: %d bytes: %v: looks like an ordinary end", format, n, err)
			}
		}
	}
}

// TestFlipped: a changed byte in the payload of an rpm never goes unnoticed;
// whatever byte changes, reading ends and does not panic.
func TestFlipped(t *testing.T) {
	dir := t.TempDir()
	packages := build(t, options(t, dir), fixture.Archives(t, dir, "alpine-x86_64")).Packages
	for _, format := range []string{linuxpkg.RPM, linuxpkg.Deb} {
		p := find(t, packages, format, "gitlab-runner-helper-images-alpine-amd64", "")
		data, err := os.ReadFile(p.Path)
		if err != nil {
			t.Fatal(err)
		}
		_, want, _, err := readAll(p.Path)
		if err != nil {
			t.Fatal(err)
		}
		flipped := filepath.Join(dir, "flipped")
		for n := 0; n < len(data); n += 7 {
			damaged := bytes.Clone(data)
			damaged[n] ^= 0x40
			write(t, flipped, damaged)
			if _, files, _, err := readAll(flipped); err == nil && !cmp.Equal(files, want) {
				t.Fatalf("%s: byte %d changed: other content is read without an error", format, n)
			}
		}
	}
}

func FuzzOpen(f *testing.F) {
	dir := f.TempDir()
	for _, p := range build(f, options(f, dir), fixture.Archives(f, dir, "alpine-x86_64")).Packages {
		data, err := os.ReadFile(p.Path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(t.TempDir(), "package")
		write(t, path, data)
		_, _, _, _ = readAll(path) // neither panics nor takes for ever
	})
}

func TestNoPackage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	write(t, path, []byte("PK\x03\x04 something else"))
	if _, err := linuxpkg.Open(path); err == nil || !strings.Contains(err.Error(), path+": neither an rpm nor a deb") {
		t.Errorf("error %v", err)
	}
}
