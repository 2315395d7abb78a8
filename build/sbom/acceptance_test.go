//go:build acceptance

package sbom_test

import (
	"archive/tar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pretag/build/sbom"
	"pretag/build/testutil"
)

// The database of this machine, which dpkg itself wrote, with some of the programs.
func TestDebian(t *testing.T) {
	testutil.Tool(t, "dpkg-query")
	var entries []testutil.Entry
	for _, pattern := range []string{
		"/bin", "/sbin", "/lib", // links where the system is merged into /usr
		"/etc/os-release", "/usr/lib/os-release", "/usr/share/doc/*", "/usr/share/doc/*/copyright",
		"/var/lib/dpkg/status", "/var/lib/dpkg/diversions", "/var/lib/dpkg/info/*.list", "/usr/bin/dpkg*", "/usr/bin/tar", "/usr/bin/gzip",
	} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			through, err := filepath.EvalSymlinks(filepath.Dir(path))
			if err != nil || through != filepath.Dir(path) {
				continue // a file in a linked directory
			}
			info, err := os.Lstat(path)
			if err != nil {
				t.Fatal(err)
			}
			e := testutil.Entry{Header: tar.Header{Name: path[1:], Typeflag: tar.TypeReg, Mode: int64(info.Mode().Perm())}}
			switch {
			case info.Mode().IsRegular():
				e.Body, err = os.ReadFile(path)
			case info.Mode().Type() == os.ModeSymlink:
				e.Header.Typeflag = tar.TypeSymlink
				e.Header.Linkname, err = os.Readlink(path)
			default:
				e.Header.Typeflag = tar.TypeDir
			}
			if err != nil {
				t.Fatal(err)
			}
			entries = append(entries, e)
		}
	}
	d := document(t, pack(t, testutil.Tar(t, append(entries, executable("usr/bin/unpackaged", "x"))...)))
	got := map[string]bool{}
	for _, row := range rows(d, "deb") {
		name, _, _ := strings.Cut(row, "&distro=")
		if name, err := url.PathUnescape(name); err == nil {
			got[name] = true
		}
	}
	want := 0
	for line := range strings.Lines(run(t, "dpkg-query", "-W", "-f", "${db:Status-Status} ${Package} ${Version} ${Architecture}\n")) {
		fields := strings.Fields(line)
		if len(fields) != 4 || fields[0] == "config-files" || fields[0] == "not-installed" {
			continue
		}
		want++
		if purl := "pkg:deb/debian/" + fields[1] + "@" + fields[2] + "?arch=" + fields[3]; !got[purl] {
			t.Errorf("no %s", purl)
		}
	}
	if len(got) != want {
		t.Errorf("%d packages, dpkg has %d", len(got), want)
	}
	if unpackaged := d.Summary().Unpackaged; !slices.Equal(unpackaged, []string{"/usr/bin/unpackaged"}) {
		t.Errorf("dpkg lists all programs but one, unpackaged are %q", unpackaged)
	}
}

// The two forms of rpm's database, of small packages.
func TestRPM(t *testing.T) {
	testutil.Tool(t, "rpmbuild")
	testutil.Tool(t, "rpm")
	dir := t.TempDir()
	spec := filepath.Join(dir, "small.spec")
	// many files, so that headers span pages of the database
	if err := os.WriteFile(spec, []byte(`Name: small
Version: 1.2
Release: 3
Epoch: 4
Summary: A small package
License: %{words}
Vendor: Example, Inc.
URL: https://example.com/small
BuildArch: noarch
%description
A small package.
%package other
Summary: Another
License: MIT AND LicenseRef-Callaway-BSD
%description other
Another.
%install
mkdir -p %{buildroot}/usr/bin %{buildroot}/usr/share/small
echo '#!/bin/sh' > %{buildroot}/usr/bin/small
for n in $(seq 500); do : > %{buildroot}/usr/share/small/a-rather-long-name-of-file-$n; done
%files
%attr(755,root,root) /usr/bin/small
/usr/share/small
%files other
`), 0o644); err != nil {
		t.Fatal(err)
	}
	run(t, "rpmbuild", "-bb", "--quiet", "--define", "_topdir "+dir, "--define", "words GPLv2+ and BSD", spec)
	rpms, err := filepath.Glob(filepath.Join(dir, "RPMS/noarch/*.rpm"))
	if err != nil || len(rpms) != 2 {
		t.Fatal(rpms, err)
	}
	want := []string{
		"pkg:rpm/redhat/small@1.2-3?arch=noarch&distro=rhel-9.4&epoch=4&upstream=small-1.2-3.src.rpm LicenseRef-GPLv2-and-BSD-",
		"pkg:rpm/redhat/small-other@1.2-3?arch=noarch&distro=rhel-9.4&epoch=4&upstream=small-1.2-3.src.rpm MIT AND LicenseRef-Callaway-BSD",
	}
	sqlite := t.TempDir()
	run(t, "rpm", append([]string{"--dbpath", sqlite, "--justdb", "--nodeps", "-i"}, rpms...)...)
	sqlite = filepath.Join(sqlite, "rpmdb.sqlite")
	for name, make := range map[string]func(t *testing.T, sqlite, path string){
		"rpmdb.sqlite": func(t *testing.T, sqlite, path string) { run(t, "cp", sqlite, path) },
		"Packages":     berkeley,
	} {
		t.Run(name, func(t *testing.T) {
			db := t.TempDir()
			make(t, sqlite, filepath.Join(db, name))
			data, err := os.ReadFile(filepath.Join(db, name))
			if err != nil {
				t.Fatal(err)
			}
			d := document(t, pack(t, testutil.Tar(
				t, testutil.File("etc/os-release", "ID=\"rhel\"\nVERSION_ID=\"9.4\"\n"),
				testutil.File("var/lib/rpm/"+name, string(data)), executable("usr/bin/small", "#!/bin/sh\n"),
			)))
			got := rows(d, "rpm")
			if len(got) != 2 || !strings.HasPrefix(got[0], want[0]) || got[1] != want[1] {
				t.Errorf("got %q, want %q", got, want)
			}
			if p := d.Packages[2]; p.PackageSupplier.Supplier != "Example, Inc." || p.PackageVersion != "4:1.2-3" || p.PackageHomePage != "https://example.com/small" {
				t.Errorf("%+v", p)
			}
			if len(d.OtherLicenses) != 2 || d.OtherLicenses[0].LicenseIdentifier != "LicenseRef-Callaway-BSD" {
				t.Errorf("licenses that SPDX does not list: %v", d.OtherLicenses)
			}
			if unpackaged := d.Summary().Unpackaged; unpackaged != nil {
				t.Errorf("rpm does not list %q", unpackaged)
			}
			damage(t, "var/lib/rpm/"+name, data)
		})
	}
}

