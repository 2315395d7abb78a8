package testutil

import (
	"strings"
	"testing"
)

// WantError reports an error that does not contain each of the parts; "" wants none.
func WantError(tb testing.TB, err error, parts ...string) {
	tb.Helper()
	for _, part := range parts {
		switch {
		case part == "" && err != nil:
			tb.Errorf("got error %q, want none", err)
		case part != "" && err == nil:
			tb.Errorf("got no error, want %q", part)
		case part != "" && !strings.Contains(err.Error(), part):
			tb.Errorf("got error %q, want %q in it", err, part)
		}
	}
}
