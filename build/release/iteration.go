package release

import (
	"fmt"
	"regexp"
)

// iterationForm is what rpm and Debian both take as a release and order alike
// (rpm 4.18, rpmvercmp; Debian Policy 5.6.12): a number, and the suffix of a
// distribution.
var iterationForm = regexp.MustCompile(`^[1-9][0-9]{0,6}([.~+A-Za-z][0-9A-Za-z.~+]{0,30})?$`)

// ParseIteration returns s, if it is a valid package release: a number above 0
// with an optional distribution suffix, such as 1, 2.el9 or 1~bpo12+1.
func ParseIteration(s string) (string, error) {
	if !iterationForm.MatchString(s) {
		return "", fmt.Errorf("%q: want a number above 0, with an optional distribution suffix such as 1~bpo12+1 or 1.el9", s)
	}
	return s, nil
}
