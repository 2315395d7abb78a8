package release

import (
	"strings"
	"testing"
)

func TestParseIteration(t *testing.T) {
	for _, valid := range []string{"1", "12", "1~bpo12+1", "1.el9", "2ubuntu1", "1+deb12u1"} {
		if got, err := ParseIteration(valid); err != nil || got != valid {
			t.Errorf("%q: %q, %v", valid, got, err)
		}
	}
	for _, invalid := range []string{"", "0", "01", "el9", "1-1", "1_2", "1^x", "1 ", "1~" + strings.Repeat("x", 40)} {
		if _, err := ParseIteration(invalid); err == nil {
			t.Errorf("%q: no error", invalid)
		}
	}
}
