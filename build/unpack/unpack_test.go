package unpack

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"pretag/build/release"
	"pretag/build/testutil"
	"pretag/build/testutil/archivetest"
)

const helperImages = "/usr/lib/gitlab-runner/helper-images/"

// old is what GitLab Runner's own packages hold, in small.
func old(tb testing.TB) map[string][]byte {
	tb.Helper()
	archive := archivetest.Archives(tb, tb.TempDir(), "ubuntu-arm64")[0]
	return map[string][]byte{
		"/usr/bin/gitlab-runner":                           program(tb),
		"/usr/share/gitlab-runner/post-install":            []byte("#!/bin/sh\n"),
		helperImages + "prebuilt-alpine-x86_64.tar.xz":     xz(tb, testutil.Rootfs(tb, "alpine-x86_64")),
		helperImages + "prebuilt-ubuntu-x86_64-pwsh.tar":   testutil.Rootfs(tb, "pwsh"),
		helperImages + archive.Name:                        read(tb, archive.Path),
		helperImages + archive.Name + ".info":              read(tb, archive.Path+".info"),
		helperImages + "prebuilt-solaris-sparc.tar.xz":     []byte("no helper"),
		helperImages + "README.prebuilt":                   []byte("text"),
		"/opt/old/prebuilt-ubi-fips-x86_64.tar":            testutil.Rootfs(tb, "fips"),
		"/usr/share/doc/gitlab-runner/prebuilt-images.txt": []byte("text"),
	}
}

// program is a Go program with Runner's revision in it, as Runner's own build puts it there.
func program(tb testing.TB) []byte {
	tb.Helper()
	folder := tb.TempDir()
	write(tb, filepath.Join(folder, "main.go"), []byte("package main\n\nfunc main() {}\n"))
	write(tb, filepath.Join(folder, "go.mod"), []byte("module runner\n\ngo 1.21\n"))
	flags := "-X gitlab.com/gitlab-org/gitlab-runner/common.NAME=gitlab-runner" +
		" -X gitlab.com/gitlab-org/gitlab-runner/common.VERSION=15.8.0" +
		" -X gitlab.com/gitlab-org/gitlab-runner/common.REVISION=12335144 -w"
	command := exec.Command("go", "build", "-ldflags", flags, "-o", "runner", ".")
	command.Dir = folder
	if output, err := command.CombinedOutput(); err != nil {
		tb.Fatalf("%v\n%s", err, output)
	}
	return read(tb, filepath.Join(folder, "runner"))
}

func xz(tb testing.TB, plain []byte) []byte {
	tb.Helper()
	command := exec.Command(testutil.Tool(tb, "xz"), "-c")
	command.Stdin = bytes.NewReader(plain)
	packed, err := command.Output()
	if err != nil {
		tb.Fatal(err)
	}
	return packed
}

// rpmbuild makes an rpm of the files, with the payload in rpm's own words. A
// value that begins with "-> " is a symbolic link.
func rpmbuild(tb testing.TB, payload string, files map[string][]byte) string {
	tb.Helper()
	program, folder := testutil.Tool(tb, "rpmbuild"), tb.TempDir()
	list := stage(tb, filepath.Join(folder, "files"), files)
	spec := filepath.Join(folder, "old.spec")
	write(tb, spec, []byte(`Name: gitlab-runner
Version: 15.8.0
Release: 2
Summary: Old package
License: MIT
BuildArch: noarch
%description
Old.
%install
cp -a `+folder+`/files/. %{buildroot}/
%files
`+strings.Join(list, "\n")+"\n"))
	command := exec.Command(program, "-bb", "--define", "_topdir "+folder, "--define", "_binary_payload "+payload,
		"--define", "_build_id_links none", "--define", "__os_install_post %{nil}", "--define", "_binaries_in_noarch_packages_terminate_build 0", spec)
	if output, err := command.CombinedOutput(); err != nil {
		tb.Fatalf("%v\n%s", err, output)
	}
	return filepath.Join(folder, "RPMS/noarch/gitlab-runner-15.8.0-2.noarch.rpm")
}

