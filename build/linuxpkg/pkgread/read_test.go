package pkgread_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/goreleaser/nfpm/v2"
	_ "github.com/goreleaser/nfpm/v2/deb"
	"github.com/goreleaser/nfpm/v2/files"
	_ "github.com/goreleaser/nfpm/v2/rpm"

	"pretag/build/linuxpkg/pkgread"
	"pretag/build/release"
	"pretag/build/testutil"
)

// packages are a small rpm and a small deb, as nfpm writes them.
func packages(tb testing.TB) map[string][]byte {
	tb.Helper()
	file := filepath.Join(tb.TempDir(), "file")
	write(tb, file, bytes.Repeat([]byte("helper image "), 100))
	all := map[string][]byte{}
	for _, format := range []string{release.RPM, release.Deb} {
		packager, err := nfpm.Get(format)
		if err != nil {
			tb.Fatal(err)
		}
		var b bytes.Buffer
		err = packager.Package(nfpm.WithDefaults(&nfpm.Info{
			Name: "small", Arch: "amd64", Version: "1.2.3", Release: "4", Maintainer: "x <x@example.com>", MTime: testutil.Created(),
			Overridables: nfpm.Overridables{
				RPM:      nfpm.RPM{Compression: "zstd:fastest", BuildHost: "host"},
				Contents: files.Contents{{Source: file, Destination: "/usr/lib/small/file"}, {Source: "file", Destination: "/usr/lib/small/link", Type: "symlink"}},
			},
		}), &b)
		if err != nil {
			tb.Fatal(err)
		}
		all[format] = b.Bytes()
	}
	return all
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
func readAll(path string) (pkgread.Metadata, map[string][]byte, []pkgread.Entry, error) {
	r, err := pkgread.Open(context.Background(), path)
	if err != nil {
		return pkgread.Metadata{}, nil, nil, err
	}
	defer r.Close()
	files := map[string][]byte{}
	var entries []pkgread.Entry
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

// TestTruncated: a package that ends early is never read to its end, wherever it is cut.
func TestTruncated(t *testing.T) {
	dir := t.TempDir()
	for format, data := range packages(t) {
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
	for format, data := range packages(t) {
		whole := filepath.Join(dir, "whole")
		write(t, whole, data)
		_, want, _, err := readAll(whole)
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
	for _, data := range packages(f) {
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
	if _, err := pkgread.Open(t.Context(), path); err == nil || !strings.Contains(err.Error(), path+": neither an rpm nor a deb") {
		t.Errorf("error %v", err)
	}
}

// Neither a FIFO, which has no end, nor a directory is read.
func TestNotRegular(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{path, filepath.Dir(path)} {
		if _, err := pkgread.Open(t.Context(), path); err == nil || err.Error() != path+": not a regular file" {
			t.Errorf("error %v", err)
		}
	}
}

// Reading ends with the context, wherever it is.
func TestContext(t *testing.T) {
	stop := errors.New("stop")
	for format, data := range packages(t) {
		path := filepath.Join(t.TempDir(), "package")
		write(t, path, data)
		ctx, cancel := context.WithCancelCause(t.Context())
		r, err := pkgread.Open(ctx, path)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if size, sum, err := r.Sum(); err != nil || size != int64(len(data)) || sum != fmt.Sprintf("%x", sha256.Sum256(data)) {
			t.Errorf("%s: sum %d %s, %v", format, size, sum, err)
		}
		cancel(stop)
		var last error
		for _, err := range r.Contents() {
			last = err
		}
		if !errors.Is(last, stop) {
			t.Errorf("%s: contents: error %v, want %v", format, last, stop)
		}
		if _, _, err := r.Sum(); !errors.Is(err, stop) {
			t.Errorf("%s: sum: error %v, want %v", format, err, stop)
		}
		if _, err := pkgread.Open(ctx, path); format == release.Deb && !errors.Is(err, stop) {
			t.Errorf("%s: open: error %v, want %v", format, err, stop)
		}
	}
}
