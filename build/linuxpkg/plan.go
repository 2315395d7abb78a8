package linuxpkg

import (
	"cmp"
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/goreleaser/nfpm/v2"

	"pretag/build/catalogue"
	"pretag/build/release"
)

// A plan is everything that Build will write, checked.
type plan struct {
	packages []planned
	warnings []string
}

// A planned package is one that nfpm can be given.
type planned struct {
	format   string
	info     *nfpm.Info
	archives []string
}

// A row is an archive and its helper.
type row struct {
	helper catalogue.Helper
	file   release.Archive
}

// newPlan fills the definitions in for archives and puts the small files that
// the packages hold into the folder stage. All that is wrong is reported together.
func newPlan(opts Options, archives []release.Archive, stage string) (plan, error) {
	rows, err := match(opts, archives)
	if err := errors.Join(opts.check(), err); err != nil {
		return plan{}, err
	}
	loaders, err := readLoaders(opts)
	if err != nil {
		return plan{}, err
	}
	p := plan{warnings: hostWarnings(opts, rows)}
	var errs []error
	err = each(opts, rows, loaders, func(common, s source, i instance) error {
		made, err := newPlanned(common, s, i, opts, stage)
		if errors.As(err, &unwritten{}) {
			return err
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", i.values.Format, err))
			return nil
		}
		p.packages = append(p.packages, made)
		return nil
	})
	if err != nil {
		return plan{}, err
	}
	seen := map[string]bool{}
	for _, made := range p.packages {
		key := made.format + " " + made.info.Name + " " + made.info.Arch
		if seen[key] {
			errs = append(errs, fmt.Errorf("%s: two packages are called %s", made.format, made.info.Name))
		}
		seen[key] = true
	}
	return p, errors.Join(errs...)
}

// each calls do for every package of a build, in the order of the formats and of the
// definitions' file names.
func each(opts Options, rows []row, loaders []loader, do func(common, s source, i instance) error) error {
	common, sources, err := readDefinitions(opts.Files)
	if err != nil {
		return err
	}
	hosts, rest := hostsOf(opts.Version, rows)
	for _, format := range opts.Formats {
		base := values{
			Format: format, Layout: opts.Layout, Arch: noArch(format), Version: packageVersion(opts.Version), Release: opts.Release, Runner: opts.Version, Date: opts.MTime.UTC(),
			Maintainer: opts.Maintainer, Vendor: opts.Vendor, Homepage: opts.Homepage, Signed: opts.Sign != nil, files: opts.Files,
		}
		for _, s := range sources {
			if !slices.Contains(s.raw.Layouts, opts.Layout) {
				continue
			}
			for _, i := range instances(s.raw.Each, base, rows, rest, hosts, loaders) {
				if err := do(common, s, i); err != nil {
					return fmt.Errorf("%s: %w", format, err)
				}
			}
		}
	}
	return nil
}

func (opts Options) check() error {
	var errs []error
	reject := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	for _, format := range opts.Formats {
		if format != release.RPM && format != release.Deb {
			reject("format %q: want %s or %s", format, release.RPM, release.Deb)
		}
	}
	if opts.Layout != Split && opts.Layout != Single {
		reject("layout %q: want %s or %s", opts.Layout, Split, Single)
	}
	if _, err := release.ParseIteration(opts.Release); err != nil {
		reject("release %w", err)
	}
	if opts.MTime.IsZero() {
		reject("no time: nfpm would use the clock")
	}
	if opts.Maintainer == "" {
		reject("no maintainer: nfpm would make one up")
	}
	return errors.Join(errs...)
}

// match finds each archive's helper.
func match(opts Options, archives []release.Archive) ([]row, error) {
	var (
		rows []row
		errs []error
		seen = map[string]bool{}
	)
	for _, f := range archives {
		i := slices.IndexFunc(opts.Helpers, func(h catalogue.Helper) bool { return h.String() == f.Helper })
		switch {
		case i < 0:
			errs = append(errs, fmt.Errorf("%s: the catalogue has no such helper", f.Helper))
		case seen[f.Helper]:
			errs = append(errs, fmt.Errorf("%s: two archives of one helper", f.Helper))
		case f.Version != opts.Version.String():
			errs = append(errs, fmt.Errorf("%s: archive is for GitLab Runner %s, want %s", f.Helper, f.Version, opts.Version))
		default:
			rows = append(rows, row{opts.Helpers[i], f})
		}
		seen[f.Helper] = true
	}
	if len(archives) == 0 {
		errs = append(errs, errors.New("no archives"))
	}
	return rows, errors.Join(errs...)
}

// An instance is one package that a definition is filled in for.
type instance struct {
	values values
	rows   []row  // whose archives are in it, if the definition takes any
	loader string // path of the loader in it, if the definition takes one
}

