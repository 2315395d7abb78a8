package sbom

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"iter"
	"runtime"
	"strings"
	"testing"

	"pretag/build/archive"
	"pretag/build/release"
	"pretag/build/testutil"
)

// repeat calls line n times.
func repeat(n int, line func(i int) string) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(line(i))
	}
	return b.String()
}

// Inputs that are small, or cheap to make, and asked for minutes or gigabytes.
func TestHostileImages(t *testing.T) {
	const (
		apk    = "lib/apk/db/installed"
		status = "var/lib/dpkg/status"
		format = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n"
	)
	sameName := repeat(5_000, func(i int) string { return fmt.Sprintf("Package: p\nVersion: %d\n\n", i) })
	for name, row := range map[string]struct {
		entries []testutil.Entry
		want    string // an error, or what the license text holds
	}{
		"one copyright file for 5,000 packages": {[]testutil.Entry{
			testutil.File(status, sameName),
			testutil.File("usr/share/doc/p/copyright", format+"\n"+strings.Repeat("Files: x\nLicense: ISC\n\n", 2000)),
		}, "deb p 4999 ISC"},
		"one list of files for 5,000 packages": {[]testutil.Entry{
			testutil.File(status, sameName),
			testutil.File("var/lib/dpkg/info/p.list", strings.Repeat("/usr/bin/tool\n", 10_000)),
		}, "deb p 4999 NOASSERTION"},
		"a field of 100,000 lines": {[]testutil.Entry{
			testutil.File(status, "Package: p\nVersion: 1\nDescription: x\n"+strings.Repeat(" y\n", 100_000)),
		}, "deb p 1 NOASSERTION"},
		"40,000 ORs": {[]testutil.Entry{
			testutil.File(apk, "P:a\nV:1\nL:MIT"+strings.Repeat(" OR MIT", 40_000)+"\n"),
		}, "apk a 1 LicenseRef-MIT-OR-MIT-OR"},
		"40,000 ors": {[]testutil.Entry{
			testutil.File(status, "Package: p\nVersion: 1\n"),
			testutil.File("usr/share/doc/p/copyright", format+"License: GPL-2"+strings.Repeat(" or GPL-2", 40_000)+"\n"),
		}, "p 1 LicenseRef-GPL-2-or-GPL-2-"},
		"500,000 parentheses": {[]testutil.Entry{
			testutil.File(apk, "P:a\nV:1\nL:"+strings.Repeat("(", 500_000)+"MIT\n"),
		}, "a 1 LicenseRef-"},
		"150 different long licenses": {[]testutil.Entry{
			testutil.File(apk, repeat(150, func(i int) string { return fmt.Sprintf("P:a%d\nV:1\nL:%d%s\n\n", i, i, strings.Repeat(" OR MIT", 500)) })),
		}, "license expressions of more than 262144 bytes"},
		"long licenses of many files": {[]testutil.Entry{
			testutil.File(status, repeat(1000, func(i int) string { return fmt.Sprintf("Package: p\nVersion: %d\n\n", i) })),
			testutil.File("usr/share/doc/p/copyright", format+"\n"+repeat(1000, func(i int) string { return fmt.Sprintf("Files: x\nLicense: L%d\n\n", i) })),
		}, "LicenseRef-LicenseRef-L0-AND-LicenseRef-L1-AND"},
		"50,001 stanzas": {[]testutil.Entry{
			testutil.File(apk, repeat(50_001, func(i int) string { return fmt.Sprintf("P:%d\nV:1\n\n", i) })),
		}, "more than 50000 packages"},
		"one deep directory for many files": {[]testutil.Entry{
			testutil.File(apk, "P:a\nV:1\nF:"+strings.Repeat("d/", 2000)+strings.Repeat("\nR:x", 20_000)+"\n"), testutil.Dir(strings.Repeat("d/", 2000)),
		}, "following the paths and links of the image takes too many steps"},
		"a path of 5,000 bytes": {[]testutil.Entry{
			testutil.File(apk, "P:a\nV:1\nF:"+strings.Repeat("d", 5000)+"\nR:x\n"),
		}, "apk a 1 NOASSERTION"},
		"links that multiply": {[]testutil.Entry{
			testutil.File(apk, "P:a\nV:1\n"+repeat(40, func(int) string { return "F:l9/l9\nR:x\n" })), testutil.Dir("d"),
			symlinkTo("l0", "d/../d"), symlinkTo("l1", "l0/../l0/../l0/../l0/../l0"), symlinkTo("l2", "l1/../l1/../l1/../l1"), symlinkTo("l9", strings.Repeat("l2/../", 600)+"l2"),
		}, "apk a 1 NOASSERTION"},
		"many diversions": {[]testutil.Entry{
			testutil.File(status, "Package: p\nVersion: 1\n"),
			testutil.File("var/lib/dpkg/diversions", repeat(20_000, func(i int) string { return fmt.Sprintf("/%d\n/x\n:\n", i) })),
		}, "/var/lib/dpkg/diversions has more than 10000 diversions"},
		"a long name of the distribution": {[]testutil.Entry{
			testutil.File("etc/os-release", "ID="+strings.Repeat("x", 1<<20)+"\nVERSION_ID=1\n"),
			testutil.File(apk, repeat(10_000, func(i int) string { return fmt.Sprintf("P:%d\nV:1\n\n", i) })),
		}, "apk 9999 1 NOASSERTION"},
		"an rpm header whose tags share their values": {[]testutil.Entry{
			testutil.File("var/lib/rpm/rpmdb.sqlite", string(sqliteOf(sharing()))),
		}, "/var/lib/rpm/rpmdb.sqlite: header 1: tag 1001 at offset 0 overlaps"},
		"a damaged rpm database": {[]testutil.Entry{
			testutil.File("var/lib/rpm/rpmdb.sqlite", string(sqliteOf([]byte("no header")))),
		}, "/var/lib/rpm/rpmdb.sqlite: header 1: "},
		"a damaged status": {[]testutil.Entry{
			testutil.File(status, "Package: a\nVersion: 1\n\nPackage\n"),
		}, `/var/lib/dpkg/status: line 4: "Package" is not a field`},
	} {
		t.Run(name, func(t *testing.T) {
			f := Pack(t, testutil.Tar(t, row.entries...))
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			d, err := Of(t.Context(), f)
			got := fmt.Sprint(err)
			if err == nil {
				got = string(d.Licenses())
			}
			runtime.ReadMemStats(&after)
			got = strings.Join(strings.Fields(got), " ")
			if !strings.Contains(got, row.want) || err != nil && len(got) > 1000 {
				t.Errorf("got %.1000s, want %s", got, row.want)
			}
			used := (after.TotalAlloc - before.TotalAlloc) >> 20
			if used > 1024 { // of which zstd takes a quarter
				t.Errorf("%d MiB were allocated, want at most 1024", used)
			}
		})
	}
}

