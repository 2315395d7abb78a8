package catalogue

import (
	"cmp"
	"strings"
)

// Repository is where GitLab Runner takes its helper image from, unless its
// configuration names an image (GitLab Runner v19.3.0, helpers/container/helperimage/info.go).
const Repository = "registry.gitlab.com/gitlab-org/gitlab-runner/gitlab-runner-helper"

// DefaultFlavor is the flavor that tags leave out
// (GitLab Runner v19.3.0, helpers/container/helperimage/linux_info.go).
const DefaultFlavor = "alpine"

// concreteFlavor is what FF_CONCRETE selects if no flavor is configured.
const concreteFlavor = "concrete"

// powerShell is the only shell that names carry.
const powerShell = "pwsh"

// Suffix is the end of an archive's file name, whatever its compression: the
// name is the key that GitLab Runner 17.9 and later look up
// (v17.9.0, executors/docker/internal/prebuilt/prebuilt.go).
const Suffix = ".docker.tar.zst"

// HostDir is where GitLab Runner looks for archives if it is installed as
// /usr/bin/gitlab-runner (v19.3.0, executors/docker/internal/prebuilt/prebuilt.go, init).
const HostDir = "/usr/lib/gitlab-runner/helper-images"

// rootfsSuffix is the end of the file name of a flat root filesystem, which all
// versions of GitLab Runner look up.
const rootfsSuffix = ".tar.xz"

// A Request is what decides which helper image a Runner asks for.
type Request struct {
	Flavor   string // helper_image_flavor in config.toml; "" if it is not set
	Arch     string // the engine's word for its architecture: x86_64, amd64, aarch64, armv7l, ...
	Shell    string // of the runner: bash, sh, pwsh, powershell or ""
	Concrete bool   // whether the feature flag FF_CONCRETE is on
}

// A Lookup is what a Runner asks for.
type Lookup struct {
	Flavor string   // of the image that Tag names
	Tag    string   // looked for in the engine first; "" if the Runner's revision is not known
	Files  []string // base names, in the order tried; on riscv64 they can be of another flavor than Tag
}

// Lookup returns what GitLab Runner v asks for. It depends on words only: an
// architecture for which no helper image exists still has a tag and file names.
//
// The rules are those of GitLab Runner v15.8.0 to v19.3.0,
// helpers/container/helperimage/linux_info.go and, from v17.9.0 on,
// executors/docker/internal/prebuilt/prebuilt.go.
func (v Version) Lookup(r Request) Lookup {
	arch := RunnerArch(r.Arch)
	shell := ""
	if r.Shell == powerShell {
		shell = powerShell
	}
	flavor := cmp.Or(r.Flavor, v.DefaultFlavor(arch))
	if r.Concrete && !v.Before("18.11.0") {
		flavor, shell = cmp.Or(r.Flavor, concreteFlavor), ""
	}
	fileFlavor := flavor
	if r.Flavor == "" && v.Before("17.9.0") {
		fileFlavor = DefaultFlavor // the default for riscv64 was applied to the tag only
	}
	return Lookup{Flavor: flavor, Tag: tag(flavor, arch, v.tagWord(), shell), Files: v.files(base(fileFlavor, arch, shell))}
}

// files returns the names tried for the file name stem.
func (v Version) files(stem string) []string {
	if v.Before("17.9.0") {
		return []string{stem + rootfsSuffix}
	}
	files := []string{stem + Suffix, stem + rootfsSuffix}
	if other := strings.ReplaceAll(stem, "x86_64", "amd64"); other != stem {
		files = append(files, other+Suffix, other+rootfsSuffix)
	}
	return files
}

// DefaultFlavor returns the flavor of the image that GitLab Runner v asks for if
// none is configured, by the architecture in Runner's words.
func (v Version) DefaultFlavor(arch string) string {
	if arch == "riscv64" && !v.Before("16.3.0") && v.Before("18.3.0") {
		return "alpine-edge"
	}
	return DefaultFlavor
}

// RunnerArch returns Runner's word for the architecture that an engine reports.
func RunnerArch(engine string) string {
	switch engine {
	case "amd64":
		return "x86_64"
	case "aarch64":
		return "arm64"
	case "armv6l", "armv7l":
		return "arm"
	}
	return engine
}

// tag returns the tag of an image; word is what changes with the version.
func tag(flavor, arch, word, shell string) string {
	if word == "" {
		return ""
	}
	tag := arch + "-" + word
	if flavor != DefaultFlavor {
		tag = flavor + "-" + tag
	}
	if shell != "" {
		tag += "-" + shell
	}
	return tag
}

// base returns the file name of an image without its suffix.
func base(flavor, arch, shell string) string { return "prebuilt-" + name(flavor, arch, shell) }

// name returns the name of a helper.
func name(flavor, arch, shell string) string {
	if shell != "" {
		arch += "-" + shell
	}
	return flavor + "-" + arch
}