func instances(each string, base values, rows, rest []row, hosts []host, loaders []loader) []instance {
	base.Helpers = helpersOf(rows)
	var all []instance
	switch each {
	case eachHelper:
		for _, r := range rest {
			v := base
			v.Helper, v.Compression = r.helper, compression([]row{r})
			all = append(all, instance{values: v, rows: []row{r}})
		}
	case eachHost:
		for _, host := range hosts {
			v := base
			v.GoArch, v.Arch = host.platform.Architecture, hostArch(base.Format, host.platform.Architecture, host.platform.Variant)
			v.Helpers, v.Flavor, v.Compression = helpersOf(host.rows), host.flavor, compression(host.rows)
			all = append(all, instance{values: v, rows: host.rows})
		}
	case eachLoader:
		for _, l := range loaders {
			v := base
			v.GoArch, v.Arch, v.Modules = l.goarch, hostArch(base.Format, l.goarch, ""), l.modules
			all = append(all, instance{values: v, loader: l.path})
		}
	default:
		base.Compression = compression(rows)
		all = append(all, instance{values: base, rows: rows})
	}
	return all
}

func helpersOf(rows []row) []catalogue.Helper {
	var helpers []catalogue.Helper
	for _, r := range rows {
		helpers = append(helpers, r.helper)
	}
	return helpers
}

// compression returns the weakest of the rows' archives: "none" if any is not
// compressed, "" if there are no rows.
func compression(rows []row) string {
	var word string
	for _, r := range rows {
		name, _, _ := strings.Cut(r.file.Compression, ":")
		if name == "none" {
			return name
		}
		word = cmp.Or(word, name)
	}
	return word
}

// packageName is what both formats allow (Debian Policy 5.6.1; rpm allows more).
var packageName = regexp.MustCompile(`^[a-z0-9][a-z0-9+.-]+$`)

// newPlanned fills one package in, stages its files and validates the result.
func newPlanned(common, s source, i instance, opts Options, stage string) (planned, error) {
	info, err := render(common, s, i.values)
	if err != nil {
		return planned{}, err
	}
	stager := stager{
		files: opts.Files, rows: i.rows, loader: i.loader, documents: opts.Documents, values: i.values, mtime: opts.MTime,
		dir: path.Join(stage, i.values.Format, info.Name+"."+info.Arch),
	}
	stager.values.Name = info.Name
	size, archives, err := stager.stage(info)
	if err != nil {
		return planned{}, fmt.Errorf("%s: %w", info.Name, err)
	}
	info.MTime = opts.MTime
	info.Platform = cmp.Or(info.Platform, "linux")
	info.DisableGlobbing = true // names are names
	if synopsis, rest, ok := strings.Cut(info.Description, "\n"); ok && i.values.Format == release.RPM {
		info.RPM.Summary = cmp.Or(info.RPM.Summary, synopsis) // Debian has both in one field
		info.Description = rest
	}
	scripts := info.Scripts != (nfpm.Scripts{}) || info.RPM.Scripts != (nfpm.RPMScripts{})
	if i.values.Format == release.RPM && scripts && !slices.Contains(info.Depends, "/bin/sh") {
		info.Depends = append(info.Depends, "/bin/sh") // nfpm does not add what runs the scriptlets
	}
	if opts.Sign != nil {
		info.Deb.Signature.SignFn = opts.Sign
		info.Deb.Signature.Method, info.Deb.Signature.Type = "debsign", "origin"
	}

	var errs []error
	reject := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s: %s", info.Name, fmt.Sprintf(format, args...)))
	}
	if !packageName.MatchString(info.Name) {
		reject("name %q is not of the form %s", info.Name, packageName)
	}
	if info.Arch == "" {
		reject("no arch")
	}
	if info.Version != i.values.Version || info.Release != i.values.Release {
		reject("version %s-%s, want %s-%s", info.Version, info.Release, i.values.Version, i.values.Release)
	}
	if i.values.Format == release.RPM {
		if info.RPM.BuildHost == "" {
			reject("no rpm.buildhost: nfpm would write this machine's name")
		}
		if _, err := gzipLevel(info.RPM.Compression); err != nil {
			reject("%v", err)
		}
	}
	if size > maxContents {
		reject("%d bytes in one package, of 2 GiB at most; PACKAGE_LAYOUT=%s or fewer HELPERS make them smaller", size, Split)
	}
	return planned{format: i.values.Format, info: info, archives: archives}, errors.Join(errs...)
}

// packageVersion is Runner's version as both formats take and order it: a
// pre-release sorts below its release, and no hyphen is left, which both read
// as the beginning of the release.
func packageVersion(v catalogue.Version) string {
	if v.String() == catalogue.Latest {
		return "0.0.0~" + catalogue.Latest
	}
	s := v.String()
	if number, rest, ok := strings.Cut(s, "-"); ok {
		sep := "~"
		if strings.ContainsAny(number, "~+") {
			sep = "."
		}
		s = number + sep + strings.ReplaceAll(rest, "-", ".")
	}
	return s
}
