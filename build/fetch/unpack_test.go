package fetch

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"pretag/build/release"
	"pretag/build/testutil"
	"pretag/build/testutil/archivetest"
)

const helperImages = "/usr/lib/gitlab-runner/helper-images/"

// old returns what GitLab Runner's own packages contain, in small.
func old(tb testing.TB) map[string][]byte {
	tb.Helper()
	archive := archivetest.Archives(tb, tb.TempDir(), "ubuntu-arm64")[0]
	return map[string][]byte{
		"/usr/bin/gitlab-runner":                           []byte("ELF " + revisionFlag + "12335144 "),
		"/usr/share/gitlab-runner/post-install":            []byte("#!/bin/sh\n"),
		helperImages + "prebuilt-alpine-x86_64.tar":        testutil.Rootfs(tb, "alpine-x86_64"),
		helperImages + "prebuilt-ubuntu-x86_64-pwsh.tar":   testutil.Rootfs(tb, "pwsh"),
		helperImages + archive.Name:                        read(tb, archive.Path),
		helperImages + archive.Name + ".info":              read(tb, archive.Path+".info"),
		helperImages + "prebuilt-solaris-sparc.tar.xz":     []byte("no helper"),
		helperImages + "README.prebuilt":                   []byte("text"),
		"/opt/old/prebuilt-ubi-fips-x86_64.tar":            testutil.Rootfs(tb, "fips"),
		"/usr/share/doc/gitlab-runner/prebuilt-images.txt": []byte("text"),
	}
}

// deb makes a deb in memory, and writes it to a file. A value that begins with
// "-> " is a symbolic link.
func deb(tb testing.TB, files map[string][]byte) string {
	tb.Helper()
	var entries []testutil.Entry
	for _, name := range slices.Sorted(maps.Keys(files)) {
		entry := testutil.File("."+name, string(files[name]))
		if target, link := strings.CutPrefix(string(files[name]), "-> "); link {
			entry = testutil.Entry{Header: tar.Header{Name: "." + name, Typeflag: tar.TypeSymlink, Linkname: target}}
		}
		entries = append(entries, entry)
	}
	return ar(tb, testutil.Tar(tb, entries...))
}

// ar makes a deb of a data.tar.
func ar(tb testing.TB, data []byte) string {
	tb.Helper()
	control := testutil.Tar(tb, testutil.File("control", "Package: gitlab-runner\nVersion: 15.8.0-2\nArchitecture: all\nMaintainer: x <x@example.com>\nDescription: x\n"))
	var packed, b bytes.Buffer
	w := gzip.NewWriter(&packed)
	w.Write(data)
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	b.WriteString("!<arch>\n")
	for _, member := range []struct {
		name string
		data []byte
	}{{"debian-binary", []byte("2.0\n")}, {"control.tar", control}, {"data.tar.gz", packed.Bytes()}} {
		fmt.Fprintf(&b, "%-16s%-12d%-6d%-6d%-8s%-10d`\n", member.name, 0, 0, 0, "100644", len(member.data))
		b.Write(member.data)
	}
	file := filepath.Join(tb.TempDir(), "old.deb")
	write(tb, file, b.Bytes())
	return file
}

func unpackOptions(tb testing.TB) UnpackOptions {
	return UnpackOptions{Catalogue: testutil.Catalogue(tb), Dir: filepath.Join(tb.TempDir(), "helper-images")}
}

func TestUnpack(t *testing.T) {
	files := old(t)
	checkUnpack(t, deb(t, files), files)
}

