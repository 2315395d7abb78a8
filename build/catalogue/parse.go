package catalogue

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"go.yaml.in/yaml/v3"

	"pretag/build/internal/strictyaml"
)

// document is the form of the file. In each list a word may be followed by the
// versions in which it holds: riscv64 since 16.3.0 before 18.3.0.
type document struct {
	Arches map[string]struct {
		Platform string `yaml:"platform"`
		Since    string `yaml:"since"`
		Before   string `yaml:"before"`
	} `yaml:"arches"`
	Config  Config   `yaml:"config"`
	Flavors []flavor `yaml:"flavors"`
}

type flavor struct {
	Name      string   `yaml:"name"`
	Since     string   `yaml:"since"`
	Before    string   `yaml:"before"`
	Arches    []string `yaml:"arches"`
	Pwsh      []string `yaml:"pwsh"`
	Default   []string `yaml:"default"`
	Release   []string `yaml:"release"`
	StandIn   words    `yaml:"stand-in"`
	NotPushed []string `yaml:"not-pushed"`
	PushedAs  words    `yaml:"pushed-as"`
	Config    *Config  `yaml:"config"` // in place of the common one
}

// words is a list that may be written as its only item.
type words []string

func (w *words) UnmarshalYAML(node *yaml.Node) error {
	if node.Kind == yaml.ScalarNode {
		*w = words{""}
		return node.Decode(&(*w)[0])
	}
	return node.Decode((*[]string)(w))
}

// A flavor is part of file names, tags and the names of rpm and deb packages,
// which are lower case and have no underscore (Debian Policy 5.6.1); an arch of
// file names and tags; the parts of a platform of the names of packages.
var (
	flavorForm   = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{0,39}$`)
	archForm     = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,39}$`)
	platformForm = regexp.MustCompile(`^linux/[a-z0-9]{1,16}(/[a-z0-9]{1,16})?$`)
	termForm     = regexp.MustCompile(`^(\S+)(?: since (\S+))?(?: before (\S+))?$`)
)

// allRows is the word for every helper of a flavor.
const allRows = "all"

// Parse parses a catalogue; file is the prefix of its errors. An unknown key is
// an error that shows its line and the nearest key. All mistakes in the values
// are reported together.
func Parse(file string, data []byte) (*Catalogue, error) {
	var doc document
	if err := strictyaml.Decode(data, &doc); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	p := parser{doc: doc, platforms: map[string]v1.Platform{}, arches: map[string]span{}}
	p.parse()
	for i, err := range p.errs {
		p.errs[i] = fmt.Errorf("%s: %w", file, err)
	}
	if err := errors.Join(p.errs...); err != nil {
		return nil, err
	}
	return &Catalogue{p.helpers}, nil
}

// A parser turns a document into helpers.
type parser struct {
	doc       document
	platforms map[string]v1.Platform
	arches    map[string]span
	helpers   []Helper
	errs      []error
}

func (p *parser) reject(format string, args ...any) {
	p.errs = append(p.errs, fmt.Errorf(format, args...))
}

func (p *parser) parse() {
	for _, arch := range slices.Sorted(maps.Keys(p.doc.Arches)) {
		p.arch(arch)
	}
	p.config("config", p.doc.Config)
	for _, f := range p.doc.Flavors {
		p.flavor(f)
	}
	p.checkNames()
	if len(p.helpers) == 0 && len(p.errs) == 0 {
		p.reject("no flavors")
	}
}

func (p *parser) arch(arch string) {
	row := p.doc.Arches[arch]
	if !archForm.MatchString(arch) {
		p.reject("arch %q: not of the form %s", arch, archForm)
	}
	if arch == allRows {
		p.reject("arch %q: reserved", arch)
	}
	platform, err := parsePlatform(row.Platform)
	if err != nil {
		p.reject("arch %s: platform %q: %w", arch, row.Platform, err)
	}
	versions, err := parseSpan(row.Since, row.Before)
	if err != nil {
		p.reject("arch %s: %w", arch, err)
	}
	p.platforms[arch], p.arches[arch] = platform, versions
}

func (p *parser) config(where string, c Config) {
	if _, err := parseSpan(c.AssumedSince, ""); err != nil {
		p.reject("%s: assumed-%w", where, err)
	}
}