func run(t *testing.T, program string, args ...string) string {
	t.Helper()
	out, err := exec.Command(program, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", program, err, out)
	}
	return string(out)
}

// berkeley makes a Berkeley DB of the headers, as rpm up to 4.15 did. Today's
// rpm still reads it.
func berkeley(t *testing.T, sqlite, path string) {
	testutil.Tool(t, "db5.3_load")
	testutil.Tool(t, "python3")
	blobs := run(t, "python3", "-c", `
import sqlite3, struct, sys
print("VERSION=3\nformat=bytevalue\ntype=hash\nHEADER=END")
print(" 00000000\n 02000000")
for n, blob in sqlite3.connect(sys.argv[1]).execute("SELECT hnum, blob FROM Packages"):
    print(" " + struct.pack("<I", n).hex() + "\n " + blob.hex())
print("DATA=END")`, sqlite)
	cmd := exec.Command("db5.3_load", path)
	cmd.Stdin = strings.NewReader(blobs)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	out := run(t, "rpm", "--dbpath", filepath.Dir(path), "--define", "_db_backend bdb_ro", "-qa")
	if strings.Count(out, "small") != 2 {
		t.Fatalf("rpm itself finds %q", out)
	}
}

// A database whose last changes are in the write-ahead log, as a container
// that was stopped leaves it.
func TestRPMNotClosed(t *testing.T) {
	testutil.Tool(t, "python3")
	dir := t.TempDir()
	run(t, "python3", "-c", `
import os, sqlite3, sys
c = sqlite3.connect(sys.argv[1] + "/db")
c.execute("PRAGMA journal_mode=WAL")
c.execute("CREATE TABLE 'Packages' (hnum INTEGER PRIMARY KEY AUTOINCREMENT, blob BLOB NOT NULL)")
c.execute("INSERT INTO Packages (blob) VALUES (?)", (b"x" * 10,))
c.commit()
c.execute("PRAGMA wal_checkpoint(TRUNCATE)")
for n in range(50):
    c.execute("INSERT INTO Packages (blob) VALUES (?)", (b"y" * 5000,))
    c.commit()
c.execute("INSERT INTO Packages (blob) VALUES (?)", (b"not committed",))
os._exit(0)`, dir)
	db, err := os.ReadFile(filepath.Join(dir, "db"))
	if err != nil {
		t.Fatal(err)
	}
	wal, err := os.ReadFile(filepath.Join(dir, "db-wal"))
	if err != nil {
		t.Fatal(err)
	}
	for want, wal := range map[int][]byte{1: nil, 51: wal, 50: wal[:len(wal)-100]} {
		blobs, err := sbom.Headers(t.Context(), db, wal)
		if err != nil || len(blobs) != want {
			t.Errorf("%d headers, %v, want %d", len(blobs), err, want)
		}
	}
	for i := range 200 {
		bad := slices.Clone(wal)
		bad[i] ^= 0xff
		_, _ = sbom.Headers(t.Context(), db, bad)
	}
}

// damage changes a database in many places: it is read or refused, and a cut
// one refused always.
func damage(t *testing.T, name string, data []byte) {
	t.Helper()
	for i := 0; i < len(data); i += max(1, len(data)/200) {
		bad := slices.Clone(data)
		bad[i] ^= 0xff
		bad[len(bad)-1-i/2] ^= 0x40
		_, _ = sbom.Headers(t.Context(), bad, nil)
		if _, err := sbom.Headers(t.Context(), data[:i], nil); err == nil && i > 0 {
			t.Fatalf("%s: no error for %d of %d bytes", name, i, len(data))
		}
	}
}
