// Package gobuild compiles Go programs of this project for Linux, with equal bytes on
// every machine that has the same sources and the same version of Go.
package gobuild

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Module is the path of this project's module.
const Module = "pretag"

// ErrUnavailable is the error of Available and Compile if there is no Go command or no source code.
var ErrUnavailable = errors.New("nothing can be compiled here")

// A Builder compiles programs.
type Builder struct {
	Source  string   // the root of this project's sources
	Environ []string // NAME=value; only Variables are passed on
}

// Compile builds the package, a path relative to the source such as ./build/loader, for
// an architecture in Go's words and writes the program to path. The file gets its name
// when it is complete. goarm is the value of GOARM, "" for 7.
func (b Builder) Compile(ctx context.Context, program, goarch, goarm, path string) (err error) {
	goCommand, err := b.toolchain()
	if err != nil {
		return err
	}
	path, err = filepath.Abs(path)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp(filepath.Dir(path), ".go.*.pretag-tmp") // atomicfile.Clean removes what a killed build left
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	built := filepath.Join(dir, "program")
	command := exec.CommandContext(ctx, goCommand, "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid=", "-o", built, program)
	command.Dir = b.Source
	command.Env = b.environment(goarch, goarm)
	if output, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", errors.Join(context.Cause(ctx), err), bytes.TrimSpace(output))
	}
	if err := os.Chmod(built, 0o755); err != nil {
		return err
	}
	return os.Rename(built, path)
}

// Available reports whether Compile finds the Go command and the sources.
func (b Builder) Available() error {
	_, err := b.toolchain()
	return err
}

// toolchain returns the path of the Go command. Without one, or without the
// sources, the error wraps ErrUnavailable.
func (b Builder) toolchain() (string, error) {
	text, err := os.ReadFile(filepath.Join(b.Source, "go.mod"))
	if err != nil || !regexp.MustCompile(`(?m)^module `+Module+`$`).Match(text) {
		return "", fmt.Errorf("%w: %q does not hold the sources of %s", ErrUnavailable, b.Source, Module)
	}
	path, err := exec.LookPath("go")
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return path, nil
}

// Variables lists the environment variables of this process that Compile passes
// on: those that say where Go finds modules, caches and proxies (go help
// environment, Go 1.26). None of them decides the bytes of a program.
func Variables() []string {
	return []string{
		"PATH", "HOME", "TMPDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME",
		"GOROOT", "GOTOOLCHAIN", "GOENV", "GOPATH", "GOCACHE", "GOMODCACHE", "GOTMPDIR",
		"GOPROXY", "GONOPROXY", "GOPRIVATE", "GOSUMDB", "GONOSUMDB", "GOINSECURE", "GOVCS", "GOAUTH", "GOFLAGS",
		"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR",
	}
}

// environment returns the variables of a build for one architecture. GOFLAGS is
// never empty, because Go would then take it from its configuration file.
func (b Builder) environment(goarch, goarm string) []string {
	flags := "GOFLAGS=-trimpath"
	var env []string
	for _, entry := range b.Environ {
		name, value, _ := strings.Cut(entry, "=")
		switch {
		case name != "GOFLAGS" && slices.Contains(Variables(), name):
			env = append(env, entry)
		case name == "GOFLAGS" && slices.Contains(strings.Fields(value), "-mod=vendor"):
			flags += " -mod=vendor"
		}
	}
	return append(env, flags, "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+goarch, "GOWORK=off", "GO111MODULE=on", "GOFIPS140=off",
		"GO386=sse2", "GOAMD64=v1", "GOARM="+cmp.Or(goarm, "7"), "GOARM64=v8.0", "GOPPC64=power8", "GORISCV64=rva20u64")
}
