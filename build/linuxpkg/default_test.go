package linuxpkg_test

import (
	"strings"
	"testing"

	"pretag/build/release"
	"pretag/build/testutil/archivetest"
)

// The package for the hosts of an architecture needs the image that Runner asks
// for there, which on riscv64 is alpine-edge from 16.3.0 to 18.2.2.
func TestHostPackageFollowsRunnersDefault(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		version, helper string
		want            bool
	}{
		{"17.9.0", "alpine-edge-riscv64", true},
		{"17.9.0", "alpine-riscv64", false},
		{"18.3.0", "alpine-edge-riscv64", false},
		{"18.3.0", "alpine-riscv64", true},
	} {
		opts := options(t, t.TempDir())
		opts.Version, opts.Formats = version(t, row.version), []string{release.Deb}
		result := build(t, opts, archivetest.ArchivesOf(t, t.TempDir(), row.version, fixtureCompression(), row.helper))
		got := false
		for _, p := range result.Packages {
			got = got || p.Name == "gitlab-runner-helper-images"
		}
		warned := strings.Contains(strings.Join(result.Warnings, "\n"), "riscv64: no gitlab-runner-helper-images package")
		if got != row.want || warned == row.want {
			t.Errorf("%s with %s: host package %v, want %v; warnings %q", row.version, row.helper, got, row.want, result.Warnings)
		}
	}
}
