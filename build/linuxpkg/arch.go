package linuxpkg

import (
	"cmp"

	"pretag/build/release"
)

// hostArch gives the word for a host's architecture in each format. Those it
// does not list are spelled alike in Go, rpm and Debian (s390x, riscv64).
// rpm: rpm 4.18 rpmrc.in, arch_canon. Debian: dpkg 1.21, cputable and tupletable.
func hostArch(format, goarch, variant string) string {
	words := map[string]struct{ rpm, deb string }{
		"386":      {"i686", "i386"},
		"amd64":    {"x86_64", "amd64"},
		"arm64":    {"aarch64", "arm64"},
		"arm/v5":   {"armv5tel", "armel"},
		"arm/v6":   {"armv6hl", "armhf"},
		"arm/v7":   {"armv7hl", "armhf"},
		"loong64":  {"loongarch64", "loong64"},
		"mips64le": {"mips64el", "mips64el"},
		"ppc64le":  {"ppc64le", "ppc64el"},
	}
	if goarch == "arm" {
		goarch += "/" + cmp.Or(variant, "v7")
	}
	word, ok := words[goarch]
	switch {
	case !ok:
		return goarch
	case format == release.RPM:
		return word.rpm
	}
	return word.deb
}

// noArch is the word for packages that every host takes.
func noArch(format string) string {
	if format == release.RPM {
		return "noarch"
	}
	return "all"
}