func symlinkTo(name, target string) testutil.Entry {
	return testutil.Entry{Header: tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: target}}
}

// sharing is a header with two tags over the same bytes.
func sharing() []byte {
	b := headerOf(tagName, "a", tagVersion, "1")
	copy(b[8+16+8:], []byte{0, 0, 0, 0})
	return b
}

// Every reader of a database ends with the context.
func TestContext(t *testing.T) {
	stop := errors.New("stop")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(stop)
	i := imageOf(t, map[string]string{"usr/share/doc/p/copyright": "Format: copyright-format\nLicense: ISC\n"})
	l := newLicenses()
	for name, packages := range map[string]iter.Seq2[software, error]{
		"apk":  l.apk(ctx, []byte("P:a\n\nP:b\n")),
		"rpm":  l.rpm(ctx, sqliteOf(headerOf(tagName, "a", tagVersion, "1")), nil),
		"dpkg": (&dpkg{image: i, licenses: l}).status(ctx, dpkgStatus, []byte("Package: p\nVersion: 1\n\n")),
	} {
		for s, err := range packages {
			if !errors.Is(err, stop) {
				t.Errorf("%s: package %q, error %v, want %v", name, s.name, err, stop)
			}
		}
	}
	if err := (&dpkg{image: i, licenses: l}).begin(ctx); !errors.Is(err, stop) {
		t.Errorf("diversions: error %v, want %v", err, stop)
	}
	for file := range apkFiles(ctx, []byte("F:d\nR:x\n")) {
		t.Errorf("files of apk: %s", file)
	}
	if err := newBuilder(i, release.Archive{}).build(ctx); !errors.Is(err, stop) {
		t.Errorf("build without programs: error %v, want %v", err, stop)
	}
	i.programs = []program{{name: "p"}}
	if err := newBuilder(i, release.Archive{}).build(ctx); !errors.Is(err, stop) {
		t.Errorf("build: error %v, want %v", err, stop)
	}
	if _, err := Of(ctx, Pack(t, testutil.Tar(t, testutil.File("a", "")))); !errors.Is(err, stop) {
		t.Errorf("archive: error %v, want %v", err, stop)
	}
}

// imageOf makes an image of files with contents.
func imageOf(t testing.TB, files map[string]string) *image {
	t.Helper()
	i := &image{Tree: archive.NewTree(), contents: map[*archive.File][]byte{}}
	for name, content := range files {
		n, err := i.Add(&tar.Header{Name: name, Typeflag: tar.TypeReg})
		if err != nil {
			t.Fatal(err)
		}
		i.contents[n.File] = []byte(content)
	}
	return i
}

// Whatever the databases say, reading them ends without a panic, and the document
// that comes out can be read.
func FuzzDatabases(f *testing.F) {
	f.Add("P:a\nV:1\nL:MIT\nF:usr/bin\nR:x\n\n", "Package: p\nVersion: 1:2-3\n\n", "Format: copyright-format\n\nFiles: *\nLicense: GPL-2+ or MIT\n", "/a\n/b\n:\n", "/usr/bin/x\n", "ID=\"x\"\n", "usr/../bin")
	f.Fuzz(func(t *testing.T, apk, status, copyright, diversions, list, osRelease, target string) {
		i := imageOf(t, map[string]string{
			"lib/apk/db/installed": apk, dpkgStatus: status, "usr/share/doc/p/copyright": copyright,
			dpkgDiversions: diversions, "var/lib/dpkg/info/p.list": list, "etc/os-release": osRelease,
		})
		if _, err := i.Add(&tar.Header{Name: "usr/bin", Linkname: target, Typeflag: tar.TypeSymlink}); err != nil {
			return
		}
		b := newBuilder(i, release.Archive{SHA256: "0"})
		if b.build(t.Context()) != nil {
			return
		}
		data, err := b.document.JSON()
		if err != nil {
			t.Fatal(err)
		}
		d, err := Parse(data)
		if err != nil {
			t.Fatal(err)
		}
		d.Licenses()
	})
}

// A license is an expression that go-spdx accepts, whatever the words.
func FuzzLicenses(f *testing.F) {
	f.Add("GPL-2+ with OpenSSL exception, and (MIT or ISC)")
	f.Fuzz(func(t *testing.T, words string) {
		l := newLicenses()
		for _, expression := range []string{l.expression(words), l.debian(words)} {
			if _, ok := valid(expression); !ok && expression != noAssertion {
				t.Errorf("%q became %q", words, expression)
			}
		}
	})
}
