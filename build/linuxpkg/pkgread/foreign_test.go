//go:build acceptance

package pkgread_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pretag/build/release"
	"pretag/build/testutil"
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
	testutil.Tool(t, "rpmbuild")
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
	testutil.Tool(t, "dpkg-deb")
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
			relation := map[string]string{release.RPM: "git >= 2", release.Deb: "git (>= 2)"}[m.Format]
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
			if m.Format == release.RPM {
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

// run runs a program.
func run(t *testing.T, program string, args ...string) {
	t.Helper()
	if out, err := exec.Command(program, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %q: %v\n%s", program, args, err, out)
	}
}
