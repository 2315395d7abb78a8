package catalogue

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	helperimages "pretag/helper-images"
)

// Latest is the version of development builds.
const Latest = "latest"

// Versions at which GitLab Runner changed what it looks for. The other changes
// are in names.go, next to the rule that they belong to.
const (
	// tagsCarryVersion is the first version whose tags carry vX.Y.Z and not the
	// git revision (GitLab Runner v16.8.0, helpers/container/helperimage/info.go).
	tagsCarryVersion = "16.8.0"
	// oldest is the first version that the tables know.
	oldest = "15.8.0"
)

// A Version is a version of GitLab Runner together with its git revision. The
// zero value is Latest.
type Version struct {
	numbered bool // false for Latest
	number   triple
	suffix   string // -rc1, ~beta.42.gabc: part of String, not of the tag
	revision string // in the tag below tagsCarryVersion
}

var (
	// Bounded, because a tag has at most 128 characters (OCI distribution-spec v1.1)
	// and a file name 255.
	versionForm  = regexp.MustCompile(`^v?([0-9]{1,5}\.[0-9]{1,5}\.[0-9]{1,5})([-~+][0-9A-Za-z][0-9A-Za-z.~+-]{0,62})?$`)
	revisionForm = regexp.MustCompile(`^[0-9a-f]{8}$`)
	// installedForm is Runner's versionPattern, but for numbers without digits
	// (GitLab Runner v16.8.0 and v19.3.0, helpers/container/helperimage/info.go).
	installedForm = regexp.MustCompile(`^[0-9]+\.[0-9]+\.[0-9]+`)
)

// ParseVersion parses RUNNER_VERSION (19.3.0, v19.3.0, latest) and
// RUNNER_REVISION (8 hex digits, or "" if it is not set). Below 16.8.0, where the
// revision is part of every tag, a missing revision is looked up in the table of
// released versions. An error names the variable that is wrong.
func ParseVersion(version, revision string) (Version, error) {
	if revision != "" && !revisionForm.MatchString(revision) {
		return Version{}, fmt.Errorf("RUNNER_REVISION=%q: want 8 hex digits in lower case, such as 12335144", revision)
	}
	if version == Latest {
		return Version{revision: revision}, nil
	}
	if version == "" {
		return Version{}, errors.New(`RUNNER_VERSION is required: a version of GitLab Runner such as 19.3.0, or "latest" for a development build`)
	}
	form := versionForm.FindStringSubmatch(version)
	if form == nil {
		return Version{}, fmt.Errorf("RUNNER_VERSION=%q: want a version of GitLab Runner such as 19.3.0, or %q", version, Latest)
	}
	number, err := parseTriple(form[1])
	if err != nil {
		return Version{}, fmt.Errorf("RUNNER_VERSION=%q: %w", version, err)
	}
	v := Version{numbered: true, number: number, suffix: form[2], revision: revision}
	if v.Before(oldest) {
		return Version{}, fmt.Errorf("RUNNER_VERSION=%q: the oldest supported version is %s", version, oldest)
	}
	if v.Before(tagsCarryVersion) && revision == "" {
		if v.revision, _ = KnownRevision(v.String()); v.revision == "" {
			return Version{}, fmt.Errorf("RUNNER_VERSION=%s needs RUNNER_REVISION: below %s tags carry the git revision, and the revision of this version is not known", version, tagsCarryVersion)
		}
	}
	return v, nil
}

// InstalledVersion returns the version of a Runner that reports version and
// revision, read by Runner's own rule: 17.9.0~pre.88.gabc asks for the tags of
// v17.9.0; "17.9", "v17.9.0" and "development version" ask for latest. Below
// 16.8.0 the tags carry revision, or latest if that is HEAD. A revision that is
// "" is looked up as in ParseVersion; if it is not known either, there are no tags.
func InstalledVersion(version, revision string) Version {
	form := installedForm.FindString(version)
	number, err := parseTriple(form)
	if err != nil {
		return Version{revision: revision}
	}
	v := Version{numbered: true, number: number, suffix: version[len(form):], revision: revision}
	if v.Before(tagsCarryVersion) && revision == "" {
		v.revision, _ = KnownRevision(v.String())
	}
	return v
}

// KnownRevision returns the git revision, 8 hex digits, of a released version
// such as 15.8.0.
func KnownRevision(version string) (revision string, ok bool) {
	for known, revision := range released {
		if known == version {
			return revision, true
		}
	}
	return "", false
}

// ReleaseOf returns a version that was released from a git revision of 8 hex
// digits or more, or "".
func ReleaseOf(revision string) string {
	var found string
	for version, known := range released {
		if strings.HasPrefix(revision, known) && version > found { // two versions share a revision
			found = version
		}
	}
	return found
}

// Newest returns the newest version in the table of released versions. What is
// known of it is assumed to hold for later versions too.
func Newest() Version {
	var newest Version
	for version := range released {
		if v := InstalledVersion(version, ""); v.numbered && (!newest.numbered || v.Compare(newest) > 0) {
			newest = v
		}
	}
	return newest
}

