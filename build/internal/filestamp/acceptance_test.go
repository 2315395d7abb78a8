//go:build acceptance

package filestamp_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"pretag/build/internal/filestamp"
	"pretag/build/testutil"
)

func TestKeptOn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	const stamp = filestamp.Stamp("1 2 3")
	for _, s := range []filestamp.Stamp{stamp, ""} {
		if s.KeptOn(path) {
			t.Errorf("%q: kept on a file that has none", s)
		}
	}
	if stamp.KeepOn(path); !stamp.KeptOn(path) {
		testutil.Missing(t, "xattr", "the file system of TMPDIR has no extended attributes")
	}
	for _, s := range []filestamp.Stamp{"1 2", "1 2 3 4", "1 2 4", ""} {
		if s.KeptOn(path) {
			t.Errorf("%q: kept on a file that has %q", s, stamp)
		}
	}
	filestamp.Stamp("").KeepOn(path)
	if !stamp.KeptOn(path) {
		t.Error("an empty stamp took the place of another")
	}
	if err := syscall.Setxattr(path, "user.pretag.stamp", nil, 0); err != nil {
		t.Fatal(err)
	}
	if filestamp.Stamp("").KeptOn(path) {
		t.Error("no stamp is kept on a file that has an empty one")
	}
	if stamp.KeptOn(path + ".missing") {
		t.Error("kept on a file that is not there")
	}
}
