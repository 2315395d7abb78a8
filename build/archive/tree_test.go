package archive

import (
	"archive/tar"
	"fmt"
	"strings"
	"testing"
)

// Whiteouts that are nested in their own layer hide nothing again and again.
func TestNestedWhiteouts(t *testing.T) {
	tree := NewTree()
	tree.steps = 1 << 20 // fewer than maxSteps, so that the test is short
	_, err := tree.Add(&tar.Header{Name: strings.Repeat("d/", 1000) + "f", Typeflag: tar.TypeReg})
	for n := 1000; err == nil && n > 0; n-- {
		_, err = tree.Add(&tar.Header{Name: strings.Repeat("d/", n) + ".wh.d", Typeflag: tar.TypeReg})
		if err == nil {
			_, err = tree.Add(&tar.Header{Name: strings.Repeat("d/", n) + opaque, Typeflag: tar.TypeReg})
		}
	}
	if want := "following the paths and links of the image takes too many steps"; fmt.Sprint(err) != want {
		t.Errorf("error %v, want %s", err, want)
	}
}
