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

// commonFile is the definition whose values hold where a package's own say
// nothing. Its contents are added to every package's.
const commonFile = "common.yaml"

// What a definition is made once for each of.
const (
	eachHelper = "helper" // every archive
	eachHost   = "host"   // every architecture that has the default flavor's helper
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
	GoArch      string             // each host: Go's
	Helper      catalogue.Helper   // each helper: which
	Helpers     []catalogue.Helper // those in this build; each host: of its architecture
	Compression string             // of the archives in the package, without a level
	Unpacked    int64              // each helper: bytes of the unpacked image

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

// Exactly is the relation to a package of this build.
func (v values) Exactly(name string) string {
	return v.Relation(name, "=", v.Version+"-"+v.Release)
}

// IfExists is the path if there is such a file, else "".
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
	if !slices.Contains([]string{eachHelper, eachHost, eachBuild}, s.raw.Each) {
		return source{}, fmt.Errorf("each: %q: want %s, %s or nothing", s.raw.Each, eachHelper, eachHost)
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