// dpkgDeb makes a deb of the files.
func dpkgDeb(tb testing.TB, payload string, files map[string][]byte) string {
	tb.Helper()
	program, folder := testutil.Tool(tb, "dpkg-deb"), tb.TempDir()
	stage(tb, filepath.Join(folder, "files"), files)
	write(tb, filepath.Join(folder, "files/DEBIAN/control"),
		[]byte("Package: gitlab-runner\nVersion: 15.8.0-2\nArchitecture: all\nMaintainer: x <x@example.com>\nDescription: Old package\n"))
	deb := filepath.Join(folder, "gitlab-runner_15.8.0-2_all.deb")
	command := exec.Command(program, "--root-owner-group", "-Z"+payload, "-b", filepath.Join(folder, "files"), deb)
	if output, err := command.CombinedOutput(); err != nil {
		tb.Fatalf("%v\n%s", err, output)
	}
	return deb
}

func stage(tb testing.TB, folder string, files map[string][]byte) (list []string) {
	tb.Helper()
	for name, data := range files {
		file := filepath.Join(folder, name)
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

func write(tb testing.TB, file string, data []byte) {
	tb.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, data, 0o644)); err != nil {
		tb.Fatal(err)
	}
}

func read(tb testing.TB, file string) []byte {
	tb.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		tb.Fatal(err)
	}
	return data
}

// names lists all that is in folder.
func names(tb testing.TB, folder string) []string {
	tb.Helper()
	found := []string{}
	err := filepath.WalkDir(folder, func(file string, _ fs.DirEntry, err error) error {
		if file != folder && !errors.Is(err, fs.ErrNotExist) {
			found = append(found, strings.TrimPrefix(file, folder+"/"))
		}
		return nil
	})
	if err != nil {
		tb.Fatal(err)
	}
	return found
}

func options(tb testing.TB) Options {
	return Options{Catalogue: testutil.Catalogue(tb), Folder: filepath.Join(tb.TempDir(), "helper-images")}
}

func wantError(tb testing.TB, err error, parts ...string) {
	tb.Helper()
	if err == nil {
		tb.Fatal("no error")
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			tb.Errorf("got  %v\nwant %q", err, part)
		}
	}
}

func TestUnpack(t *testing.T) {
	files := old(t)
	for _, payload := range []string{
		"w9.gzdio", "w9.bzdio", "w2.xzdio", "w2.lzdio", "w3.zstdio", "w.ufdio",
		"gzip", "xz", "zstd", "none",
	} {
		t.Run(payload, func(t *testing.T) {
			make := dpkgDeb
			if strings.HasPrefix(payload, "w") {
				make = rpmbuild
			}
			file, opts := make(t, payload, files), options(t)
			done := map[string]int64{}
			opts.Progress = func(helper string, n, total int64) {
				if n < done[helper] || n > total {
					t.Errorf("%s: progress from %d to %d of %d", helper, done[helper], n, total)
				}
				done[helper] = n
			}
			got, err := Unpack(t.Context(), file, opts)
			if err != nil {
				t.Fatal(err)
			}
			want := Package{
				Name: "gitlab-runner", Version: "15.8.0", Release: "2", Revision: "12335144",
				Unknown: []string{helperImages + "prebuilt-solaris-sparc.tar.xz"},
			}
			listed := []string{}
			source := fmt.Sprintf("%s@sha256:%x", filepath.Base(file), sha256.Sum256(read(t, file)))
			for name, data := range files {
				for _, helper := range []string{"alpine-x86_64", "ubuntu-x86_64-pwsh", "ubuntu-arm64", "ubi-fips-x86_64"} {
					base := path.Base(name)
					if !strings.HasPrefix(base, "prebuilt-"+helper+".") || strings.HasSuffix(base, ".info") {
						continue
					}
					h, _ := opts.Catalogue.Lookup(helper)
					tarball := Tarball{Helper: h, Path: filepath.Join(opts.Folder, base), Origin: release.Origin{
						Source: source, Size: int64(len(data)), SHA256: fmt.Sprintf("%x", sha256.Sum256(data)),
					}}
					want.Tarballs = append(want.Tarballs, tarball)
					listed = append(listed, base, base+".origin")
					if !bytes.Equal(read(t, tarball.Path), data) {
						t.Errorf("%s: other bytes", base)
					}
					if o, err := release.ReadOrigin(tarball.Path); o != tarball.Origin {
						t.Errorf("%s: side file says %+v, %v, want %+v", base, o, err, tarball.Origin)
					}
					if done[helper] != int64(len(data)) {
						t.Errorf("%s: progress ends at %d of %d", helper, done[helper], len(data))
					}
				}
			}
			byPath := func(a, b Tarball) int { return strings.Compare(a.Path, b.Path) }
			slices.SortFunc(want.Tarballs, byPath)
			slices.SortFunc(got.Tarballs, byPath)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
			slices.Sort(listed)
			if diff := cmp.Diff(listed, names(t, opts.Folder)); diff != "" {
				t.Error(diff)
			}

			again, err := Unpack(t.Context(), file, opts)
			if err != nil {
				t.Fatal(err)
			}
			for _, tarball := range again.Tarballs {
				if !tarball.Kept {
					t.Errorf("%s: not kept", tarball.Path)
				}
			}
		})
	}
}

