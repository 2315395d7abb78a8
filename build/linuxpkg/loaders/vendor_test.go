//go:build acceptance

package loaders

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"pretag/build/internal/gobuild"
)

// TestVendored builds the loader from a vendored tree, without modules and without a proxy.
func TestVendored(t *testing.T) {
	tree := t.TempDir()
	for _, name := range []string{"build", "helper-images", "packaging"} {
		if err := os.CopyFS(filepath.Join(tree, name), os.DirFS(filepath.Join("../../..", name))); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"go.mod", "go.sum", "magefile.go"} {
		text, err := os.ReadFile(filepath.Join("../../..", name))
		if err == nil {
			err = os.WriteFile(filepath.Join(tree, name), text, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	vendor := exec.Command("go", "mod", "vendor")
	vendor.Dir = tree
	if out, err := vendor.CombinedOutput(); err != nil {
		t.Fatalf("go mod vendor: %v\n%s", err, out)
	}
	environ := slices.DeleteFunc(os.Environ(), func(entry string) bool {
		return strings.HasPrefix(entry, "GOFLAGS=") || strings.HasPrefix(entry, "GOPROXY=") || strings.HasPrefix(entry, "GOMODCACHE=")
	})
	environ = append(environ, "GOFLAGS=-mod=vendor", "GOPROXY=off", "GOMODCACHE="+t.TempDir())
	if _, err := Build(t.Context(), gobuild.Builder{Source: tree, Environ: environ}, t.TempDir(), []string{runtime.GOARCH}); err != nil {
		t.Fatal(err)
	}
}
