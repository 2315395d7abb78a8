// Package catalogue is the table of helper images and the one place that spells
// their names: helper, file, tag, platform, package. It opens nothing.
package catalogue

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"pretag/build/internal/strictyaml"
)

// DefaultFlavor is the flavor that tags leave out
// (GitLab Runner v19.3.0, helpers/container/helperimage/linux_info.go).
const DefaultFlavor = "alpine"

// powerShell is the one shell that names carry.
const powerShell = "pwsh"

// A Helper is a row of the catalogue: one helper image.
type Helper struct {
	Flavor   string
	Arch     string // GitLab Runner's word: x86_64, arm, arm64, ...
	Shell    string // "" or pwsh
	Platform v1.Platform
	Default  bool   // HELPERS selects it when unset
	Since    string // first Runner version that has it; "" where all have
	StandIn  string // the helper whose tarball serves for it, by String; "" for none
	Config   Config // what a flat root filesystem of it has lost
}

// A Config is what the catalogue says of an image's config.
type Config struct {
	Entrypoint []string `yaml:"entrypoint"`
	Cmd        []string `yaml:"cmd"`
	Env        []string `yaml:"env"`
	User       string   `yaml:"user"`
	WorkingDir string   `yaml:"workdir"`
}

// String is the helper's name: the argument that selects it, the log line, the error prefix.
func (h Helper) String() string { return name(h.Flavor, h.Arch, h.Shell) }

func name(flavor, arch, shell string) string {
	if shell != "" {
		arch += "-" + shell
	}
	return flavor + "-" + arch
}

// Suffix ends the name of an archive, whatever its compression: the name is the
// key that GitLab Runner 17.9 and later look up
// (v17.9.0, executors/docker/internal/prebuilt/prebuilt.go).
const Suffix = ".docker.tar.zst"

// File is the archive's base name.
func (h Helper) File() string { return h.base() + Suffix }

func (h Helper) base() string { return "prebuilt-" + h.String() }

// Inputs lists the base names that an input tarball of h may have. The layout
// is told by content, whatever the name.
func (h Helper) Inputs() []string {
	inputs := []string{h.String() + ".tar"}
	for _, suffix := range []string{".tar", ".tar.xz", ".tar.gz", ".tar.zst", ".tar.bz2", Suffix} {
		inputs = append(inputs, h.base()+suffix)
	}
	return inputs
}

// Tag is the tag that GitLab Runner of version v looks for
// (v15.8.0 and v19.3.0, helpers/container/helperimage/linux_info.go). concrete
// has no pwsh row, so its tag never carries the shell.
func (h Helper) Tag(v Version) string {
	tag := h.Arch + "-" + v.tagRevision()
	if h.Flavor != DefaultFlavor {
		tag = h.Flavor + "-" + tag
	}
	if h.Shell != "" {
		tag += "-" + h.Shell
	}
	return tag
}

// GoArch is the architecture in Go's words, as in the names of packages.
func (h Helper) GoArch() string { return h.Platform.Architecture }

// PackageSuffix is what the helper adds to the base name of its package:
// alpine-amd64, ubuntu-arm64-pwsh.
func (h Helper) PackageSuffix() string { return name(h.Flavor, h.GoArch(), h.Shell) }

// A Catalogue is a checked table of helpers, in the order of its file.
type Catalogue struct{ helpers []Helper }

// Helpers returns all rows.
func (c *Catalogue) Helpers() []Helper { return slices.Clone(c.helpers) }

// Lookup returns the row of that name.
func (c *Catalogue) Lookup(name string) (Helper, bool) {
	i := slices.IndexFunc(c.helpers, func(h Helper) bool { return h.String() == name })
	if i < 0 {
		return Helper{}, false
	}
	return c.helpers[i], true
}

// Default returns the rows that are built when nothing is selected: the default
// set of Runner version v.
func (c *Catalogue) Default(v Version) []Helper {
	var selected []Helper
	for _, h := range c.helpers {
		if h.Default && (h.Since == "" || !v.Before(h.Since)) {
			selected = append(selected, h)
		}
	}
	return selected
}

