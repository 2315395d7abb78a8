package testutil

import (
	"fmt"
	"testing"
)

// Deb returns a deb package of the files of data.tar.
func Deb(tb testing.TB, data ...Entry) []byte {
	tb.Helper()
	deb := []byte("!<arch>\n")
	for _, member := range []struct {
		name string
		body []byte
	}{
		{"debian-binary", []byte("2.0\n")},
		{"control.tar", Tar(tb, File("control", "Package: a\nVersion: 1\nArchitecture: all\n"))},
		{"data.tar", Tar(tb, data...)},
	} {
		deb = fmt.Appendf(deb, "%-16s%-12d%-6d%-6d%-8o%-10d`\n%s", member.name, 0, 0, 0, 0o100644, len(member.body), member.body)
	}
	return deb
}
