// Package loaders builds the loader, the program that runs on hosts, for each
// host architecture, or finds loaders that were built ahead.
package loaders

import (
	"context"
	"debug/buildinfo"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"pretag/build/internal/gobuild"
)

// program is the main package of the loader and the base name of its files.
const (
	program = "gitlab-runner-helper-images"
	main    = "./build/loader/" + program
)

// Name returns the base name of the loader for an architecture.
func Name(goarch string) string { return program + "-" + goarch }

// Build writes a loader for each architecture, in Go's words, into the directory out
// and returns their paths.
func Build(ctx context.Context, b gobuild.Builder, out string, goArches []string) (map[string]string, error) {
	if err := os.MkdirAll(out, 0o755); err != nil {
		return nil, err
	}
	paths := map[string]string{}
	for _, goarch := range goArches {
		path := filepath.Join(out, Name(goarch))
		if err := b.Compile(ctx, main, goarch, "", path); err != nil {
			return nil, fmt.Errorf("build loader for %s: %w", goarch, err)
		}
		if err := check(path, goarch); err != nil {
			return nil, err
		}
		paths[goarch] = path
	}
	return paths, nil
}

// Find returns the paths of loaders that were built ahead into dir.
func Find(dir string, goArches []string) (map[string]string, error) {
	paths := map[string]string{}
	var errs []error
	for _, goarch := range goArches {
		path := filepath.Join(dir, Name(goarch))
		errs = append(errs, check(path, goarch))
		paths[goarch] = path
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return paths, nil
}

// check rejects a file that is not a loader for the architecture, or that
// another version of Go built than this program: its bytes would not be those
// that the recorded tools give.
func check(path, goarch string) error {
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		return fmt.Errorf("loader %s: %w", path, err)
	}
	settings := map[string]string{}
	for _, setting := range info.Settings {
		settings[setting.Key] = setting.Value
	}
	if want := gobuild.Module + strings.TrimPrefix(main, "."); info.Path != want {
		return fmt.Errorf("loader %s: it is the program %q, want %q", path, info.Path, want)
	}
	if settings["GOARCH"] != goarch || settings["GOOS"] != "linux" || settings["CGO_ENABLED"] != "0" || settings["-trimpath"] != "true" {
		return fmt.Errorf("loader %s: built for %s/%s with CGO_ENABLED=%s and -trimpath=%s, want linux/%s, 0 and true: run the target loaders",
			path, settings["GOOS"], settings["GOARCH"], settings["CGO_ENABLED"], settings["-trimpath"], goarch)
	}
	if experiment := settings["GOEXPERIMENT"]; experiment != "" {
		return fmt.Errorf("loader %s: built with GOEXPERIMENT=%s, want none", path, experiment)
	}
	if info.GoVersion != runtime.Version() {
		return fmt.Errorf("loader %s: built with %s, want %s as this program: run the target loaders", path, info.GoVersion, runtime.Version())
	}
	file, err := elf.Open(path)
	if err != nil {
		return fmt.Errorf("loader %s: %w", path, err)
	}
	defer file.Close()
	if slices.ContainsFunc(file.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP }) {
		return fmt.Errorf("loader %s: it is dynamically linked, want a static program", path)
	}
	return nil
}
