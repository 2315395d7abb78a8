package gobuild

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestEnvironmentKeepsWhatFindsModules(t *testing.T) {
	b := Builder{Environ: []string{
		"PATH=/bin", "GOPROXY=off", "GOFLAGS=-race -mod=vendor -tags=x", "GOAMD64=v3", "GOARM=5", "CGO_ENABLED=1", "GOEXPERIMENT=x", "LC_ALL=C",
	}}
	got := b.environment("arm", "")
	want := []string{
		"PATH=/bin", "GOPROXY=off", "GOFLAGS=-trimpath -mod=vendor", "CGO_ENABLED=0", "GOOS=linux", "GOARCH=arm", "GOWORK=off", "GO111MODULE=on", "GOFIPS140=off",
		"GO386=sse2", "GOAMD64=v1", "GOARM=7", "GOARM64=v8.0", "GOPPC64=power8", "GORISCV64=rva20u64",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("environment of the build (-want +got):\n%s", diff)
	}
}

func TestCompileWithoutSources(t *testing.T) {
	err := Builder{Source: t.TempDir()}.Compile(t.Context(), ".", "amd64", "", filepath.Join(t.TempDir(), "program"))
	if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "does not hold the sources of pretag") {
		t.Errorf("error %v, want one that says that the sources are missing", err)
	}
}

func TestCompileWithoutGo(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	err := Builder{Source: "../../.."}.Compile(t.Context(), ".", "amd64", "", filepath.Join(t.TempDir(), "program"))
	if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), `"go"`) {
		t.Errorf("error %v, want one that says that there is no go", err)
	}
}
