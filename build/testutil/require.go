//go:build acceptance

package testutil

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// Tool returns the path of the program. Where it is missing the test skips, and
// fails if the REQUIRE variable (comma-separated) names it: CI lets no skip pass.
func Tool(tb testing.TB, program string) string {
	tb.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		Missing(tb, program, err.Error())
	}
	return path
}

// ContainerdStore returns the path of a dockerd that can keep images in
// containerd's store, as every later Docker may, and 29 does on new hosts.
func ContainerdStore(tb testing.TB) string {
	tb.Helper()
	daemon := Tool(tb, "dockerd")
	version, err := exec.Command(daemon, "--version").Output()
	var major int
	if _, scanned := fmt.Sscanf(string(version), "Docker version %d.", &major); err != nil || scanned != nil || major < 24 {
		Missing(tb, "docker-containerd", "dockerd 24 or later has the containerd store, this is "+string(version))
	}
	return daemon
}

// Root ends a test that only root can run, saying what for.
func Root(tb testing.TB, why string) {
	tb.Helper()
	if os.Geteuid() != 0 {
		Missing(tb, "root", why)
	}
}

// Missing ends a test that cannot run for want of name: it skips, or fails if
// REQUIRE names it.
func Missing(tb testing.TB, name, why string) {
	tb.Helper()
	if slices.Contains(strings.Split(os.Getenv("REQUIRE"), ","), name) {
		tb.Fatalf("REQUIRE names %s: %s", name, why)
	}
	tb.Skipf("no %s: %s", name, why)
}

// Filter runs a program over data and returns what it writes.
func Filter(tb testing.TB, data []byte, program string, args ...string) []byte {
	tb.Helper()
	command := exec.Command(Tool(tb, program), args...)
	command.Stdin = bytes.NewReader(data)
	out, err := command.Output()
	if err != nil {
		tb.Fatalf("%s: %v", program, err)
	}
	return out
}