// Select returns the rows that any of the globs (path.Match) names, each once,
// in the catalogue's order. All globs that match nothing are reported together.
func (c *Catalogue) Select(globs []string) ([]Helper, error) {
	chosen := make([]bool, len(c.helpers))
	listed := false // the names of all, once
	var errs []error
	for _, glob := range globs {
		found := false
		for i, h := range c.helpers {
			ok, err := path.Match(glob, h.String())
			if err != nil {
				errs = append(errs, fmt.Errorf("%q: %w", glob, err))
				found = true
				break
			}
			if ok {
				chosen[i], found = true, true
			}
		}
		if !found {
			hint := ""
			switch {
			case strings.ContainsAny(glob, " \t;"):
				hint = "; separate them by commas"
			case !listed:
				hint, listed = "; there are "+c.names(), true
			}
			errs = append(errs, fmt.Errorf("%q: no helper matches%s", glob, hint))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	var selected []Helper
	for i, h := range c.helpers {
		if chosen[i] {
			selected = append(selected, h)
		}
	}
	return selected, nil
}

func (c *Catalogue) names() string {
	names := make([]string, len(c.helpers))
	for i, h := range c.helpers {
		names[i] = h.String()
	}
	return strings.Join(names, ", ")
}

// document is the file's form.
type document struct {
	Arches map[string]struct {
		Platform string `yaml:"platform"`
		Since    string `yaml:"since"`
	} `yaml:"arches"`
	Config  Config   `yaml:"config"`
	Flavors []flavor `yaml:"flavors"`
}

type flavor struct {
	Name    string   `yaml:"name"`
	Arches  []string `yaml:"arches"`
	Pwsh    []string `yaml:"pwsh"`
	Default []string `yaml:"default"`
	StandIn string   `yaml:"stand-in"`
	Config  *Config  `yaml:"config"` // in place of the common one
}

// A flavor stands in file names, in tags and in the names of rpm and deb packages,
// which are lower case and have no underscore (Debian Policy 5.6.1); an arch in
// file names and tags; what a platform is made of in the names of packages.
var (
	flavorForm   = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{0,39}$`)
	archForm     = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,39}$`)
	platformForm = regexp.MustCompile(`^linux/[a-z0-9]{1,16}(/[a-z0-9]{1,16})?$`)
)

// Parse reads a catalogue; file prefixes its errors. An unknown key is an error
// with its line and the nearest key; all rows that cannot be are reported together.
func Parse(file string, data []byte) (*Catalogue, error) {
	var doc document
	if err := strictyaml.Decode(data, &doc); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	c, errs := doc.catalogue()
	for i, err := range errs {
		errs[i] = fmt.Errorf("%s: %w", file, err)
	}
	return c, errors.Join(errs...)
}

// catalogue spreads the rows out and doubts them.
func (doc document) catalogue() (*Catalogue, []error) {
	var (
		c    Catalogue
		errs []error
		seen = map[string]bool{}
	)
	reject := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }

	platforms := map[string]v1.Platform{}
	for _, arch := range slices.Sorted(maps.Keys(doc.Arches)) {
		row := doc.Arches[arch]
		if !archForm.MatchString(arch) {
			reject("arch %q: not of the form %s", arch, archForm)
		}
		platform, err := parsePlatform(row.Platform)
		if err != nil {
			reject("arch %s: platform %q: %w", arch, row.Platform, err)
		}
		if row.Since != "" {
			if _, err := parseTriple(row.Since); err != nil {
				reject("arch %s: since %q: %w", arch, row.Since, err)
			}
		}
		platforms[arch] = platform
	}

	for _, f := range doc.Flavors {
		if !flavorForm.MatchString(f.Name) {
			reject("flavor %q: not of the form %s", f.Name, flavorForm)
			continue
		}
		config := doc.Config
		if f.Config != nil {
			config = *f.Config
		}
		rows := map[string]bool{} // the flavor's rows, as default names them
		add := func(arch, shell string) {
			platform, known := platforms[arch]
			if !known {
				reject("flavor %s: arch %q is not in arches", f.Name, arch)
				return
			}
			row := strings.TrimPrefix(name("", arch, shell), "-")
			h := Helper{
				Flavor: f.Name, Arch: arch, Shell: shell, Platform: platform,
				Default: slices.Contains(f.Default, row), Since: doc.Arches[arch].Since, Config: config,
			}
			if f.StandIn != "" {
				h.StandIn = name(f.StandIn, arch, shell)
			}
			if seen[h.String()] {
				reject("flavor %s: two rows are called %s", f.Name, h)
				return
			}
			seen[h.String()], rows[row] = true, true
			c.helpers = append(c.helpers, h)
		}
		for _, arch := range f.Arches {
			add(arch, "")
		}
		for _, arch := range f.Pwsh {
			add(arch, powerShell)
		}
		for _, row := range f.Default {
			if !rows[row] {
				reject("flavor %s: default %q is none of its rows", f.Name, row)
			}
		}
	}
	names := map[string]Helper{}
	for _, h := range c.helpers {
		for _, name := range []string{"tag " + h.Tag(Version{}), "package " + h.PackageSuffix()} {
			if other, twice := names[name]; twice {
				reject("%s and %s would have one %s", other, h, name)
			}
			names[name] = h
		}
		if h.StandIn != "" && (!seen[h.StandIn] || h.StandIn == h.String()) {
			reject("%s: its stand-in %s is no other row", h, h.StandIn)
		}
	}
	if len(c.helpers) == 0 && len(errs) == 0 {
		reject("no flavors")
	}
	return &c, errs
}

func parsePlatform(s string) (v1.Platform, error) {
	if !platformForm.MatchString(s) {
		return v1.Platform{}, errors.New("want linux/arch or linux/arch/variant")
	}
	p, err := v1.ParsePlatform(s)
	if err != nil {
		return v1.Platform{}, err
	}
	return *p, nil
}
