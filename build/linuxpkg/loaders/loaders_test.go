package loaders

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestEnvironmentKeepsWhatFindsModules(t *testing.T) {
	got := environment([]string{
		"PATH=/bin", "GOPROXY=off", "GOFLAGS=-race -mod=vendor -tags=x", "GOAMD64=v3", "GOARM=5", "CGO_ENABLED=1", "GOEXPERIMENT=x", "LC_ALL=C",
	}, "arm")
	want := []string{
		"PATH=/bin", "GOPROXY=off", "GOFLAGS=-trimpath -mod=vendor", "CGO_ENABLED=0", "GOOS=linux", "GOARCH=arm", "GOWORK=off", "GO111MODULE=on", "GOFIPS140=off",
		"GO386=sse2", "GOAMD64=v1", "GOARM=7", "GOARM64=v8.0", "GOPPC64=power8", "GORISCV64=rva20u64",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("environment of the build (-want +got):\n%s", diff)
	}
}

func TestBuildWithoutSources(t *testing.T) {
	_, err := Build(t.Context(), Options{Source: t.TempDir(), Out: t.TempDir(), GoArches: []string{"amd64"}})
	if !errors.Is(err, ErrNoToolchain) || !strings.Contains(err.Error(), "does not hold the sources of pretag") {
		t.Errorf("error %v, want one that says that the sources are missing", err)
	}
}

func TestBuildWithoutGo(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	_, err := Build(t.Context(), Options{Source: "../../..", Out: t.TempDir(), GoArches: []string{"amd64"}})
	if !errors.Is(err, ErrNoToolchain) || !strings.Contains(err.Error(), `"go"`) {
		t.Errorf("error %v, want one that says that there is no go", err)
	}
}

func TestFindRejectsOtherFiles(t *testing.T) {
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self, filepath.Join(dir, Name("amd64"))); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, Name("arm")), []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	_, err = Find(dir, []string{"amd64", "arm", "s390x"})
	for _, want := range []string{
		`it is the program "pretag/build/linuxpkg/loaders.test", want "pretag/build/loader/gitlab-runner-helper-images"`,
		"-arm: could not read Go build info",
		"-s390x: no such file or directory",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in %v", want, err)
		}
	}
}

// TestBuild builds the loader for this machine from two places and with flags
// in the environment that must not count.
func TestBuild(t *testing.T) {
	var sums [2][]byte
	for i, flags := range []string{"", "GOFLAGS=-ldflags=-X=a=b -tags=none"} {
		source := "../../.."
		if i == 1 {
			source = filepath.Join(t.TempDir(), "other place")
			root, err := filepath.Abs("../../..")
			if err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(root, source); err != nil {
				t.Fatal(err)
			}
		}
		out := t.TempDir()
		environ := append(os.Environ(), flags)
		paths, err := Build(t.Context(), Options{Source: source, Out: out, GoArches: []string{runtime.GOARCH}, Environ: environ})
		if err != nil {
			t.Fatal(err)
		}
		if sums[i], err = os.ReadFile(paths[runtime.GOARCH]); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(paths[runtime.GOARCH])
		if err != nil || info.Mode() != 0o755 {
			t.Errorf("mode %v, %v, want 0755", info.Mode(), err)
		}
		if found, err := Find(out, []string{runtime.GOARCH}); err != nil || found[runtime.GOARCH] != paths[runtime.GOARCH] {
			t.Errorf("Find: %v, %v", found, err)
		}
	}
	if string(sums[0]) != string(sums[1]) {
		t.Error("the two loaders differ")
	}
}
