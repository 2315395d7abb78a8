package linuxpkg

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"pretag/build/catalogue"
)

// ubuntu is the flavor that GitLab Runner's own package has for every
// architecture, next to the default one.
const ubuntu = "ubuntu"

// A host is an architecture that gets a native package.
type host struct {
	platform v1.Platform
	rows     []row // what the native package holds; none if no release has an image

	// flavor is the helper_image_flavor that config.toml must set, because the
	// helper that GitLab Runner asks for by default is not in the build; or "".
	flavor string
}

// native reports whether h belongs in the native package of its architecture:
// the default flavor and ubuntu, without PowerShell.
func native(v catalogue.Version, h catalogue.Helper) bool {
	return h.IsDefault(v) || h.Flavor == ubuntu && h.Shell == ""
}

// withoutImage returns architectures, in Go's words, that gitlab-runner is
// packaged for and of which no release has a helper image (GitLab Runner v15.8.0
// to v19.3.0, packages.tsv and built.tsv in build/catalogue/testdata).
func withoutImage(v catalogue.Version) []string {
	arches := []string{"386"}
	if !v.Before("18.6.0") {
		arches = append(arches, "loong64")
	}
	return arches
}

// Hosts returns the architectures, in Go's words, that get a native package of a
// build of these helpers, and so need a loader.
func Hosts(v catalogue.Version, helpers []catalogue.Helper) []string {
	arches := map[string]bool{}
	for _, h := range helpers {
		if native(v, h) {
			arches[h.GoArch()] = true
		}
	}
	if len(arches) > 0 {
		for _, goarch := range withoutImage(v) {
			arches[goarch] = true
		}
	}
	return slices.Sorted(maps.Keys(arches))
}

// hostsOf returns the hosts of a build and the rows that are in none of their
// packages, both in the order of rows. Architectures that no release has an image
// of are added to a build that serves any host.
func hostsOf(v catalogue.Version, rows []row) (hosts []host, rest []row) {
	for _, r := range rows {
		if !native(v, r.helper) {
			rest = append(rest, r)
			continue
		}
		i := slices.IndexFunc(hosts, func(h host) bool { return h.platform.Equals(r.helper.Platform) })
		if i < 0 {
			i = len(hosts)
			hosts = append(hosts, host{platform: r.helper.Platform})
		}
		hosts[i].rows = append(hosts[i].rows, r)
	}
	for i, h := range hosts {
		if !slices.ContainsFunc(h.rows, func(r row) bool { return r.helper.IsDefault(v) }) {
			hosts[i].flavor = ubuntu
		}
	}
	if len(hosts) == 0 {
		return nil, rest
	}
	for _, goarch := range withoutImage(v) {
		if !slices.ContainsFunc(hosts, func(h host) bool { return h.platform.Architecture == goarch }) {
			hosts = append(hosts, host{platform: v1.Platform{OS: "linux", Architecture: goarch}})
		}
	}
	return hosts, rest
}

// hostWarnings returns what the user should know about the architectures of a
// build, a line for each kind.
func hostWarnings(opts Options, rows []row) []string {
	hosts, rest := hostsOf(opts.Version, rows)
	var warnings, empty, flavored, unserved, noLoader []string
	for _, h := range hosts {
		goarch := h.platform.Architecture
		switch {
		case len(h.rows) == 0:
			empty = append(empty, goarch)
		case h.flavor != "":
			flavored = append(flavored, goarch)
		}
		if _, ok := opts.Loaders[goarch]; !ok && !slices.Contains(noLoader, goarch) {
			noLoader = append(noLoader, goarch)
		}
	}
	for _, r := range rest {
		goarch := r.helper.GoArch()
		if !slices.ContainsFunc(hosts, func(h host) bool { return h.platform.Architecture == goarch }) && !slices.Contains(unserved, goarch) {
			unserved = append(unserved, goarch)
		}
	}
	warn := func(arches []string, format string, args ...any) {
		if len(arches) > 0 {
			warnings = append(warnings, strings.Join(arches, ", ")+": "+fmt.Sprintf(format, args...))
		}
	}
	if opts.Layout == Split {
		warn(empty, "no helper image exists for GitLab Runner %s, so gitlab-runner-helper-images is empty there", opts.Version)
		warn(flavored, `the helper that GitLab Runner %s asks for is not in HELPERS; hosts must set helper_image_flavor = "%s"`, opts.Version, ubuntu)
		warn(unserved, "no gitlab-runner-helper-images package, because neither the default helper nor %s is in HELPERS", ubuntu)
	}
	warn(noLoader, "no loader, so no gitlab-runner-helper-images-loader package, which hosts need")
	return warnings
}
