//go:build acceptance

package fetch

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"pretag/build/testutil"
)

// program is a Go program with Runner's revision in it, as Runner's own build puts it there.
func program(tb testing.TB) []byte {
	tb.Helper()
	dir := tb.TempDir()
	write(tb, filepath.Join(dir, "main.go"), []byte("package main\n\nfunc main() {}\n"))
	write(tb, filepath.Join(dir, "go.mod"), []byte("module runner\n\ngo 1.21\n"))
	flags := "-X gitlab.com/gitlab-org/gitlab-runner/common.NAME=gitlab-runner" +
		" -X gitlab.com/gitlab-org/gitlab-runner/common.VERSION=15.8.0" +
		" -X gitlab.com/gitlab-org/gitlab-runner/common.REVISION=12335144 -w"
	command := exec.Command("go", "build", "-ldflags", flags, "-o", "runner", ".")
	command.Dir = dir
	if output, err := command.CombinedOutput(); err != nil {
		tb.Fatalf("%v\n%s", err, output)
	}
	return read(tb, filepath.Join(dir, "runner"))
}

// rpmbuild makes an rpm of the files, with the payload in rpm's own words. A
// value that begins with "-> " is a symbolic link.
func rpmbuild(tb testing.TB, payload string, files map[string][]byte) string {
	tb.Helper()
	program, dir := testutil.Tool(tb, "rpmbuild"), tb.TempDir()
	list := stage(tb, filepath.Join(dir, "files"), files)
	spec := filepath.Join(dir, "old.spec")
	write(tb, spec, []byte(`Name: gitlab-runner
Version: 15.8.0
Release: 2
Summary: Old package
License: MIT
BuildArch: noarch
%description
Old.
%install
cp -a `+dir+`/files/. %{buildroot}/
%files
`+strings.Join(list, "\n")+"\n"))
	command := exec.Command(program, "-bb", "--define", "_topdir "+dir, "--define", "_binary_payload "+payload,
		"--define", "_build_id_links none", "--define", "__os_install_post %{nil}", "--define", "_binaries_in_noarch_packages_terminate_build 0", spec)
	if output, err := command.CombinedOutput(); err != nil {
		tb.Fatalf("%v\n%s", err, output)
	}
	return filepath.Join(dir, "RPMS/noarch/gitlab-runner-15.8.0-2.noarch.rpm")
}

// dpkgDeb makes a deb of the files.
func dpkgDeb(tb testing.TB, payload string, files map[string][]byte) string {
	tb.Helper()
	program, dir := testutil.Tool(tb, "dpkg-deb"), tb.TempDir()
	stage(tb, filepath.Join(dir, "files"), files)
	write(tb, filepath.Join(dir, "files/DEBIAN/control"),
		[]byte("Package: gitlab-runner\nVersion: 15.8.0-2\nArchitecture: all\nMaintainer: x <x@example.com>\nDescription: Old package\n"))
	deb := filepath.Join(dir, "gitlab-runner_15.8.0-2_all.deb")
	command := exec.Command(program, "--root-owner-group", "-Z"+payload, "-b", filepath.Join(dir, "files"), deb)
	if output, err := command.CombinedOutput(); err != nil {
		tb.Fatalf("%v\n%s", err, output)
	}
	return deb
}

func stage(tb testing.TB, dir string, files map[string][]byte) (list []string) {
	tb.Helper()
	for name, data := range files {
		file := filepath.Join(dir, name)
		if target, link := strings.CutPrefix(string(data), "-> "); link {
			if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.Symlink(target, file)); err != nil {
				tb.Fatal(err)
			}
		} else {
			write(tb, file, data)
		}
		list = append(list, name)
	}
	return list
}

// Packages in every compression of rpm and dpkg, as their own tools make them.
func TestUnpackRealPackages(t *testing.T) {
	files := old(t)
	files["/usr/bin/gitlab-runner"] = program(t)
	delete(files, helperImages+"prebuilt-alpine-x86_64.tar")
	files[helperImages+"prebuilt-alpine-x86_64.tar.xz"] = testutil.Filter(t, testutil.Rootfs(t, "alpine-x86_64"), "xz", "-c")
	for _, payload := range []string{
		"w9.gzdio", "w9.bzdio", "w2.xzdio", "w2.lzdio", "w3.zstdio", "w.ufdio",
		"gzip", "xz", "zstd", "none",
	} {
		t.Run(payload, func(t *testing.T) {
			make := dpkgDeb
			if strings.HasPrefix(payload, "w") {
				make = rpmbuild
			}
			checkUnpack(t, make(t, payload, files), files)
		})
	}
	t.Run("rpm with a link", func(t *testing.T) {
		file := rpmbuild(t, "w9.gzdio", map[string][]byte{helperImages + "prebuilt-alpine-arm.tar": []byte("-> /etc/passwd")})
		_, err := Unpack(t.Context(), file, unpackOptions(t))
		wantError(t, err, helperImages+"prebuilt-alpine-arm.tar: want a regular file, the package has ")
	})
}
