package build_test

import (
	"os/exec"
	"strings"
	"testing"
)

// Imports run one way. Stages pass values: only linuxpkg and verify know the
// archives' type, verify the engines', and manifest what is delivered.
func TestStagesDoNotImportEachOther(t *testing.T) {
	const prefix = "pretag/build/"
	allowed := map[string]string{
		"archive":    "",
		"bench":      "archive catalogue linuxpkg manifest sign",
		"catalogue":  "",
		"demo":       "catalogue",
		"engine":     "",
		"image":      "catalogue",
		"linuxpkg":   "archive catalogue",
		"loader":     "catalogue release",
		"loaders":    "",
		"manifest":   "archive linuxpkg catalogue sign",
		"provenance": "archive",
		"registry":   "catalogue",
		"sbom":       "archive catalogue",
		"sign":       "",
		"source":     "",
		"unpack":     "catalogue linuxpkg/pkgread",
		"verify":     "archive engine",
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
			t.Errorf("%s: a stage without a row here", stage)
		}
		for _, dep := range fields[1:] {
			other, ours := strings.CutPrefix(dep, prefix)
			if ours && !strings.HasPrefix(other, "internal/") && !strings.Contains(" "+may+" ", " "+other+" ") {
				t.Errorf("%s imports %s", stage, other)
			}
		}
	}
}
