//go:build acceptance

package linuxpkg_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"pretag/build/release"
	"pretag/build/testutil"
	"pretag/build/testutil/archivetest"
)

// TestTools: rpm and dpkg know the architectures, and read what was written. What cpio
// lists of an rpm's payload is relative, so that it can be unpacked anywhere.
func TestTools(t *testing.T) {
	testutil.Tool(t, "rpm")
	testutil.Tool(t, "cpio")
	testutil.Tool(t, "dpkg-deb")
	testutil.Tool(t, "dpkg-architecture")
	known, err := os.ReadFile("/usr/lib/rpm/rpmrc")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	opts := options(t, dir)
	opts.Version, opts.Release = version(t, "19.3.0-rc1"), "1~bpo12+1"
	packages := build(t, opts, archivetest.ArchivesOf(t, dir, "19.3.0-rc1", fixtureCompression(),
		"alpine-x86_64", "alpine-arm", "alpine-arm64", "alpine-s390x", "alpine-ppc64le", "alpine-riscv64")).Packages
	for _, p := range packages {
		const want = "19.3.0~rc1-1~bpo12+1"
		switch p.Format {
		case release.RPM:
			got := run(t, "rpm", "-qp", "--qf", "%{VERSION}-%{RELEASE} %{PAYLOADCOMPRESSOR} %{BUILDHOST} %{BUILDTIME} %{SOURCERPM} %{SOURCEPACKAGE}", p.Path)
			if got != fmt.Sprint(want, " gzip localhost ", testutil.Created().Unix(), " (none) (none)") {
				t.Errorf("%s: %s", p.File, got)
			}
			run(t, "rpm", "--checksig", p.Path)
			for name := range strings.Lines(run(t, "sh", "-c", `rpm2cpio "$1" | cpio --quiet -t`, "sh", p.Path)) {
				if !strings.HasPrefix(name, "./") {
					t.Errorf("%s: %s in the payload", p.File, name)
				}
			}
			// rpm knows an architecture that is compatible with itself and noarch.
			if !strings.Contains(string(known), "arch_compat: "+p.Arch+":") && !strings.Contains(string(known), " "+p.Arch+": ") {
				t.Errorf("rpmrc knows no %s", p.Arch)
			}
		case release.Deb:
			if got := strings.TrimSpace(run(t, "dpkg-deb", "-f", p.Path, "Version")); got != want {
				t.Errorf("%s: dpkg reads %s", p.File, got)
			}
			run(t, "dpkg-architecture", "-a"+p.Arch, "-qDEB_HOST_ARCH")
		}
	}
}
