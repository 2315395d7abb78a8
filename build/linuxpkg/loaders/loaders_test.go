package loaders

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"pretag/build/internal/gobuild"
)

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
		paths, err := Build(t.Context(), gobuild.Builder{Source: source, Environ: environ}, out, []string{runtime.GOARCH})
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
