//go:build acceptance

package build_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"pretag/build/internal/gobuild"
	"pretag/build/linuxpkg/loaders"
	"pretag/build/testutil"
)

// Package databases that are cheap to make and that asked for minutes or gigabytes:
// package either ends with an error or makes an SBOM, in little memory.
func TestHostileDatabases(t *testing.T) {
	p := compile(t)
	ahead := t.TempDir()
	if _, err := loaders.Build(t.Context(), gobuild.Builder{Source: "..", Environ: os.Environ()}, ahead, []string{"386", "amd64", "loong64"}); err != nil {
		t.Fatal(err)
	}
	p.pairs = append(p.pairs, "HELPERS=alpine-x86_64", "FORMATS=deb", "LOADERS="+ahead)
	stanzas := func(n int, format string) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, format, i)
		}
		return b.String()
	}
	const (
		apk       = "lib/apk/db/installed"
		status    = "var/lib/dpkg/status"
		copyright = "usr/share/doc/p/copyright"
		dep5      = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n"
		one       = "Package: p\nVersion: 1\n"
	)
	shared := testutil.File(status, stanzas(20_000, "Package: p\nVersion: %d\n\n"))
	for name, row := range map[string]struct {
		files []testutil.Entry
		exit  int
		want  string
	}{
		"one copyright file for 20,000 packages": {[]testutil.Entry{shared, testutil.File(copyright, dep5+"\n"+strings.Repeat("Files: x\nLicense: ISC\n\n", 50_000))}, 0, ""},
		"one list of files for 20,000 packages":  {[]testutil.Entry{shared, testutil.File("var/lib/dpkg/info/p.list", strings.Repeat("/usr/bin/x\n", 100_000))}, 0, ""},
		"a field of 4 million lines":             {[]testutil.Entry{testutil.File(status, one+"Description: x\n"+strings.Repeat(" y\n", 4_000_000))}, 0, ""},
		"40,000 ORs":                             {[]testutil.Entry{testutil.File(apk, "P:a\nV:1\nL:MIT"+strings.Repeat(" OR MIT", 40_000)+"\n")}, 0, ""},
		"40,000 ors of Debian":                   {[]testutil.Entry{testutil.File(status, one), testutil.File(copyright, dep5+"License: ISC"+strings.Repeat(" or ISC", 40_000)+"\n")}, 0, ""},
		"5 million parentheses":                  {[]testutil.Entry{testutil.File(apk, "P:a\nV:1\nL:"+strings.Repeat("(", 5_000_000)+"MIT\n")}, 0, ""},
		"4 million stanzas":                      {[]testutil.Entry{testutil.File(apk, stanzas(4_000_000, "P:%d\nV:1\n\n"))}, 1, "more than 50000 packages"},
		"ndb":                                    {[]testutil.Entry{testutil.File("var/lib/rpm/Packages.db", "RpmP")}, 0, "the SBOM may be incomplete: /var/lib/rpm/Packages.db is a package database of rpm (ndb), which is not read"},
		"chisel":                                 {[]testutil.Entry{testutil.File("var/lib/chisel/manifest.wall", "x")}, 0, "the SBOM may be incomplete: /var/lib/chisel/manifest.wall is a package database of chisel"},
		"damaged rpm database":                   {[]testutil.Entry{testutil.File("var/lib/rpm/rpmdb.sqlite", "SQLite format 3\x00\x10\x00"+strings.Repeat("\x00", 8192))}, 1, "/var/lib/rpm/rpmdb.sqlite: page 1 has kind 0, want a page of a table"},
	} {
		t.Run(name, func(t *testing.T) {
			rootfs := testutil.Rootfs(t, "x")
			p.input(t, "alpine-x86_64", append(rootfs[:len(rootfs)-1024], testutil.Tar(t, row.files...)...))
			c, text := p.command(t, "package")
			began := time.Now()
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			used := memory(c.Process.Pid)
			_ = c.Wait() // ExitCode has the result
			t.Logf("%.1f s, %.1f s of CPU, %d MiB", time.Since(began).Seconds(), c.ProcessState.UserTime().Seconds(), used>>10)
			if c.ProcessState.ExitCode() != row.exit || !strings.Contains(text.String(), row.want) {
				t.Errorf("status %d, want %d and %q: %.2000s", c.ProcessState.ExitCode(), row.exit, row.want, text)
			}
			if used > 1<<20 {
				t.Errorf("%d kB of memory, want at most 1 GiB", used)
			}
			p.clean(t)
		})
	}
}
