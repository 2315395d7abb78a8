package sbom

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/github/go-spdx/v2/spdxexp"
)

// licences turns what databases say of licences into SPDX expressions and keeps
// what the SPDX list has no name for.
type licences struct {
	words map[string]string // by LicenseRef
}

// expression is the words as an SPDX expression: themselves where they are one,
// else a LicenseRef. Old Fedora names (GPLv2+, BSD) stay LicenseRefs: one such
// name stands for several licences of the SPDX list.
func (l *licences) expression(words string) string {
	words = strings.Join(strings.Fields(words), " ")
	if words == "" || words == noAssertion {
		return noAssertion
	}
	if expression, ok := valid(words); ok {
		ids, err := spdxexp.ExtractLicenses(expression)
		if err != nil {
			return l.ref(words)
		}
		for _, id := range ids {
			if strings.HasPrefix(id, "LicenseRef-") {
				l.words[id] = id
			}
		}
		return expression
	}
	return l.ref(words)
}

// valid gives the words back in the spelling of the SPDX list.
func valid(words string) (string, bool) {
	normal, _ := spdxexp.ValidateAndNormalizeLicensesWithOptions([]string{words}, spdxexp.ValidateLicensesOptions{FailAllDocumentRefs: true})
	return strings.Join(normal, ""), len(normal) == 1
}

// notInID is what an SPDX identifier must not hold (spdx-spec v2.3, 6.3 and 10.1).
var notInID = regexp.MustCompile(`[^A-Za-z0-9.]+`)

// ref is the LicenseRef for the words. Where they cannot be spelled in it, a
// part of their digest keeps it apart from others.
func (l *licences) ref(words string) string {
	id := "LicenseRef-" + identifier(words, words)
	l.words[id] = words
	return id
}

// identifier spells words in the letters of an SPDX identifier. What is lost
// thereby a part of the digest of whole makes up for.
func identifier(words, whole string) string {
	id := strings.Trim(notInID.ReplaceAllString(words, "-"), "-")
	if id == whole {
		return id
	}
	return strings.TrimPrefix(fmt.Sprintf("%.60s-%.4x", id, sha256.Sum256([]byte(whole))), "-")
}

func (l *licences) extracted() []Extracted {
	var list []Extracted
	for _, id := range slices.Sorted(maps.Keys(l.words)) {
		list = append(list, Extracted{
			ID: id, Name: l.words[id],
			Text: "The image's package database names the licence so: " + l.words[id],
		})
	}
	return list
}

// debian is a License field of a machine-readable copyright file (Debian
// copyright-format 1.0, "License specification") as an SPDX expression.
func (l *licences) debian(field string) string {
	field = strings.Join(strings.Fields(field), " ")
	// the loosest first: a comma, then or, then and
	for _, op := range []string{", or ", ", and ", " or ", " and "} {
		if parts := strings.Split(field, op); len(parts) > 1 {
			for i, part := range parts {
				parts[i] = l.debian(part)
			}
			return join(strings.ToUpper(strings.Trim(op, ", ")), parts)
		}
	}
	field = strings.Trim(field, ", ")
	if name, ok := debianName(field); ok {
		return name
	}
	return l.ref(field)
}

// gnuName is a GNU licence as Debian spells it: with a plus for "or later", and
// without a trailing zero.
var gnuName = regexp.MustCompile(`^(?i)(A?GPL|LGPL|GFDL)-(\d)(\.\d)?(?:\.0)?(\+?)$`)

// debianName is the licence that one of Debian's short names stands for.
func debianName(short string) (string, bool) {
	if m := gnuName.FindStringSubmatch(short); m != nil {
		minor := m[3]
		if minor == "" {
			minor = ".0"
		}
		suffix := "-only"
		if m[4] != "" {
			suffix = "-or-later"
		}
		return valid(strings.ToUpper(m[1]) + "-" + m[2] + minor + suffix)
	}
	switch strings.ToLower(short) {
	case "expat":
		return "MIT", true
	case "mit": // "there are many versions", copyright-format 1.0: ambiguous
		return "", false
	}
	return valid(short)
}

// join makes one expression of several, each once, in their order.
func join(op string, parts []string) string {
	var unique []string
	for _, part := range parts {
		if !slices.Contains(unique, part) {
			unique = append(unique, part)
		}
	}
	if len(unique) == 1 {
		return unique[0]
	}
	other := map[string]string{"AND": " OR ", "OR": " AND "}[op]
	for i, part := range unique {
		if strings.Contains(part, other) {
			unique[i] = "(" + part + ")"
		}
	}
	return strings.Join(unique, " "+op+" ")
}
