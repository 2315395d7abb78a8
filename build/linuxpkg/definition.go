package linuxpkg

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"text/template"
	"time"

	"github.com/goreleaser/nfpm/v2"
	"go.yaml.in/yaml/v3"

	"pretag/build/catalogue"
	"pretag/build/internal/strictyaml"
	"pretag/build/release"
)

// commonFile is the definition whose values hold unless a package's own definition
// sets others. Its contents are added to every package's.
const commonFile = "common.yaml"

// What a definition makes a package for.
const (
	eachHelper = "helper" // every archive that is not in a native package
	eachHost   = "host"   // every architecture that has a native package
	eachLoader = "loader" // every architecture that has a loader
	eachBuild  = ""       // once
)

// A definition is one file of packaging/*.yaml: an nfpm.yaml, word for word,
// with two keys more. After the YAML has been read, each string in it is a
// text/template over values; an item of a list that yields several lines
// becomes several items, and one that yields nothing is dropped.
type definition struct {
	Each        string   `yaml:"each"`
	Layouts     []string `yaml:"layouts"`
	nfpm.Config `yaml:",inline"`
}

// values is what a definition's templates see.
type values struct {
	Name       string // the package's
	Format     string // rpm, deb
	Layout     string // split, single
	Version    string // of the package: 19.3.0, 19.3.0~beta.1, 0.0.0~latest
	Release    string
	Runner     catalogue.Version
	Date       time.Time
	Maintainer string
	Vendor     string
	Homepage   string

	Arch        string             // in the format's words: the host's, or that for all
	GoArch      string             // each host, each loader: Go's
	Helper      catalogue.Helper   // each helper: which
	Helpers     []catalogue.Helper // in this package, or, each helper and each loader, in this build
	Flavor      string             // each host: the helper_image_flavor that config.toml must set, or ""
	Compression string             // of the archives in the package, without a level
	Signed      bool
	Modules     []module // each loader: what is linked into it

	files fs.FS
}

// Relation spells a versioned relation in the format's words; op is one of
// < <= = >= >.
func (v values) Relation(name, op, version string) string {
	if v.Format == release.RPM {
		return name + " " + op + " " + version
	}
	if op == "<" || op == ">" {
		op += op // Debian Policy 7.1
	}
	return name + " (" + op + " " + version + ")"
}

// UpTo returns the relation to a package of this build's version or a lower one.
func (v values) UpTo(name string) string {
	return v.Relation(name, "<=", v.Version+"-"+v.Release)
}

// versions returns the lowest and the highest package version that stands for
// this GitLab Runner: this build's and GitLab's own.
func (v values) versions() (low, high string) {
	low, high = v.Version+"-"+upstreamRelease, v.Version+"-"+v.Release
	if belowUpstream(v.Release) {
		low, high = high, low
	}
	return low, high
}

// Upstream returns the relation to GitLab's own version of a package, which ours
// provides under another release; "" if the versions are equal.
func (v values) Upstream(name string) string {
	if v.Release == upstreamRelease {
		return ""
	}
	return v.Relation(name, "=", v.Version+"-"+upstreamRelease)
}

// OtherVersions returns relations to a package in every version that is not for
// this GitLab Runner.
func (v values) OtherVersions(name string) string {
	low, high := v.versions()
	return v.Relation(name, "<", low) + "\n" + v.Relation(name, ">", high)
}

// OtherRunners returns relations to each GitLab Runner that would use these
// archives, by their names, although they are not for its version, and that does
// not require gitlab-runner-helper-images in its own version: gitlab-runner below
// 17.7.1 and gitlab-runner-fips, which exists as an rpm only (GitLab Runner
// v15.8.0 to v19.3.0, packages.tsv in build/catalogue/testdata). The versions of
// gitlab-runner below 16.9.0 have no release.
func (v values) OtherRunners() string {
	if v.Runner.String() == catalogue.Latest {
		return ""
	}
	const runner, fips = "gitlab-runner", "gitlab-runner-fips"
	_, high := v.versions()
	var others []string
	if v.Runner.Before("17.7.1") {
		others = append(others, v.Relation(runner, "<", v.Version), v.Relation(runner, ">", high))
	} else {
		others = append(others, v.Relation(runner, "<", "17.7.1"))
	}
	if v.Format == release.RPM {
		others = append(others, v.Relation(fips, "<", v.Version), v.Relation(fips, ">", high))
	}
	return strings.Join(others, "\n")
}

