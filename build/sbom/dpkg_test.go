package sbom_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"pretag/build/testutil"
)

const dep5 = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n"

// Debian's names of licenses (copyright-format 1.0) in SPDX's words.
func TestDebianLicenses(t *testing.T) {
	expressions := []struct{ field, want string }{
		{"Expat", "MIT"},
		{"MIT", "LicenseRef-MIT"}, // of which Debian says that there are many
		{"GPL-2", "GPL-2.0-only"},
		{"GPL-2+", "GPL-2.0-or-later"},
		{"gpl-3.0+", "GPL-3.0-or-later"},
		{"LGPL-2.1", "LGPL-2.1-only"},
		{"AGPL-3+", "AGPL-3.0-or-later"},
		{"GFDL-1.3", "GFDL-1.3-only"},
		{"GPL-9+", "LicenseRef-GPL-9-"},
		{"BSD-3-clause", "BSD-3-Clause"},
		{"Apache-2.0", "Apache-2.0"},
		{"GPL-2+ with OpenSSL exception", "LicenseRef-GPL-2-with-OpenSSL-exception-"},
		{"public-domain", "LicenseRef-public-domain"},
		{"GPL-1+ or Artistic", "GPL-1.0-or-later OR LicenseRef-Artistic"},
		{"MPL-1.1 or GPL-2 and LGPL-2.1", "MPL-1.1 OR (GPL-2.0-only AND LGPL-2.1-only)"},
		{"MPL-1.1 or GPL-2, and LGPL-2.1", "(MPL-1.1 OR GPL-2.0-only) AND LGPL-2.1-only"},
	}
	var status strings.Builder
	var entries []testutil.Entry
	for i, e := range expressions {
		fmt.Fprintf(&status, "Package: p%02d\nStatus: install ok installed\nVersion: 1:2-%d\nArchitecture: all\n\n", i, i)
		entries = append(entries, testutil.File(fmt.Sprintf("usr/share/doc/p%02d/copyright", i), dep5+"\nFiles: *\nCopyright: x\nLicense: "+e.field+"\n the text\n"))
	}
	d := document(t, pack(t, testutil.Tar(t, append(entries, testutil.File("var/lib/dpkg/status", status.String()))...)))
	got := rows(d, "deb")
	if len(got) != len(expressions) {
		t.Fatalf("%q", got)
	}
	for i, e := range expressions {
		_, license, _ := strings.Cut(got[i], " ")
		if license != e.want && !(strings.HasSuffix(e.want, "-") && strings.HasPrefix(license, e.want) && len(license) == len(e.want)+8) {
			t.Errorf("%s: got %s, want %s", e.field, license, e.want)
		}
	}
	names := map[string]bool{}
	for _, l := range d.OtherLicenses {
		names[l.LicenseName] = true
	}
	if !names["GPL-2+ with OpenSSL exception"] || !names["Artistic"] {
		t.Errorf("LicenseRefs of %v", names)
	}
}

func TestDpkg(t *testing.T) {
	d := document(t, pack(t, testutil.Tar(
		t, testutil.File("etc/os-release", "ID='debian'\nVERSION_ID=\"12\"\n"),
		testutil.Entry{Header: linkTo("bin", "usr/bin")},
		testutil.Entry{Header: linkTo("usr/share/doc/linked", "multi")},
		testutil.File("var/lib/dpkg/status", `Package: multi
Status: install ok installed
Architecture: amd64
Source: multi-source (1.0)
Version: 1.1-1
Description: first
 second: no field
 .
 Status: no field either

Package: linked
Status: hold ok unpacked
Architecture: all
Version: 2
Homepage: https://example.com

Package: gone
Status: deinstall ok config-files
Architecture: all
Version: 3

Package: plain
Status: install ok installed
Architecture: all
Version: 4
`),
		testutil.File("var/lib/dpkg/status.d/base", "Package: base\nVersion: 5\nArchitecture: amd64\n"),
		testutil.File("var/lib/dpkg/status.d/base.md5sums", "d41d8cd98f00b204e9800998ecf8427e  usr/bin/base\n"),
		testutil.File("var/lib/dpkg/info/multi:amd64.list", "/.\n/bin\n/bin/multi\n"),
		executable("var/lib/dpkg/info/multi:amd64.postinst", "#!/bin/sh\n"),
		executable("usr/bin/multi", "x"), executable("usr/bin/base", "x"), executable("usr/bin/other", "x"),
		testutil.File("usr/share/doc/multi/copyright", dep5+"License: GPL-2+\n\nFiles: *\nLicense: ISC\n"),
		testutil.File("usr/share/doc/plain/copyright", "It is under the GPL.\nLicense: ISC\n"),
		testutil.File("usr/share/doc/base/copyright", dep5+`
Files: *
License: Zlib

# a comment
Files: debian/*
License: ISC
 text

Files: a
	b
License: Zlib

License: Zlib
 its text
`),
	)))
	want := []string{
		"pkg:deb/debian/base@5?arch=amd64&distro=debian-12 ISC AND Zlib",
		"pkg:deb/debian/linked@2?arch=all&distro=debian-12 GPL-2.0-or-later",
		"pkg:deb/debian/multi@1.1-1?arch=amd64&distro=debian-12&upstream=multi-source GPL-2.0-or-later",
		"pkg:deb/debian/plain@4?arch=all&distro=debian-12 NOASSERTION",
	}
	if diff := cmp.Diff(want, rows(d, "deb")); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"/usr/bin/other"}, d.Summary().Unpackaged); diff != "" {
		t.Error(diff)
	}
	if !slices.Equal(d.Summary().Licenses, []string{"GPL-2.0-or-later", "ISC AND Zlib"}) || d.Summary().Unlicensed != 1 {
		t.Errorf("%+v", d.Summary())
	}
}