// A bad package leaves the folder as it was.
func TestUnpackRefuses(t *testing.T) {
	rootfs := testutil.Rootfs(t, "x")
	arm := map[string][]byte{helperImages + "prebuilt-alpine-arm.tar": rootfs}
	with := func(name, data string) map[string][]byte {
		return map[string][]byte{helperImages + "prebuilt-alpine-x86_64.tar": rootfs, name: []byte(data)}
	}
	deb := func(files map[string][]byte) func(*testing.T) string {
		return func(t *testing.T) string { return dpkgDeb(t, "gzip", files) }
	}
	change := func(change func([]byte) []byte) func(*testing.T) string {
		return func(t *testing.T) string {
			file := filepath.Join(t.TempDir(), "bad")
			write(t, file, change(read(t, dpkgDeb(t, "gzip", arm))))
			return file
		}
	}
	for name, test := range map[string]struct {
		file func(*testing.T) string
		want string
	}{
		"missing":      {func(*testing.T) string { return "nowhere.rpm" }, "nowhere.rpm"},
		"no package":   {change(func([]byte) []byte { return []byte("no package") }), "neither an rpm nor a deb"},
		"truncated":    {change(func(b []byte) []byte { return b[:len(b)-100] }), "unexpected EOF"},
		"flipped":      {change(func(b []byte) []byte { b[len(b)-50] ^= 1; return b }), "bad: "},
		"no helpers":   {deb(map[string][]byte{"/usr/bin/gitlab-runner": []byte("program")}), "no helper tarballs (prebuilt-*.tar*) in gitlab-runner 15.8.0; from 17.7.0 on they are in the package gitlab-runner-helper-images; it holds "},
		"only unknown": {deb(map[string][]byte{helperImages + "prebuilt-solaris-sparc.tar.xz": rootfs}), "no row of the catalogue knows " + helperImages + "prebuilt-solaris-sparc.tar.xz"},
		"link":         {deb(with(helperImages+"prebuilt-alpine-arm.tar", "-> /etc/passwd")), helperImages + "prebuilt-alpine-arm.tar: want a file, the package has a link"},
		"rpm link": {func(t *testing.T) string {
			return rpmbuild(t, "w9.gzdio", with(helperImages+"prebuilt-alpine-arm.tar", "-> /etc/passwd"))
		}, "want a file, the package has a link"},
		"not a tarball":     {deb(with(helperImages+"prebuilt-alpine-arm.tar.xz", strings.Repeat("text ", 1000))), "prebuilt-alpine-arm.tar.xz: not a helper tarball: "},
		"empty":             {deb(with(helperImages+"prebuilt-alpine-arm.tar.xz", "")), "prebuilt-alpine-arm.tar.xz: not a helper tarball: "},
		"twice":             {deb(with("/opt/prebuilt-alpine-x86_64.tar", string(rootfs))), "prebuilt-alpine-x86_64.tar is the tarball of alpine-x86_64 already"},
		"twice, other name": {deb(with("/opt/prebuilt-alpine-x86_64.tar.xz", string(rootfs))), "is the tarball of alpine-x86_64 already"},
		"escape": {func(t *testing.T) string {
			data := testutil.Tar(t, testutil.File("./usr/../../prebuilt-alpine-arm.tar", string(rootfs)))
			return ar(t, data)
		}, `path "./usr/../../prebuilt-alpine-arm.tar" contains ".."`},
	} {
		t.Run(name, func(t *testing.T) {
			opts := options(t)
			write(t, filepath.Join(opts.Folder, "mine"), nil)
			_, err := Unpack(t.Context(), test.file(t), opts)
			wantError(t, err, test.want)
			if diff := cmp.Diff([]string{"mine"}, names(t, opts.Folder)); diff != "" {
				t.Error(diff)
			}
		})
	}

	t.Run("cancelled", func(t *testing.T) {
		opts := options(t)
		ctx, cancel := context.WithCancel(t.Context())
		opts.Progress = func(string, int64, int64) { cancel() }
		_, err := Unpack(ctx, dpkgDeb(t, "gzip", arm), opts)
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		if left := names(t, opts.Folder); len(left) > 0 {
			t.Errorf("left behind: %q", left)
		}
	})
	t.Run("someone else's file", func(t *testing.T) {
		opts := options(t)
		mine := filepath.Join(opts.Folder, "prebuilt-alpine-arm.tar")
		write(t, mine, []byte("mine"))
		file := dpkgDeb(t, "gzip", arm)
		_, err := Unpack(t.Context(), file, opts)
		wantError(t, err, mine+" already exists and was not fetched by pretag")
		if diff := cmp.Diff([]string{"prebuilt-alpine-arm.tar"}, names(t, opts.Folder)); diff != "" || string(read(t, mine)) != "mine" {
			t.Error(diff)
		}
		if err := os.Remove(mine); err != nil {
			t.Fatal(err)
		}
		if _, err := Unpack(t.Context(), file, opts); err != nil {
			t.Fatal(err)
		}
		other := map[string][]byte{helperImages + "prebuilt-alpine-arm.tar": testutil.Rootfs(t, "another")}
		if _, err := Unpack(t.Context(), dpkgDeb(t, "gzip", other), opts); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(read(t, mine), other[helperImages+"prebuilt-alpine-arm.tar"]) {
			t.Error("what another package left was not replaced")
		}
	})
}

