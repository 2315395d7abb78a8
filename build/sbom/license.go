package sbom

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/github/go-spdx/v2/spdxexp"
	spdx "github.com/spdx/tools-golang/spdx/v2/v2_3"
)

// Limits on licenses. go-spdx takes a time that grows with the square of the length:
// 4 kB take about 10 ms, 5 million parentheses minutes.
const (
	maxExpression = 4096    // bytes of an expression that is parsed
	maxWords      = 1 << 18 // bytes of all different expressions of an image, and perWord for each
	perWord       = 16
)

// licenses turns what databases say about licenses into SPDX expressions, and keeps
// what the SPDX list has no name for.
type licenses struct {
	known map[string]string // expressions by the words of a database
	size  int               // of all words so far, bytes
	refs  map[string]string // words by LicenseRef
}

func newLicenses() *licenses {
	return &licenses{known: map[string]string{}, refs: map[string]string{}}
}

// once returns of(words), which it computes once for the same key.
func (l *licenses) once(key, words string, of func(words string) string) string {
	if len(words) > maxExpression {
		l.size += maxExpression
		return l.ref(words)
	}
	expression, ok := l.known[key]
	if !ok {
		if l.size += len(words) + perWord; l.size <= maxWords { // else check fails
			expression = of(strings.Join(strings.Fields(words), " "))
		}
		l.known[key] = expression
	}
	return expression
}

// check reports a limit that was exceeded.
func (l *licenses) check() error {
	if l.size > maxWords {
		return fmt.Errorf("license expressions of more than %d bytes", maxWords)
	}
	return nil
}

// expression returns the words as an SPDX expression: themselves if they are one, else
// a LicenseRef. Old Fedora names (GPLv2+, BSD) stay LicenseRefs, because one such name
// means several licenses of the SPDX list.
func (l *licenses) expression(words string) string {
	return l.once(words, words, func(words string) string {
		if words == "" || words == noAssertion {
			return noAssertion
		}
		expression, ok := valid(words)
		if !ok {
			return l.ref(words)
		}
		ids, err := spdxexp.ExtractLicenses(expression)
		if err != nil {
			return l.ref(words)
		}
		for _, id := range ids {
			if strings.HasPrefix(id, "LicenseRef-") {
				l.refs[id] = id
			}
		}
		return expression
	})
}

// valid returns the words in the spelling of the SPDX list.
func valid(words string) (string, bool) {
	normal, _ := spdxexp.ValidateAndNormalizeLicensesWithOptions([]string{words}, spdxexp.ValidateLicensesOptions{FailAllDocumentRefs: true})
	return strings.Join(normal, ""), len(normal) == 1
}

// notInID is what an SPDX identifier must not contain (spdx-spec v2.3, 6.3 and 10.1).
var notInID = regexp.MustCompile(`[^A-Za-z0-9.]+`)

// ref returns the LicenseRef for the words.
func (l *licenses) ref(words string) string {
	id := "LicenseRef-" + identifier(words, words)
	l.refs[id] = words[:min(len(words), maxExpression)]
	return id
}

// identifier spells words in the letters of an SPDX identifier. If that loses
// something, a part of the digest of whole keeps the result unique.
func identifier(words, whole string) string {
	id := strings.Trim(notInID.ReplaceAllString(words[:min(len(words), maxExpression)], "-"), "-")
	if id == whole && id != "" {
		return id
	}
	return strings.TrimPrefix(fmt.Sprintf("%.60s-%.4x", id, sha256.Sum256([]byte(whole))), "-")
}

// extracted returns the licenses that the SPDX list does not have.
func (l *licenses) extracted() []*spdx.OtherLicense {
	var list []*spdx.OtherLicense
	for _, id := range slices.Sorted(maps.Keys(l.refs)) {
		list = append(list, &spdx.OtherLicense{
			LicenseIdentifier: id, LicenseName: l.refs[id],
			ExtractedText: "The image's package database calls the license: " + l.refs[id],
		})
	}
	return list
}

// debian returns a License field of a machine-readable copyright file as an SPDX
// expression (Debian copyright-format 1.0, "License specification").
func (l *licenses) debian(field string) string {
	return l.once("debian "+field, field, l.debianExpression)
}

func (l *licenses) debianExpression(field string) string {
	// the loosest binding first: a comma, then or, then and
	for _, op := range []string{", or ", ", and ", " or ", " and "} {
		if parts := strings.Split(field, op); len(parts) > 1 {
			for i, part := range parts {
				parts[i] = l.debianExpression(part)
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

// bounded returns the expression, or a LicenseRef for one that is too long to be
// repeated for each package.
func (l *licenses) bounded(expression string) string {
	if len(expression) > maxExpression {
		return l.ref(expression)
	}
	return expression
}

// gnuName is a GNU license as Debian spells it: with a plus for "or later", and
// without a trailing zero.
var gnuName = regexp.MustCompile(`^(?i)(A?GPL|LGPL|GFDL)-(\d)(\.\d)?(?:\.0)?(\+?)$`)

// debianName returns the license that one of Debian's short names means. It is a
// table, not a guess: copyright-format 1.0, "License short name", defines the names.
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

// join returns one expression of several, each once, in their order.
func join(op string, parts []string) string {
	var unique []string
	seen := map[string]bool{}
	for _, part := range parts {
		if !seen[part] {
			unique = append(unique, part)
		}
		seen[part] = true
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