// released yields the versions, without v, and revisions of helper-images/revisions.tsv.
func released(yield func(version, revision string) bool) {
	for line := range strings.Lines(helperimages.Revisions) {
		tag, revision, _ := strings.Cut(strings.TrimSpace(line), "\t")
		if version, ok := strings.CutPrefix(tag, "v"); ok && !yield(version, revision) {
			return
		}
	}
}

// RevisionWarning returns a warning if the revision of v is not the one that
// this version was released from, and "" otherwise. A patched Runner has a
// revision of its own, so this need not be a mistake.
func (v Version) RevisionWarning() string {
	known, ok := KnownRevision(v.String())
	if !ok || v.revision == "" || v.revision == known {
		return ""
	}
	warning := fmt.Sprintf("RUNNER_REVISION=%s, but GitLab Runner %s was released from %s", v.revision, v, known)
	if v.Before(tagsCarryVersion) {
		warning += "; the tags fit only a Runner built from " + v.revision
	}
	return warning
}

// String returns the version without a leading v: 19.3.0, latest.
func (v Version) String() string {
	if !v.numbered {
		return Latest
	}
	return v.number.String() + v.suffix
}

// Revision returns RUNNER_REVISION, or "".
func (v Version) Revision() string { return v.revision }

// tagWord returns the part of a tag that changes with the version: the git
// revision below 16.8.0, vX.Y.Z from there on, latest for a development build.
func (v Version) tagWord() string {
	switch {
	case !v.numbered, v.Before(tagsCarryVersion) && v.revision == "HEAD":
		return Latest
	case v.Before(tagsCarryVersion):
		return v.revision
	}
	return "v" + v.number.String()
}

// Before reports whether v is below X.Y.Z. A pre-release counts as its release;
// a development build is below none.
func (v Version) Before(version string) bool {
	number, err := parseTriple(version)
	return err == nil && v.numbered && v.number.compare(number) < 0
}

// Compare returns -1, 0 or +1. A pre-release counts as its release; a
// development build is above all numbers.
func (v Version) Compare(other Version) int {
	switch {
	case v.numbered && other.numbered:
		return v.number.compare(other.number)
	case v.numbered:
		return -1
	case other.numbered:
		return +1
	}
	return 0
}

// A triple is X.Y.Z.
type triple [3]int

func parseTriple(s string) (t triple, err error) {
	parts := strings.Split(s, ".")
	if len(parts) != 3 {
		return t, errors.New("want X.Y.Z")
	}
	for i, part := range parts {
		if t[i], err = strconv.Atoi(part); err != nil || t[i] < 0 {
			return t, errors.New("want X.Y.Z")
		}
	}
	return t, nil
}

func (t triple) compare(other triple) int { return slices.Compare(t[:], other[:]) }

func (t triple) String() string { return fmt.Sprintf("%d.%d.%d", t[0], t[1], t[2]) }

// A span is a range of versions: from since on, up to but not including before.
// An end that is nil is open, so the zero value holds every version.
type span struct{ since, before *triple }

// holds reports whether v is in the span. A development build is above all numbers.
func (s span) holds(v Version) bool {
	if !v.numbered {
		return s.before == nil
	}
	return (s.since == nil || v.number.compare(*s.since) >= 0) && (s.before == nil || v.number.compare(*s.before) < 0)
}

// and returns the versions that both spans hold; ok is false if there are none.
func (s span) and(other span) (both span, ok bool) {
	if other.since != nil && (s.since == nil || other.since.compare(*s.since) > 0) {
		s.since = other.since
	}
	if other.before != nil && (s.before == nil || other.before.compare(*s.before) < 0) {
		s.before = other.before
	}
	return s, s.since == nil || s.before == nil || s.since.compare(*s.before) < 0
}

// String returns the span as the catalogue spells it: since 16.3.0 before 18.3.0.
func (s span) String() string {
	var words []string
	if s.since != nil {
		words = append(words, "since "+s.since.String())
	}
	if s.before != nil {
		words = append(words, "before "+s.before.String())
	}
	return cmp.Or(strings.Join(words, " "), "always")
}

// parseSpan parses the two ends, either of which may be "".
func parseSpan(since, before string) (span, error) {
	first, err := parseEnd("since", since)
	if err != nil {
		return span{}, err
	}
	end, err := parseEnd("before", before)
	if err != nil {
		return span{}, err
	}
	s := span{first, end}
	if _, ok := s.and(span{}); !ok {
		return span{}, fmt.Errorf("%s: no version is in this range", s)
	}
	return s, nil
}

func parseEnd(key, version string) (*triple, error) {
	if version == "" {
		return nil, nil
	}
	t, err := parseTriple(version)
	if err != nil {
		return nil, fmt.Errorf("%s %q: %w", key, version, err)
	}
	return &t, nil
}