// ar makes a deb of a data.tar that dpkg-deb would not make.
func ar(tb testing.TB, data []byte) string {
	tb.Helper()
	control := testutil.Tar(tb, testutil.File("control", "Package: old\nVersion: 1\nArchitecture: all\n"))
	var deb bytes.Buffer
	deb.WriteString("!<arch>\n")
	for _, member := range []struct {
		name string
		data []byte
	}{{"debian-binary", []byte("2.0\n")}, {"control.tar", control}, {"data.tar", data}} {
		fmt.Fprintf(&deb, "%-16s%-12d%-6d%-6d%-8s%-10d`\n", member.name, 0, 0, 0, "100644", len(member.data))
		deb.Write(member.data)
	}
	file := filepath.Join(tb.TempDir(), "old.deb")
	write(tb, file, deb.Bytes())
	return file
}

// The revision is found wherever a chunk ends, and only where it is one.
func TestFindRevision(t *testing.T) {
	for _, padding := range []int{0, 1<<20 - len(revisionFlag) - 4, 1<<20 - len(revisionFlag), 1<<20 - 3, 1 << 20} {
		text := strings.Repeat("x", padding) + revisionFlag + "12335144"
		if got, err := findRevision(strings.NewReader(text)); got != "12335144" || err != nil {
			t.Errorf("after %d bytes: got %q, %v", padding, got, err)
		}
	}
	if got, err := findRevision(strings.NewReader(revisionFlag + "HEAD1234 " + revisionFlag + "12335144")); got != "12335144" || err != nil {
		t.Errorf("after another word: got %q, %v", got, err)
	}
	if got, err := findRevision(strings.NewReader(revisionFlag + "1233514")); got != "" || err != nil {
		t.Errorf("cut short: got %q, %v", got, err)
	}
}