// FormerPackages returns relations to the packages in which earlier versions of
// pretag, or the split layout, have the archives of this package.
func (v values) FormerPackages() string {
	const base = "gitlab-runner-helper-images-"
	former := []string{v.UpTo(base + "all")}
	for _, h := range v.Helpers {
		former = append(former, v.UpTo(base+h.PackageSuffix()))
	}
	return strings.Join(former, "\n")
}

// IfExists returns the path if there is such a file, else "".
func (v values) IfExists(name string) string {
	if _, err := fs.Stat(v.files, name); err != nil {
		return ""
	}
	return name
}

// execute fills in one template.
func (v values) execute(name, text string) (string, error) {
	if !strings.Contains(text, "{{") {
		return text, nil
	}
	t, err := template.New(name).Option("missingkey=error").Parse(text)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	if err := t.Execute(&b, v); err != nil {
		return "", err
	}
	return b.String(), nil
}

// A source is a definition as it was read, before its templates are filled in.
type source struct {
	file string
	node *yaml.Node
	raw  definition
}

// readDefinitions reads every *.yaml of files, strictly: an unknown key is an
// error with its line. All files that cannot be are reported together.
func readDefinitions(files fs.FS) (common source, own []source, err error) {
	names, err := fs.Glob(files, "*.yaml")
	if err != nil {
		return source{}, nil, err
	}
	var errs []error
	for _, name := range names {
		s, err := readSource(files, name)
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
		case name == commonFile:
			common = s
		default:
			own = append(own, s)
		}
	}
	if common.node == nil && len(errs) == 0 {
		errs = append(errs, fmt.Errorf("%s: %w", commonFile, fs.ErrNotExist))
	}
	return common, own, errors.Join(errs...)
}

func readSource(files fs.FS, name string) (source, error) {
	data, err := fs.ReadFile(files, name)
	if err != nil {
		return source{}, err
	}
	s := source{file: name, node: new(yaml.Node)}
	if err := strictyaml.Decode(data, &s.raw); err != nil {
		return source{}, err
	}
	if !slices.Contains([]string{eachHelper, eachHost, eachLoader, eachBuild}, s.raw.Each) {
		return source{}, fmt.Errorf("each: %q: want %s, %s, %s or nothing", s.raw.Each, eachHelper, eachHost, eachLoader)
	}
	for _, layout := range s.raw.Layouts {
		if layout != Split && layout != Single {
			return source{}, fmt.Errorf("layouts: %q: want %s or %s", layout, Split, Single)
		}
	}
	return s, yaml.Unmarshal(data, s.node)
}

// render fills s in over common and gives the package's nfpm.Info, new in every
// part: a packager writes into the one it is given.
func render(common, s source, v values) (*nfpm.Info, error) {
	name, err := v.execute("name", s.raw.Name)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.file, err)
	}
	v.Name = name

	var d definition
	if err := common.fill(&d, v); err != nil {
		return nil, err
	}
	contents := d.Contents
	d.Contents = nil
	if err := s.fill(&d, v); err != nil {
		return nil, err
	}
	d.Contents = append(contents, d.Contents...)
	return d.Config.Get(v.Format)
}

// fill decodes s over d with its templates filled in.
func (s source) fill(d *definition, v values) error {
	node, err := fillNode(s.node, v)
	if err == nil {
		err = node.Decode(d)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", s.file, err)
	}
	return nil
}

// fillNode is a copy of n with every string's template filled in.
func fillNode(n *yaml.Node, v values) (*yaml.Node, error) {
	if n.Kind == yaml.AliasNode {
		return fillNode(n.Alias, v)
	}
	filled := *n
	filled.Anchor, filled.Content = "", nil
	if n.Kind == yaml.ScalarNode && n.Tag == "!!str" {
		text, err := v.execute(fmt.Sprintf("line %d", n.Line), n.Value)
		if err != nil {
			return nil, err
		}
		filled.Value = text
		return &filled, nil
	}
	for _, child := range n.Content {
		c, err := fillNode(child, v)
		if err != nil {
			return nil, err
		}
		if n.Kind != yaml.SequenceNode || c.Kind != yaml.ScalarNode {
			filled.Content = append(filled.Content, c)
			continue
		}
		for line := range strings.Lines(c.Value) {
			if line = strings.TrimSpace(line); line != "" {
				item := *c
				item.Value = line
				filled.Content = append(filled.Content, &item)
			}
		}
	}
	return &filled, nil
}
