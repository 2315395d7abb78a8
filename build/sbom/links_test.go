package sbom_test

import (
	"archive/tar"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"pretag/build/sbom"
	"pretag/build/testutil"
)

func symlink(name, target string) testutil.Entry { return testutil.Entry{Header: linkTo(name, target)} }

func hardLink(name, target string) testutil.Entry {
	return testutil.Entry{Header: tar.Header{Name: name, Typeflag: tar.TypeLink, Linkname: target}}
}

const oneApk = "P:a\nV:1\nA:x86_64\nL:MIT\nF:usr/sbin\nR:tool\n"

// dpkgStatusOf is a status with one package.
func dpkgStatusOf(name string) string {
	return "Package: " + name + "\nStatus: install ok installed\nVersion: 1\nArchitecture: all\n\n"
}

// Files are found behind links of all kinds.
func TestLinks(t *testing.T) {
	database := testutil.File("lib/apk/db/installed", oneApk)
	tool := executable("usr/sbin/tool", "tool")
	for name, row := range map[string]struct {
		layers     [][]testutil.Entry
		packages   string // purl and license
		unpackaged []string
	}{
		"database is a hard link": {
			[][]testutil.Entry{{testutil.File("ostree/1", oneApk), hardLink("lib/apk/db/installed", "ostree/1"), tool}},
			"pkg:apk/a@1?arch=x86_64 MIT", nil,
		},
		"first name of the database removed": {
			[][]testutil.Entry{{testutil.File("ostree/1", oneApk), hardLink("lib/apk/db/installed", "ostree/1"), tool}, {testutil.File(".wh.ostree", "")}},
			"pkg:apk/a@1?arch=x86_64 MIT", nil,
		},
		"first name of the database replaced": {
			[][]testutil.Entry{{testutil.File("ostree/1", oneApk), hardLink("lib/apk/db/installed", "ostree/1"), tool}, {testutil.File("ostree/1", "P:other\nV:1\n")}},
			"pkg:apk/a@1?arch=x86_64 MIT", nil,
		},
		"helper under a second name": {
			[][]testutil.Entry{{executable("objects/helper", "h"), hardLink("usr/bin/gitlab-runner-helper", "objects/helper")}, {testutil.File("objects/.wh.helper", "")}},
			"",
			[]string{"/usr/bin/gitlab-runner-helper"},
		},
		"package lists one of two names": {
			[][]testutil.Entry{{database, tool, hardLink("opt/tool", "usr/sbin/tool")}},
			"pkg:apk/a@1?arch=x86_64 MIT", nil,
		},
		"hard link to a symbolic link": {
			[][]testutil.Entry{{testutil.File("data", oneApk), symlink("l", "/data"), hardLink("lib/apk/db/installed", "l")}},
			"pkg:apk/a@1?arch=x86_64 MIT", nil,
		},
		"usr/sbin -> bin": {
			[][]testutil.Entry{{database, symlink("usr/sbin", "bin"), executable("usr/bin/tool", "t"), executable("usr/bin/other", "o")}},
			"pkg:apk/a@1?arch=x86_64 MIT",
			[]string{"/usr/bin/other"},
		},
		"usr/sbin -> ../bin -> /real": {
			[][]testutil.Entry{{database, symlink("usr/sbin", "../bin"), symlink("bin", "/real"), executable("real/tool", "t")}},
			"pkg:apk/a@1?arch=x86_64 MIT", nil,
		},
		"a listed link is not what it leads to": {
			[][]testutil.Entry{{database, symlink("usr/sbin/tool", "/usr/bin/mawk"), executable("usr/bin/mawk", "m")}},
			"pkg:apk/a@1?arch=x86_64 MIT",
			[]string{"/usr/bin/mawk"},
		},
		"directory of the database": {
			[][]testutil.Entry{{symlink("var/lib/dpkg", "../../usr/lib/state"), testutil.File("usr/lib/state/status", dpkgStatusOf("p"))}},
			"pkg:deb/p@1?arch=all NOASSERTION", nil,
		},
		"one database under two names": {
			[][]testutil.Entry{{database, symlink("usr/lib/apk", "../../lib/apk"), tool}},
			"pkg:apk/a@1?arch=x86_64 MIT", nil,
		},
		"os-release over two links": {
			[][]testutil.Entry{{database, tool, symlink("etc/os-release", "../usr/lib/os-release"), symlink("usr/lib/os-release", "./os.d/release"), testutil.File("usr/lib/os.d/release", "ID=own\n")}},
			"pkg:apk/own/a@1?arch=x86_64 MIT", nil,
		},
		"os-release over a circle": {
			[][]testutil.Entry{{database, tool, symlink("etc/os-release", "a"), symlink("etc/a", "b"), symlink("etc/b", "../etc/a"), testutil.File("usr/lib/os-release", "ID=own\n")}},
			"pkg:apk/own/a@1?arch=x86_64 MIT", nil,
		},
		"os-release out of the root": {
			[][]testutil.Entry{{database, tool, symlink("etc/os-release", "/../../usr/../x"), testutil.File("x", "ID=own\n")}},
			"pkg:apk/own/a@1?arch=x86_64 MIT", nil,
		},
		"copyright behind links": {
			[][]testutil.Entry{{
				testutil.File("var/lib/dpkg/status", dpkgStatusOf("p")),
				symlink("usr/share/doc/p", "q"), symlink("usr/share/doc/q", "/usr/share/doc/r"), symlink("usr/share/doc/r/copyright", "../s/c"),
				testutil.File("usr/share/doc/s/c", dep5+"License: ISC\n"),
			}},
			"pkg:deb/p@1?arch=all ISC", nil,
		},
		"diversions": {
			[][]testutil.Entry{{
				testutil.File("var/lib/dpkg/status", dpkgStatusOf("p")+dpkgStatusOf("q")),
				testutil.File("var/lib/dpkg/diversions", "/bin/tool\n/bin/tool.real\nq\n/bin/all\n/bin/all.real\n:\n"),
				testutil.File("var/lib/dpkg/info/p.list", "/bin/tool\n/bin/all\n"), testutil.File("var/lib/dpkg/info/q.list", "/bin/tool\n"),
				executable("bin/tool", "q's"), executable("bin/tool.real", "p's"), executable("bin/all", "nobody's"), executable("bin/all.real", "p's"),
			}},
			"pkg:deb/p@1?arch=all NOASSERTION pkg:deb/q@1?arch=all NOASSERTION",
			[]string{"/bin/all"},
		},
		"the root itself in an upper layer": {
			[][]testutil.Entry{{database, tool}, {testutil.Dir("./"), testutil.File("etc/x", "")}},
			"pkg:apk/a@1?arch=x86_64 MIT", nil,
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := document(t, pack(t, tars(t, row.layers)...))
			got := strings.Join(slices.Concat(rows(d, "apk"), rows(d, "deb")), " ")
			if got != row.packages {
				t.Errorf("packages %q, want %q", got, row.packages)
			}
			if diff := cmp.Diff(row.unpackaged, d.Summary().Unpackaged); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func tars(t testing.TB, layers [][]testutil.Entry) (all [][]byte) {
	t.Helper()
	for _, entries := range layers {
		all = append(all, testutil.Tar(t, entries...))
	}
	return all
}

// An SBOM that may lack packages says so: to the user, in the document and in the text.
func TestWarnings(t *testing.T) {
	const missing = ", which is not read: its packages are missing"
	for name, row := range map[string]struct {
		entry testutil.Entry
		want  string
	}{
		"chisel":        {testutil.File("var/lib/chisel/manifest.wall", "x"), "/var/lib/chisel/manifest.wall is a package database of chisel" + missing},
		"Azure Linux":   {testutil.File("var/lib/rpmmanifest/container-manifest-2", "x"), "/var/lib/rpmmanifest/container-manifest-2 is a package database of Azure Linux" + missing},
		"opkg":          {testutil.File("usr/lib/opkg/status", "x"), "/usr/lib/opkg/status is a package database of opkg" + missing},
		"ndb":           {testutil.File("usr/lib/sysimage/rpm/Packages.db", "RpmP"), "/usr/lib/sysimage/rpm/Packages.db is a package database of rpm (ndb)" + missing},
		"pacman":        {testutil.File("var/lib/pacman/local/a-1/desc", "x"), "/var/lib/pacman/local is a package database of pacman" + missing},
		"empty rpm":     {testutil.File("var/lib/rpm/rpmdb.sqlite", ""), "/var/lib/rpm/rpmdb.sqlite lists no packages"},
		"empty apk":     {testutil.File("lib/apk/db/installed", "no: package\n"), "/lib/apk/db/installed lists no packages"},
		"empty dpkg":    {testutil.File("var/lib/dpkg/status", ""), "/var/lib/dpkg/status lists no packages"},
		"opkg, a link":  {symlink("var/lib/opkg/status", "nowhere"), ""},
		"an empty tree": {testutil.Dir("var/lib/pacman/local"), ""},
	} {
		t.Run(name, func(t *testing.T) {
			d := document(t, pack(t, testutil.Tar(t, row.entry)))
			var want []string
			if row.want != "" {
				want = []string{row.want}
				if text := string(d.Licenses()); !strings.Contains(text, "\nIncomplete: "+row.want+".\n") || !strings.HasSuffix(d.Summary().String(), row.want) {
					t.Errorf("no warning in %q and\n%s", d.Summary(), text)
				}
			}
			if diff := cmp.Diff(want, d.Summary().Warnings); diff != "" || d.DocumentComment != row.want {
				t.Errorf("comment %q, %s", d.DocumentComment, diff)
			}
		})
	}
}

func TestGoVersion(t *testing.T) {
	for s, want := range map[string]string{
		"go1.26.8":                                  "1.26.8",
		"go1.26.0 X:nodwarf5":                       "1.26.0",
		"devel go1.24-2f3ca0a Mon Nov 4 2024":       "1.24-2f3ca0a",
		"go1.26-devel_2f3ca0a Mon Nov 4 2024":       "1.26-devel_2f3ca0a",
		"devel +2f3ca0a Mon Nov 4 2019 linux/amd64": "devel+2f3ca0a",
		"devel":   "devel",
		"unknown": "unknown",
		"":        "",
	} {
		if got := sbom.GoVersion(s); got != want {
			t.Errorf("%q: got %q, want %q", s, got, want)
		}
	}
}

// What packages call themselves must not reach a terminal or break the table.
func TestControlCharacters(t *testing.T) {
	d, err := sbom.Of(t.Context(), pack(t, testutil.Tar(
		t, testutil.File("lib/apk/db/installed", "P:a\x1b[2J\tb\nV:1\xff\nL:\u202ewords\x00\n"), executable("bin/x\ny", "x"),
		testutil.File("etc/os-release", "ID=o\x07\n"),
	)))
	if err != nil {
		t.Fatal(err)
	}
	text := string(d.Licenses())
	if strings.ContainsFunc(strings.ReplaceAll(text, "\n", ""), func(r rune) bool { return r < ' ' || r == 0x7f || r == 0x202e }) {
		t.Errorf("control characters in %q", text)
	}
	for _, want := range []string{"apk   a\ufffd[2J\ufffdb   1\ufffd  LicenseRef-words-", "file  /bin/x\ufffdy"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}
