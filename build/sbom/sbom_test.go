package sbom_test

import (
	"archive/tar"
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	spdxjson "github.com/spdx/tools-golang/json"
	spdx "github.com/spdx/tools-golang/spdx/v2/v2_3"
	"github.com/spdx/tools-golang/spdxlib"
	"github.com/spdx/tools-golang/tagvalue"

	"pretag/build/release"
	"pretag/build/sbom"
	"pretag/build/testutil"
)

func pack(t testing.TB, layers ...[]byte) release.Archive { return sbom.Pack(t, layers...) }

// document describes the archive and has SPDX's own tools check that: they read
// it as JSON, resolve its relationships, and take it back from the tag-value
// form, whose reader refuses what the specification does not allow.
func document(t testing.TB, f release.Archive) *sbom.Document {
	t.Helper()
	path := filepath.Join(t.TempDir(), sbom.Name(f.Name))
	d, err := sbom.Write(t.Context(), path, f)
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := spdxjson.Read(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	if err := spdxlib.ValidateDocument(foreign); err != nil {
		t.Error(err)
	}
	described, err := spdxlib.GetDescribedPackageIDs(foreign)
	if err != nil || len(described) != 1 || described[0] != "Image" {
		t.Errorf("the document describes %v %v, want the image", described, err)
	}
	var text bytes.Buffer
	if err := tagvalue.Write(foreign, &text); err != nil {
		t.Fatal(err)
	}
	again, err := tagvalue.Read(&text)
	if err != nil {
		t.Fatalf("%v\n%s", err, text.String())
	}
	if len(again.Packages) != len(d.Packages) || len(again.Files) != len(d.Files) || len(again.Relationships) != len(d.Relationships) {
		t.Errorf("SPDX's tools see %d packages, %d files, %d relationships, want %d, %d, %d",
			len(again.Packages), len(again.Files), len(again.Relationships), len(d.Packages), len(d.Files), len(d.Relationships))
	}
	t.Logf("%s: %d bytes, %s; SPDX tools: valid %s", f.Name, len(data), d.Summary(), foreign.SPDXVersion)

	parsed, err := sbom.Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	second, err := parsed.JSON()
	if diff := cmp.Diff(string(data), string(second)); err != nil || diff != "" {
		t.Error(err, diff)
	}
	if err := sbom.Check(t.Context(), path, f, nil); err != nil {
		t.Error(err)
	}
	return d
}

// rows are the packages of a kind: purl and license.
func rows(d *sbom.Document, kind string) []string {
	var all []string
	for _, p := range d.Packages {
		for _, ref := range p.PackageExternalReferences {
			if strings.HasPrefix(ref.Locator, "pkg:"+kind+"/") {
				all = append(all, ref.Locator+" "+p.PackageLicenseDeclared)
			}
		}
	}
	return all
}

func has(d *sbom.Document, from, how, to string) bool {
	return slices.ContainsFunc(d.Relationships, func(r *spdx.Relationship) bool {
		return strings.HasPrefix("SPDXRef-"+string(r.RefA.ElementRefID), from) && r.Relationship == how && strings.HasPrefix("SPDXRef-"+string(r.RefB.ElementRefID), to)
	})
}

func executable(name, body string) testutil.Entry {
	e := testutil.File(name, body)
	e.Header.Mode = 0o755
	return e
}

// apkDatabase is as apk-tools 2.14 writes it (src/database.c, apk_db_write_fdb).
const apkDatabase = `C:Q1qKcZ+j23xssAXmgQhkOO8dHnbWw=
P:busybox
V:1.37.0-r12
A:x86_64
S:509600
I:962560
T:Size optimized toolbox of many common UNIX utilities
U:https://busybox.net/
L:GPL-2.0-only
o:busybox
m:Natanael Copa <ncopa@alpinelinux.org>
t:1736000000
c:0123456789abcdef0123456789abcdef01234567
D:so:libc.musl-x86_64.so.1
p:cmd:busybox=1.37.0-r12
F:bin
R:busybox
a:0:0:755
Z:Q1pGkyZ1eRmcjjSbVzy9fUJeuDN6U=
F:etc
M:0:0:755

C:Q1xx
P:libcrypto3
V:3.3.3-r0
A:x86_64
L:Apache-2.0 AND custom thing
o:openssl
F:
F:usr/lib

C:Q1yy
P:git-lfs
V:3.6.0-r2
A:x86_64
L:mit
F:usr/bin
R:git-lfs
Z:Q1zz

`

func alpine(t testing.TB) []byte {
	t.Helper()
	at, err := exec.Command("go", "tool", "-n", "gofumpt").Output() // a Go program of several modules
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(strings.TrimSpace(string(at)))
	if err != nil {
		t.Fatal(err)
	}
	return testutil.Tar(
		t, testutil.File("lib/apk/db/installed", apkDatabase),
		testutil.File("usr/lib/os-release", "NAME=\"Alpine Linux\"\nID=alpine\nVERSION_ID=3.21.2\nPRETTY_NAME=\"Alpine Linux v3.21\"\n"),
		executable("bin/busybox", "\x7fELF"), executable("usr/bin/git-lfs", string(program)),
		executable("usr/bin/gitlab-runner-helper", string(program)), executable("entrypoint", "#!/bin/sh\n"),
	)
}

func TestAlpine(t *testing.T) {
	f := pack(t, alpine(t))
	d := document(t, f)
	want := []string{
		"pkg:apk/alpine/busybox@1.37.0-r12?arch=x86_64&distro=alpine-3.21.2 GPL-2.0-only",
		"pkg:apk/alpine/git-lfs@3.6.0-r2?arch=x86_64&distro=alpine-3.21.2 MIT",
		"pkg:apk/alpine/libcrypto3@3.3.3-r0?arch=x86_64&distro=alpine-3.21.2&upstream=openssl LicenseRef-Apache-2.0-AND-custom-thing-57aba06e",
	}
	if diff := cmp.Diff(want, rows(d, "apk")); diff != "" {
		t.Error(diff)
	}
	modules := rows(d, "golang")
	if !slices.ContainsFunc(modules, func(row string) bool {
		return strings.HasPrefix(row, "pkg:golang/golang.org/x/tools@v")
	}) || !slices.ContainsFunc(modules, func(row string) bool { return strings.HasPrefix(row, "pkg:golang/stdlib@1.") }) {
		t.Errorf("modules of the helper binary: %q", modules)
	}
	for _, r := range [][3]string{
		{"SPDXRef-DOCUMENT", "DESCRIBES", "SPDXRef-Image"},
		{"SPDXRef-Image", "CONTAINS", "SPDXRef-apk-busybox"},
		{"SPDXRef-Image", "CONTAINS", "SPDXRef-File-gitlab-runner-helper"},
		{"SPDXRef-Image", "CONTAINS", "SPDXRef-File-entrypoint"},
		{"SPDXRef-apk-git-lfs", "CONTAINS", "SPDXRef-File-git-lfs"},
		{"SPDXRef-File-gitlab-runner-helper", "GENERATED_FROM", "SPDXRef-golang-mvdan.cc-gofumpt"},
		{"SPDXRef-File-gitlab-runner-helper", "STATIC_LINK", "SPDXRef-golang-stdlib"},
	} {
		if !has(d, r[0], r[1], r[2]) {
			t.Errorf("no %v", r)
		}
	}
	summary := d.Summary()
	if diff := cmp.Diff([]string{"/entrypoint", "/usr/bin/gitlab-runner-helper"}, summary.Unpackaged); diff != "" {
		t.Error(diff)
	}
	if summary.System != "alpine 3.21.2" || summary.Packages["apk"] != 3 {
		t.Errorf("%+v", summary)
	}
	overview := string(d.Licenses())
	for _, want := range []string{"apk     busybox", "  GPL-2.0-only\n", "Apache-2.0 AND custom thing\n", "file    /entrypoint"} {
		if !strings.Contains(overview, want) {
			t.Errorf("no %q in\n%s", want, overview)
		}
	}
}

// Equal archives have equal documents, wherever and whenever they are made.
func TestDeterministic(t *testing.T) {
	rootfs := alpine(t)
	var documents [][]byte
	for _, zone := range []*time.Location{time.UTC, time.FixedZone("elsewhere", 3600)} {
		local := time.Local
		time.Local = zone
		d, err := sbom.Of(t.Context(), pack(t, rootfs))
		time.Local = local
		if err != nil {
			t.Fatal(err)
		}
		data, err := d.JSON()
		if err != nil {
			t.Fatal(err)
		}
		documents = append(documents, data)
	}
	if diff := cmp.Diff(string(documents[0]), string(documents[1])); diff != "" {
		t.Error(diff)
	}
	if !strings.Contains(string(documents[0]), `"created": "2023-11-14T22:13:20Z"`) {
		t.Error("created is not the archive's time")
	}
}

// Upper layers replace, hide and move what lower ones have.
func TestLayers(t *testing.T) {
	upper := strings.Replace(apkDatabase, "1.37.0-r12", "1.37.0-r13", 2)
	hardlink := testutil.Entry{Header: tar.Header{Name: "etc/os-release", Typeflag: tar.TypeLink, Linkname: "usr/lib/os-release"}}
	for name, row := range map[string]struct {
		upper   []testutil.Entry
		want    string // version of busybox; "" for none
		scripts int
	}{
		"replaced":         {[]testutil.Entry{testutil.File("lib/apk/db/installed", upper)}, "1.37.0-r13", 2},
		"hidden":           {[]testutil.Entry{testutil.File("lib/apk/db/.wh.installed", ""), testutil.File("entrypoint", "no program")}, "", 1},
		"directory hidden": {[]testutil.Entry{testutil.File("lib/.wh.apk", "")}, "", 2},
		"opaque":           {[]testutil.Entry{testutil.File("lib/apk/.wh..wh..opq", "")}, "", 2},
		"all opaque":       {[]testutil.Entry{testutil.File(".wh..wh..opq", "")}, "", 0},
		"opaque, refilled": {[]testutil.Entry{testutil.File("lib/apk/db/installed", upper), testutil.File("lib/apk/.wh..wh..opq", "")}, "1.37.0-r13", 2},
		"no directory now": {[]testutil.Entry{{Header: tar.Header{Name: "lib/apk", Typeflag: tar.TypeSymlink, Linkname: "/"}}}, "", 2},
		"a directory now":  {[]testutil.Entry{testutil.Dir("entrypoint/")}, "1.37.0-r12", 1},
		"linked":           {[]testutil.Entry{testutil.File("usr/lib/os-release", "ID=a\n"), hardlink}, "1.37.0-r12", 2},
	} {
		t.Run(name, func(t *testing.T) {
			lower := testutil.Tar(
				t, testutil.File("lib/apk/db/installed", apkDatabase), executable("bin/busybox", "x"),
				executable("entrypoint", "#!"), executable("usr/bin/gitlab-runner-helper", "x"),
			)
			d := document(t, pack(t, lower, testutil.Tar(t, row.upper...)))
			got := ""
			for _, p := range d.Packages {
				if p.PackageName == "busybox" {
					got = p.PackageVersion
				}
			}
			unpackaged := slices.DeleteFunc(d.Summary().Unpackaged, func(name string) bool { return name == "/bin/busybox" })
			if got != row.want || len(unpackaged) != row.scripts {
				t.Errorf("got %q and %v, want %q and %d", got, unpackaged, row.want, row.scripts)
			}
		})
	}
}

func TestCheck(t *testing.T) {
	f := pack(t, alpine(t))
	path := filepath.Join(t.TempDir(), "d")
	d, err := sbom.Write(t.Context(), path, f)
	if err != nil {
		t.Fatal(err)
	}
	good, err := d.JSON()
	if err != nil {
		t.Fatal(err)
	}
	for old, row := range map[string][2]string{
		"busybox@1.37.0-r12":       {"busybox@1.37.0-r13", "lists pkg:apk/alpine/busybox@1.37.0-r13?arch=x86_64&distro=alpine-3.21.2, which"},
		"git-lfs@3.6.0":            {"git-lfs@3.6.1", "lacks pkg:apk/alpine/git-lfs@3.6.0-r2?arch=x86_64"},
		`"licenseDeclared": "MIT"`: {`"licenseDeclared": "ISC"`, "sha256 is "},
		"SPDX-2.3":                 {"SPDX-2.2", `spdxVersion is "SPDX-2.2", want "SPDX-2.3"`},
		`"SPDXRef-Image",`:         {`"SPDXRef-Other",`, "the first package is not the image"},
		`"name"`:                   {`"nome"`, `unknown field "nome"`},
		"{":                        {"", "cannot unmarshal"},
	} {
		bad := bytes.Replace(good, []byte(old), []byte(row[0]), 1)
		if err := os.WriteFile(path, bad, 0o644); err != nil {
			t.Fatal(err)
		}
		testutil.WantError(t, sbom.Check(t.Context(), path, f, nil), row[1])
	}
	if err := sbom.Check(t.Context(), path+"x", f, nil); err == nil {
		t.Error("no error for a document that is not there")
	}
}

func linkTo(name, target string) tar.Header {
	return tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: target}
}
