package build_test

import (
	"os/exec"
	"strings"
	"testing"
)

// Imports point one way. A row lists what a package may import of ours, besides
// release, which everything may import, and internal/ packages.
func TestImports(t *testing.T) {
	t.Parallel()
	const prefix = "pretag/build/"
	allowed := map[string]string{
		"archive":    "catalogue tarball",
		"catalogue":  "",
		"demo":       "catalogue",
		"engine":     "",
		"fetch":      "catalogue linuxpkg/pkgread",
		"inspect":    "archive catalogue linuxpkg/pkgread provenance sbom sign tarball",
		"linuxpkg":   "catalogue",
		"loader":     "catalogue",
		"provenance": "",
		"release":    "",
		"sbom":       "archive catalogue tarball",
		"sign":       "",
		"tarball":    "catalogue",
		"testutil":   "catalogue",
		"verify":     "archive catalogue engine linuxpkg/pkgread provenance sbom sign tarball verify/job",
	}
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}} {{join .Deps " "}}`, "./...").Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		stage, ours := strings.CutPrefix(fields[0], prefix)
		if !ours || strings.Contains(stage, "/") {
			continue
		}
		may, known := allowed[stage]
		if !known {
			t.Errorf("%s has no row in this test", stage)
		}
		may += " release"
		for _, dep := range fields[1:] {
			other, ours := strings.CutPrefix(dep, prefix)
			if ours && !strings.HasPrefix(other, "internal/") && !strings.Contains(" "+may+" ", " "+other+" ") {
				t.Errorf("%s imports %s", stage, other)
			}
		}
	}
}
