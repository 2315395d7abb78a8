package build

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"pretag/build/archive"
	"pretag/build/catalogue"
	"pretag/build/fetch"
	"pretag/build/internal/gobuild"
	"pretag/build/internal/nearest"
	"pretag/build/internal/text"
)

// A Config holds the values of the variables, read and validated once.
type Config struct {
	Version      catalogue.Version
	Release      string // of the packages
	Catalogue    *catalogue.Catalogue
	CatalogueSum string // sha256, in hex, of a custom catalogue; "" for the one built in
	Helpers      []catalogue.Helper
	Inputs       string            // directory of the input tarballs
	Out          string            // directory of everything written
	Repository   string            // of each RepoTag
	PlainHTTP    []string          // registries, as host or host:port, that pull asks over http
	Credentials  fetch.Credentials // for registries
	Compression  archive.Compression
	Formats      []string // release.RPM, release.Deb
	Layout       string   // split, single
	Maintainer   string   // of the packages: Name <mail@example.com>
	Vendor       string   // of the packages
	Homepage     string   // of the packages: URL
	Time         time.Time
	Key          string   // path of the signing key; "" for unsigned
	Passphrase   string   // path of the file with its passphrase
	Builder      string   // who builds, for the provenance; "" if that is not known
	Engines      []string // that verify must use; nil for every one found
	Runner       string   // gitlab-runner program whose jobs verify runs; "" for the one in PATH
	LoaderArches []string // in Go's words; nil for all that hosts of the packages need
	LoaderDir    string   // directory of loaders that were built ahead; "" to build them
	Jobs         int
	DryRun       bool // only list what would be made

	GoEnviron []string // NAME=value of what building a loader takes from the environment
	Warnings  []string // for the user
}

// A Need says what a target cannot do without.
type Need int

// The needs. Values that are set are always validated.
const (
	NeedNothing         Need = iota // that has no default
	NeedVersion                     // the Runner version to build for, and its time
	NeedVersionOrDryRun             // the same, for the target that has a dry run
)

// FromEnv reads the configuration from NAME=value entries. All invalid variables
// are reported together, each with its name, its value and what is allowed.
func FromEnv(ctx context.Context, environ []string, need Need) (Config, error) {
	r := reader{ctx: ctx, need: need, environ: map[string]string{}}
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		r.environ[name] = value
	}
	var names []string
	for _, v := range variables() {
		names = append(names, v.name)
		value := r.environ[v.name]
		if strings.Trim(value, ", \t") == "" {
			value = v.fallback
		}
		if err := v.parse(&r, value); err != nil {
			for _, err := range text.Errors(err) {
				r.errs = append(r.errs, fmt.Errorf("%s=%w", v.name, err))
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(r.environ)) {
		if word, close := nearest.Word(name, names); close && word != name {
			r.Warnings = append(r.Warnings, fmt.Sprintf("the variable %s is set; did you mean %s?", name, word))
		}
	}
	if warning := r.Version.RevisionWarning(); warning != "" {
		r.Warnings = append(r.Warnings, warning)
	}
	for _, name := range gobuild.Variables() {
		if value := r.environ[name]; value != "" {
			r.GoEnviron = append(r.GoEnviron, name+"="+value)
		}
	}
	r.Credentials = fetch.CredentialsFrom(func(name string) string { return r.environ[name] })
	return r.Config, errors.Join(r.errs...)
}

// checkArguments rejects NAME=value among the arguments of a command if NAME is a
// variable: mage takes each later word for a target, and reports that only after the
// first one has run with other values. Values are not shown, because they may be secrets.
func checkArguments(args []string) error {
	var errs []error
	for _, v := range variables() {
		for _, arg := range args {
			if name, _, assigns := strings.Cut(arg, "="); assigns && name == v.name {
				errs = append(errs, fmt.Errorf("%s=... is after the target: set variables before the command", name))
			}
		}
	}
	return errors.Join(errs...)
}

// A reader is a Config that is being read, variable by variable.
type reader struct {
	Config
	ctx     context.Context // of FromEnv
	need    Need
	environ map[string]string
	errs    []error

	version      string // RUNNER_VERSION as it is set
	versionKnown bool   // Version is valid
}

// parameters returns the variables that decide what is built, without paths.
func (c Config) parameters() map[string]string {
	parameters := map[string]string{}
	for _, v := range variables() {
		if v.record == nil {
			continue
		}
		if value := v.record(c); value != "" {
			parameters[v.name] = value
		}
	}
	return parameters
}
