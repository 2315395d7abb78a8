package sbom

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"unicode"

	"github.com/spdx/tools-golang/spdx/v2/common"
	spdx "github.com/spdx/tools-golang/spdx/v2/v2_3"
)

// A Summary counts what a document lists.
type Summary struct {
	System     string         `json:"system,omitempty"`     // the distribution and its version
	Packages   map[string]int `json:"packages"`             // by the kind of their purl: apk, deb, rpm, golang
	Unlicensed int            `json:"unlicensed"`           // packages without a known license
	Licenses   []string       `json:"licenses"`             // SPDX expressions, each once
	Unpackaged []string       `json:"unpackaged,omitempty"` // programs in no database
	Warnings   []string       `json:"warnings,omitempty"`   // databases that were not read
}

// Summary counts what the document lists.
func (d *Document) Summary() Summary {
	s := Summary{Packages: map[string]int{}}
	if d.DocumentComment != "" {
		s.Warnings = strings.Split(d.DocumentComment, "\n")
	}
	expressions := map[string]bool{}
	for _, p := range d.Packages {
		kind := kind(p)
		if p.PrimaryPackagePurpose == "OPERATING-SYSTEM" {
			s.System = strings.TrimSpace(p.PackageName + " " + p.PackageVersion)
		}
		if kind == "" {
			continue
		}
		s.Packages[kind]++
		if p.PackageLicenseDeclared == noAssertion {
			s.Unlicensed++
		} else {
			expressions[p.PackageLicenseDeclared] = true
		}
	}
	s.Licenses = slices.Sorted(maps.Keys(expressions))
	files := map[common.ElementID]string{}
	for _, f := range d.Files {
		files[f.FileSPDXIdentifier] = strings.TrimPrefix(f.FileName, ".")
	}
	for _, r := range d.Relationships {
		if name, ok := files[r.RefB.ElementRefID]; ok && r.RefA.ElementRefID == imageID {
			s.Unpackaged = append(s.Unpackaged, name)
		}
	}
	slices.Sort(s.Unpackaged)
	return s
}

// String returns the summary on one line.
func (s Summary) String() string {
	var parts []string
	if s.System != "" {
		parts = append(parts, s.System)
	}
	for _, kind := range slices.Sorted(maps.Keys(s.Packages)) {
		parts = append(parts, fmt.Sprintf("%d %s", s.Packages[kind], kind))
	}
	parts = append(parts, fmt.Sprintf("%d without a known license", s.Unlicensed), fmt.Sprintf("%d unpackaged programs", len(s.Unpackaged)))
	return strings.Join(append(parts, s.Warnings...), ", ")
}

// kind returns the type in the package's purl; "" for the image and its operating system.
func kind(p *spdx.Package) string {
	kind, _, _ := strings.Cut(strings.TrimPrefix(purl(p), "pkg:"), "/")
	return kind
}

// Licenses returns an overview for people: the declared license of each package in
// the image, as plain text.
func (d *Document) Licenses() []byte {
	var b bytes.Buffer
	image := d.Packages[0]
	fmt.Fprintf(&b, `Licenses of what is in %s

The image %s:%s, sha256 %s.
Licenses are SPDX expressions, as the image's own package databases declare
them. NOASSERTION: they do not say, or not in a form that a program can read.
A LicenseRef is a name that the SPDX license list does not have; the end of
this file has what the database calls it. The texts are in the image.

`, image.PackageFileName, image.PackageName, image.PackageVersion, image.PackageChecksums[0].Value)
	summary := d.Summary()
	for _, warning := range summary.Warnings {
		fmt.Fprintf(&b, "Incomplete: %s.\n\n", printable(warning))
	}
	packages := slices.DeleteFunc(slices.Clone(d.Packages), func(p *spdx.Package) bool { return kind(p) == "" })
	slices.SortStableFunc(packages, func(a, b *spdx.Package) int { return cmp.Compare(kind(a), kind(b)) })
	table := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	row := func(columns ...string) {
		for i, column := range columns {
			columns[i] = printable(column)
		}
		fmt.Fprintln(table, strings.Join(columns, "\t"))
	}
	for _, p := range packages {
		row(kind(p), p.PackageName, cmp.Or(p.PackageVersion, "-"), p.PackageLicenseDeclared)
	}
	for _, program := range summary.Unpackaged {
		row("file", program, "-", noAssertion)
	}
	if len(d.OtherLicenses) > 0 {
		row()
	}
	for _, l := range d.OtherLicenses {
		row(l.LicenseIdentifier, l.LicenseName)
	}
	table.Flush() // to memory
	return b.Bytes()
}

// printable replaces control characters, invisible ones and invalid UTF-8, which
// packages may contain and terminals may obey.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, s)
}
