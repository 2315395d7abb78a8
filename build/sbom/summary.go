package sbom

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
)

// A Summary counts what a document lists.
type Summary struct {
	System     string         `json:"system,omitempty"`     // the distribution and its version
	Packages   map[string]int `json:"packages"`             // by the kind of their purl: apk, deb, rpm, golang
	Unlicensed int            `json:"unlicensed"`           // packages whose licence no database tells
	Licences   []string       `json:"licences"`             // SPDX expressions, each once
	Unpackaged []string       `json:"unpackaged,omitempty"` // programs that no database lists
}

// Summary counts what the document lists.
func (d *Document) Summary() Summary {
	s := Summary{Packages: map[string]int{}}
	expressions := map[string]bool{}
	for _, p := range d.Packages {
		kind := p.kind()
		if p.Purpose == "OPERATING-SYSTEM" {
			s.System = strings.TrimSpace(p.Name + " " + p.Version)
		}
		if kind == "" {
			continue
		}
		s.Packages[kind]++
		if p.LicenseDeclared == noAssertion {
			s.Unlicensed++
		} else {
			expressions[p.LicenseDeclared] = true
		}
	}
	s.Licences = slices.Sorted(maps.Keys(expressions))
	for _, r := range d.Relationships {
		if r.From == imageID && strings.HasPrefix(r.To, "SPDXRef-File-") {
			at := slices.IndexFunc(d.Files, func(f File) bool { return f.ID == r.To })
			if at >= 0 {
				s.Unpackaged = append(s.Unpackaged, strings.TrimPrefix(d.Files[at].Name, "."))
			}
		}
	}
	slices.Sort(s.Unpackaged)
	return s
}

// String is the summary on one line.
func (s Summary) String() string {
	var parts []string
	if s.System != "" {
		parts = append(parts, s.System)
	}
	for _, kind := range slices.Sorted(maps.Keys(s.Packages)) {
		parts = append(parts, fmt.Sprintf("%d %s", s.Packages[kind], kind))
	}
	parts = append(parts, fmt.Sprintf("%d without a known licence", s.Unlicensed), fmt.Sprintf("%d unpackaged programs", len(s.Unpackaged)))
	return strings.Join(parts, ", ")
}

// kind is that of the package's purl, "" for the image and its system.
func (p Package) kind() string {
	kind, _, _ := strings.Cut(strings.TrimPrefix(p.purl(), "pkg:"), "/")
	return kind
}

// Licences is an overview for people: the declared licence of each package in
// the image, as plain text.
func (d *Document) Licences() []byte {
	var b bytes.Buffer
	image := d.Packages[0]
	fmt.Fprintf(&b, `Licences of what is in %s

The image %s:%s, sha256 %s.
Licences are SPDX expressions, as the image's own package databases declare
them. NOASSERTION: they do not say, or not so that a program can tell. A
LicenseRef is a name that the SPDX licence list does not have; what the
database calls it stands at the end. The texts are in the image.

`, image.FileName, image.Name, image.Version, image.Checksums[0].Value)
	packages := slices.DeleteFunc(slices.Clone(d.Packages), func(p Package) bool { return p.kind() == "" })
	slices.SortStableFunc(packages, func(a, b Package) int { return cmp.Compare(a.kind(), b.kind()) })
	table := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, p := range packages {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", p.kind(), p.Name, cmp.Or(p.Version, "-"), p.LicenseDeclared)
	}
	for _, program := range d.Summary().Unpackaged {
		fmt.Fprintf(table, "file\t%s\t-\t%s\n", program, noAssertion)
	}
	if len(d.ExtractedLicenses) > 0 {
		fmt.Fprintln(table)
	}
	for _, l := range d.ExtractedLicenses {
		fmt.Fprintf(table, "%s\t%s\n", l.ID, l.Name)
	}
	table.Flush() // to memory
	return b.Bytes()
}
