//go:build acceptance

package testutil

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
)

// Compile returns a program of this module, without debug information and cgo.
func Compile(pkg string) (program []byte, err error) {
	dir, err := os.MkdirTemp("", "program-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	path := filepath.Join(dir, "program")
	build := exec.Command("go", "build", "-ldflags=-s -w", "-o", path, pkg)
	build.Env = append(build.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, out)
	}
	return os.ReadFile(path)
}

// sample is the program of Programs, built once.
var sample = sync.OnceValues(func() ([]byte, error) { return Compile("pretag/build/demo/sample") })

// Programs returns a root filesystem whose programs run on this machine.
func Programs(tb testing.TB) []Entry {
	tb.Helper()
	program, err := sample()
	if err != nil {
		tb.Fatal(err)
	}
	return []Entry{Executable("bin/sh", program), Executable("usr/bin/dumb-init", program), Executable("entrypoint", program)}
}

// Executable returns a file that can be run.
func Executable(name string, body []byte) Entry {
	return Entry{Header: tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o755}, Body: body}
}

// ProcessesOf lists the other processes whose command line or environment contains dir.
func ProcessesOf(tb testing.TB, dir string) []string {
	tb.Helper()
	paths, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		tb.Fatal(err)
	}
	var found []string
	for _, path := range paths {
		cmdline, _ := os.ReadFile(filepath.Join(path, "cmdline")) // an error: the process has ended
		environ, _ := os.ReadFile(filepath.Join(path, "environ"))
		if filepath.Base(path) != strconv.Itoa(os.Getpid()) && (bytes.Contains(cmdline, []byte(dir)) || bytes.Contains(environ, []byte(dir))) {
			found = append(found, fmt.Sprintf("%s %q", path, cmdline))
		}
	}
	return found
}

// NothingLeft reports processes and mounts whose names contain dir.
func NothingLeft(tb testing.TB, dir string) {
	tb.Helper()
	for _, process := range ProcessesOf(tb, dir) {
		tb.Errorf("a process is left: %s", process)
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil || bytes.Contains(mounts, []byte(dir)) {
		tb.Errorf("mounts below %s are left, %v:\n%s", dir, err, mounts)
	}
}
