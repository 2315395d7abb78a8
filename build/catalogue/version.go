package catalogue

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// Latest is the version of development builds.
const Latest = "latest"

// Versions at which GitLab Runner changed what it looks for.
const (
	// tagsCarryVersion is the first version whose tags carry vX.Y.Z, no longer
	// the git revision (GitLab Runner v16.8.0, common/version.go).
	tagsCarryVersion = "16.8.0"
	// oldest is the first version that this project knows (15.8.0).
	oldest = "15.8.0"
)

// A Version is a version of GitLab Runner with what its tags carry. The zero
// value is Latest.
type Version struct {
	numbered bool // false for Latest
	number   [3]int
	suffix   string // -rc1, ~beta.42.gabc: part of String, not of the tag
	revision string // below tagsCarryVersion
}

var (
	// Bounded, as a tag has at most 128 characters (OCI distribution-spec v1.1)
	// and a file name 255.
	versionForm  = regexp.MustCompile(`^v?([0-9]{1,5}\.[0-9]{1,5}\.[0-9]{1,5})([-~+][0-9A-Za-z][0-9A-Za-z.~+-]{0,62})?$`)
	revisionForm = regexp.MustCompile(`^[0-9a-f]{8}$`)
)

// ParseVersion reads RUNNER_VERSION (19.3.0, v19.3.0, latest) and
// RUNNER_REVISION (8 hex digits). Errors name the variable that is wrong.
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
		return Version{}, fmt.Errorf("RUNNER_VERSION=%q: GitLab Runner looks for local helper images since %s", version, oldest)
	}
	if v.Before(tagsCarryVersion) && revision == "" {
		return Version{}, fmt.Errorf("RUNNER_VERSION=%s needs RUNNER_REVISION: below %s tags carry the git revision, such as 12335144", version, tagsCarryVersion)
	}
	return v, nil
}

// parseTriple reads X.Y.Z.
func parseTriple(s string) (number [3]int, err error) {
	parts := strings.Split(s, ".")
	if len(parts) != 3 {
		return number, errors.New("want X.Y.Z")
	}
	for i, part := range parts {
		if number[i], err = strconv.Atoi(part); err != nil {
			return number, errors.New("want X.Y.Z")
		}
	}
	return number, nil
}

// String is the version without a leading v: 19.3.0, latest.
func (v Version) String() string {
	if !v.numbered {
		return Latest
	}
	return v.triple() + v.suffix
}

func (v Version) triple() string {
	return fmt.Sprintf("%d.%d.%d", v.number[0], v.number[1], v.number[2])
}

// Revision is RUNNER_REVISION, or "".
func (v Version) Revision() string { return v.revision }

// tagRevision is the part of a tag that changes with the version: the git
// revision below 16.8.0, vX.Y.Z from there, latest for a development build.
func (v Version) tagRevision() string {
	switch {
	case !v.numbered:
		return Latest
	case v.Before(tagsCarryVersion):
		return v.revision
	}
	return "v" + v.triple()
}

// Before reports whether v is below X.Y.Z. A development build is below none.
func (v Version) Before(triple string) bool {
	other, err := parseTriple(triple)
	if err != nil || !v.numbered {
		return false
	}
	for i := range other {
		if v.number[i] != other[i] {
			return v.number[i] < other[i]
		}
	}
	return false
}