// checkUnpack unpacks a package of the files of old.
func checkUnpack(t *testing.T, file string, files map[string][]byte) {
	t.Helper()
	opts := unpackOptions(t)
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
	want := Unpacked{
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
			tarball := Tarball{Helper: h, Path: filepath.Join(opts.Dir, base), Origin: release.Origin{
				Source: source, Size: int64(len(data)), SHA256: fmt.Sprintf("%x", sha256.Sum256(data)),
			}}
			want.Tarballs = append(want.Tarballs, tarball)
			listed = append(listed, base, base+".origin")
			if !bytes.Equal(read(t, tarball.Path), data) {
				t.Errorf("%s: other bytes", base)
			}
			if o, err := release.ReadOrigin(tarball.Path); o != tarball.Origin {
				t.Errorf("%s: record says %+v, %v, want %+v", base, o, err, tarball.Origin)
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
	if diff := cmp.Diff(listed, names(t, opts.Dir)); diff != "" {
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
}

// A bad package leaves the directory as it was.
func TestUnpackRefuses(t *testing.T) {
	rootfs := testutil.Rootfs(t, "x")
	arm := map[string][]byte{helperImages + "prebuilt-alpine-arm.tar": rootfs}
	with := func(name, data string) map[string][]byte {
		return map[string][]byte{helperImages + "prebuilt-alpine-x86_64.tar": rootfs, name: []byte(data)}
	}
	of := func(files map[string][]byte) func(*testing.T) string {
		return func(t *testing.T) string { return deb(t, files) }
	}
	change := func(change func([]byte) []byte) func(*testing.T) string {
		return func(t *testing.T) string {
			file := filepath.Join(t.TempDir(), "bad")
			write(t, file, change(read(t, deb(t, arm))))
			return file
		}
	}
	for name, test := range map[string]struct {
		file func(*testing.T) string
		want string
	}{
		"pipe": {func(t *testing.T) string {
			file := filepath.Join(t.TempDir(), "pipe.deb")
			if err := syscall.Mkfifo(file, 0o600); err != nil {
				t.Fatal(err)
			}
			return file
		}, "pipe.deb: not a regular file"},
		"missing":           {func(*testing.T) string { return "nowhere.rpm" }, "nowhere.rpm"},
		"no package":        {change(func([]byte) []byte { return []byte("no package") }), "neither an rpm nor a deb"},
		"truncated":         {change(func(b []byte) []byte { return b[:len(b)-100] }), "unexpected EOF"},
		"flipped":           {change(func(b []byte) []byte { b[len(b)-50] ^= 1; return b }), "bad: "},
		"no helpers":        {of(map[string][]byte{"/usr/bin/gitlab-runner": []byte("program")}), "no helper tarballs (prebuilt-*.tar*) in gitlab-runner 15.8.0; from 17.7.0 on they are in the package gitlab-runner-helper-images; it has "},
		"only unknown":      {of(map[string][]byte{helperImages + "prebuilt-solaris-sparc.tar.xz": rootfs}), "the catalogue has no row for " + helperImages + "prebuilt-solaris-sparc.tar.xz"},
		"link":              {of(with(helperImages+"prebuilt-alpine-arm.tar", "-> /etc/passwd")), helperImages + "prebuilt-alpine-arm.tar: want a regular file, the package has L--------- /etc/passwd"},
		"not a tarball":     {of(with(helperImages+"prebuilt-alpine-arm.tar.xz", strings.Repeat("text ", 1000))), "prebuilt-alpine-arm.tar.xz: not a helper tarball: "},
		"empty":             {of(with(helperImages+"prebuilt-alpine-arm.tar.xz", "")), "prebuilt-alpine-arm.tar.xz: not a helper tarball: "},
		"twice":             {of(with("/opt/prebuilt-alpine-x86_64.tar", string(rootfs))), "a second tarball of alpine-x86_64, besides prebuilt-alpine-x86_64.tar"},
		"twice, other name": {of(with("/opt/prebuilt-alpine-x86_64.tar.xz", string(rootfs))), "a second tarball of alpine-x86_64, besides prebuilt-alpine-x86_64.tar"},
		"escape": {func(t *testing.T) string {
			data := testutil.Tar(t, testutil.File("./usr/../../prebuilt-alpine-arm.tar", string(rootfs)))
			return ar(t, data)
		}, `path "./usr/../../prebuilt-alpine-arm.tar" contains ".."`},
	} {
		t.Run(name, func(t *testing.T) {
			opts := unpackOptions(t)
			write(t, filepath.Join(opts.Dir, "mine"), nil)
			_, err := Unpack(t.Context(), test.file(t), opts)
			wantError(t, err, test.want)
			if diff := cmp.Diff([]string{"mine"}, names(t, opts.Dir)); diff != "" {
				t.Error(diff)
			}
		})
	}

	t.Run("cancelled", func(t *testing.T) {
		opts := unpackOptions(t)
		ctx, cancel := context.WithCancel(t.Context())
		opts.Progress = func(string, int64, int64) { cancel() }
		_, err := Unpack(ctx, deb(t, arm), opts)
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		if left := names(t, opts.Dir); len(left) > 0 {
			t.Errorf("left behind: %q", left)
		}
	})
	t.Run("someone else's file", func(t *testing.T) {
		opts := unpackOptions(t)
		mine := filepath.Join(opts.Dir, "prebuilt-alpine-arm.tar")
		write(t, mine, []byte("mine"))
		file := deb(t, arm)
		_, err := Unpack(t.Context(), file, opts)
		wantError(t, err, mine+" already exists and was not fetched by pretag")
		if diff := cmp.Diff([]string{"prebuilt-alpine-arm.tar"}, names(t, opts.Dir)); diff != "" || string(read(t, mine)) != "mine" {
			t.Error(diff)
		}
		if err := os.Remove(mine); err != nil {
			t.Fatal(err)
		}
		if _, err := Unpack(t.Context(), file, opts); err != nil {
			t.Fatal(err)
		}
		other := map[string][]byte{helperImages + "prebuilt-alpine-arm.tar": testutil.Rootfs(t, "another")}
		if _, err := Unpack(t.Context(), deb(t, other), opts); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(read(t, mine), other[helperImages+"prebuilt-alpine-arm.tar"]) {
			t.Error("what another package left was not replaced")
		}
	})
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

// The command that unpack shows is safe to copy into a shell, even if the package's name or
// version is hostile.
func TestSettings(t *testing.T) {
	c := testutil.Catalogue(t)
	var tarballs []Tarball
	for _, h := range c.Default(version(t, "19.3.0")) {
		tarballs = append(tarballs, Tarball{Helper: h})
	}
	for _, row := range []struct {
		found Unpacked
		want  string
	}{
		{Unpacked{Version: "19.3.0", Release: "2"}, "RUNNER_VERSION=19.3.0 PACKAGES_ITERATION=2"},
		{Unpacked{Version: "19.3.0", Release: "1~bpo12+1"}, "RUNNER_VERSION=19.3.0 PACKAGES_ITERATION=1~bpo12+1"},
		{Unpacked{Version: "19.4.0~beta.7.g0123abc", Release: "1; x"}, "RUNNER_VERSION=19.4.0~beta.7.g0123abc"},
		{Unpacked{Version: "0.0.0~latest"}, "RUNNER_VERSION=latest"},
		{Unpacked{Version: "16.7.0", Revision: "12335144"}, "RUNNER_VERSION=16.7.0 RUNNER_REVISION=12335144"},
		{Unpacked{Version: "16.7.0", Revision: "102c81ba"}, "RUNNER_VERSION=16.7.0"},
		{Unpacked{Version: "16.7.0"}, "RUNNER_VERSION=16.7.0"},
		{Unpacked{Version: "16.7.9", Revision: "12335144"}, "RUNNER_VERSION=16.7.9 RUNNER_REVISION=12335144"},
		{Unpacked{Version: "16.7.9"}, "RUNNER_VERSION=16.7.9 RUNNER_REVISION=<first 8 digits of the commit>"},
		{Unpacked{Version: "1;rm -rf ~", Revision: "12335144"}, "RUNNER_VERSION=<version of GitLab Runner>"},
		{Unpacked{Version: "15.7.0"}, "RUNNER_VERSION=<version of GitLab Runner>"},
	} {
		row.found.Tarballs = tarballs
		got := row.found.Settings(c)
		if got, _, _ := strings.Cut(got, " HELPERS="); got != row.want {
			t.Errorf("%+q: %s, want %s", row.found.Version, got, row.want)
		}
	}
}
