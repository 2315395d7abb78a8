// Package loaders builds the loader, the program that runs on hosts, for each
// host architecture, or finds loaders that were built ahead.
package loaders

import (
	"bytes"
	"context"
	"debug/buildinfo"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
)

// program is the main package of the loader and the base name of its files.
const (
	program = "gitlab-runner-helper-images"
	main    = "./build/loader/" + program
	module  = "pretag"
)

// ErrNoToolchain is the error of Build where it finds no Go command or no
// sources of the loader.
var ErrNoToolchain = errors.New("the loader cannot be built here")

// Options say what Build builds, and from what.
type Options struct {
	Source   string   // the root of this project's sources
	Out      string   // the directory that the loaders are written to
	GoArches []string // in Go's words: amd64, arm, arm64, ...
	Environ  []string // NAME=value; only Variables are passed on
}

// Name returns the base name of the loader for an architecture.
func Name(goarch string) string { return program + "-" + goarch }

// Build writes a loader for each architecture into the output directory and
// returns their paths. Equal sources and Go versions give equal bytes.
func Build(ctx context.Context, o Options) (map[string]string, error) {
	goCommand, err := toolchain(o)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(o.Out, 0o755); err != nil {
		return nil, err
	}
	paths := map[string]string{}
	for _, goarch := range o.GoArches {
		path := filepath.Join(o.Out, Name(goarch))
		if err := build(ctx, goCommand, o, goarch, path); err != nil {
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

// toolchain returns the path of the Go command. Without one, or without the
// sources, the error wraps ErrNoToolchain.
func toolchain(o Options) (string, error) {
	text, err := os.ReadFile(filepath.Join(o.Source, "go.mod"))
	if err != nil || !regexp.MustCompile(`(?m)^module `+module+`$`).Match(text) {
		return "", fmt.Errorf("%w: %q does not hold the sources of %s", ErrNoToolchain, o.Source, module)
	}
	path, err := exec.LookPath("go")
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrNoToolchain, err)
	}
	return path, nil
}

// build compiles one loader in a directory of its own, which atomicfile.Clean
// removes where a killed build left it, and renames it.
func build(ctx context.Context, goCommand string, o Options, goarch, path string) (err error) {
	out, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp(filepath.Dir(out), ".loader.*.pretag-tmp")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	built := filepath.Join(dir, program)
	command := exec.CommandContext(ctx, goCommand, "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid=", "-o", built, main)
	command.Dir = o.Source
	command.Env = environment(o.Environ, goarch)
	if output, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("%w\n%s", errors.Join(context.Cause(ctx), err), bytes.TrimSpace(output))
	}
	if err := os.Chmod(built, 0o755); err != nil {
		return err
	}
	return os.Rename(built, out)
}

// Variables lists the environment variables of this process that Build passes
// on: those that say where Go finds modules, caches and proxies (go help
// environment, Go 1.26). None of them decides the bytes of a loader.
func Variables() []string {
	return []string{
		"PATH", "HOME", "TMPDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME",
		"GOROOT", "GOTOOLCHAIN", "GOENV", "GOPATH", "GOCACHE", "GOMODCACHE", "GOTMPDIR",
		"GOPROXY", "GONOPROXY", "GOPRIVATE", "GOSUMDB", "GONOSUMDB", "GOINSECURE", "GOVCS", "GOAUTH", "GOFLAGS",
		"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR",
	}
}

// environment returns the variables of a build for one architecture. GOFLAGS is
// never empty, as Go would take an empty one from its configuration file.
func environment(environ []string, goarch string) []string {
	flags := "GOFLAGS=-trimpath"
	var env []string
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		switch {
		case name != "GOFLAGS" && slices.Contains(Variables(), name):
			env = append(env, entry)
		case name == "GOFLAGS" && slices.Contains(strings.Fields(value), "-mod=vendor"):
			flags += " -mod=vendor"
		}
	}
	return append(env, flags, "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+goarch, "GOWORK=off", "GO111MODULE=on", "GOFIPS140=off",
		"GO386=sse2", "GOAMD64=v1", "GOARM=7", "GOARM64=v8.0", "GOPPC64=power8", "GORISCV64=rva20u64")
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
	if want := module + strings.TrimPrefix(main, "."); info.Path != want {
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
