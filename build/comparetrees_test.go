package build_test

import (
	"os"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"pretag/build"
)

func TestCompareTrees(t *testing.T) {
	a, b := t.TempDir(), t.TempDir()
	for path, body := range map[string]string{
		a + "/same": "x", b + "/same": "x", a + "/other": "x", b + "/other": "y", a + "/first": "x", b + "/second": "x",
	} {
		if err := os.WriteFile(path, []byte(body), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	same, differences, err := build.CompareTrees(t.Context(), a, b)
	slices.Sort(differences)
	if diff := cmp.Diff([]string{"first", "other", "second"}, differences); err != nil || same != 1 || diff != "" {
		t.Errorf("%d %v\n%s", same, err, diff)
	}
}