// flavor adds the helpers of one flavor.
func (p *parser) flavor(f flavor) {
	if !flavorForm.MatchString(f.Name) {
		p.reject("flavor %q: not of the form %s", f.Name, flavorForm)
		return
	}
	versions, err := parseSpan(f.Since, f.Before)
	if err != nil {
		p.reject("flavor %s: %w", f.Name, err)
	}
	config := p.doc.Config
	if f.Config != nil {
		config = *f.Config
		p.config("flavor "+f.Name+": config", config)
	}

	var rows []Helper // of this flavor
	find := func(row string) int {
		return slices.IndexFunc(rows, func(h Helper) bool { return h.row() == row })
	}
	add := func(key, shell string, list []string) {
		for _, t := range p.terms(f.Name, key, list) {
			platform, known := p.platforms[t.word]
			if !known {
				p.reject("flavor %s: arch %q is not in arches", f.Name, t.word)
				continue
			}
			built, _ := t.span.and(versions)
			built, ok := built.and(p.arches[t.word])
			if !ok {
				p.reject("flavor %s: %s %q: no version has both flavor and arch", f.Name, key, t.word)
				continue
			}
			h := Helper{Flavor: f.Name, Arch: t.word, Shell: shell, Platform: platform, Config: config}
			i := find(h.row())
			if i < 0 {
				i = len(rows)
				rows = append(rows, h)
			}
			if slices.ContainsFunc(rows[i].built, func(s span) bool { _, both := s.and(built); return both }) {
				p.reject("flavor %s: two rows are called %s", f.Name, h)
			}
			rows[i].built = append(rows[i].built, built)
		}
	}
	add("arches", "", f.Arches)
	add("pwsh", powerShell, f.Pwsh)

	mark := func(key string, list []string, spans func(*Helper) *[]span) {
		for _, t := range p.terms(f.Name, key, list) {
			i := find(t.word)
			if i < 0 && t.word != allRows {
				p.reject("flavor %s: %s %q is not one of its rows", f.Name, key, t.word)
			}
			for j := range rows {
				if j == i || t.word == allRows {
					to := spans(&rows[j])
					*to = append(*to, t.span)
				}
			}
		}
	}
	mark("default", f.Default, func(h *Helper) *[]span { return &h.packaged })
	mark("release", f.Release, func(h *Helper) *[]span { return &h.released })
	mark("not-pushed", f.NotPushed, func(h *Helper) *[]span { return &h.notPushed })

	standIns, pushedAs := p.terms(f.Name, "stand-in", f.StandIn), p.terms(f.Name, "pushed-as", f.PushedAs)
	for i := range rows {
		rows[i].standIns, rows[i].pushedAs = standIns, pushedAs
	}
	p.helpers = append(p.helpers, rows...)
}

// row returns the word for h within its flavor: x86_64, x86_64-pwsh.
func (h Helper) row() string { return strings.TrimPrefix(name("", h.Arch, h.Shell), "-") }

// terms parses a list of words with their versions.
func (p *parser) terms(flavor, key string, list []string) []term {
	var terms []term
	for _, text := range list {
		form := termForm.FindStringSubmatch(text)
		if form == nil {
			p.reject("flavor %s: %s %q: want WORD [since X.Y.Z] [before X.Y.Z]", flavor, key, text)
			continue
		}
		versions, err := parseSpan(form[2], form[3])
		if err != nil {
			p.reject("flavor %s: %s %q: %w", flavor, key, text, err)
			continue
		}
		terms = append(terms, term{form[1], versions})
	}
	return terms
}

// checkNames rejects helpers that would share a name.
func (p *parser) checkNames() {
	names := map[string]Helper{}
	for _, h := range p.helpers {
		for _, name := range []string{"name " + h.String(), "tag " + h.Tag(Version{}), "package " + h.PackageSuffix()} {
			if other, twice := names[name]; twice {
				p.reject("%s and %s would have one %s", other, h, name)
				break
			}
			names[name] = h
		}
	}
	for _, h := range p.helpers {
		p.checkStandIns(h)
	}
}

// checkStandIns rejects a stand-in that does not exist in its versions.
func (p *parser) checkStandIns(h Helper) {
	for i, t := range h.standIns {
		for _, built := range h.built {
			versions, ok := t.span.and(built)
			if !ok {
				continue
			}
			if slices.ContainsFunc(h.standIns[:i], func(other term) bool { _, both := other.span.and(versions); return both }) {
				p.reject("%s: two stand-ins %s", h, versions)
			}
			exists := t.word != h.Flavor && slices.ContainsFunc(p.helpers, func(other Helper) bool {
				return other.Flavor == t.word && other.row() == h.row() &&
					slices.ContainsFunc(other.built, func(s span) bool { _, both := s.and(versions); return both })
			})
			if !exists {
				p.reject("%s: stand-in %s is not another helper that exists %s", h, name(t.word, h.Arch, h.Shell), versions)
			}
		}
	}
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
