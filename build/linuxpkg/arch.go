package linuxpkg

import (
	"cmp"
	"strings"

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

// HostArch returns the word of a format for the hosts of a platform (os/arch/variant).
func HostArch(format, platform string) string {
	parts := append(strings.Split(platform, "/"), "", "")
	return hostArch(format, parts[1], parts[2])
}

// NoArch returns the word of a format for packages that every host takes.
func NoArch(format string) string { return noArch(format) }

// noArch is the word for packages that every host takes.
func noArch(format string) string {
	if format == release.RPM {
		return "noarch"
	}
	return "all"
}
