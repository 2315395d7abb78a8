//go:build acceptance

package testutil

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Tool returns the path of the program. If it is missing, the test is skipped, or fails
// if the variable REQUIRE (comma-separated) names it.
func Tool(tb testing.TB, program string) string {
	tb.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		Missing(tb, program, err.Error())
	}
	return path
}

// ContainerdStore returns the path of a dockerd that can keep images in containerd's
// store: 24 and later can, and 29 does so on new hosts.
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

// UseContainerdStore has each dockerd that the test finds in PATH keep its images in
// containerd's store: a script in front of the real one switches it on.
func UseContainerdStore(tb testing.TB) {
	tb.Helper()
	script := `#!/bin/sh
for argument do
	case $argument in
	--config-file=*) echo '{"features": {"containerd-snapshotter": true}}' >"${argument#*=}" ;;
	esac
done
exec ` + ContainerdStore(tb) + ` "$@"
`
	dir := tb.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "dockerd"), []byte(script), 0o755); err != nil {
		tb.Fatal(err)
	}
	tb.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

// Root ends a test that only root can run; why is the reason.
func Root(tb testing.TB, why string) {
	tb.Helper()
	if os.Geteuid() != 0 {
		Missing(tb, "root", why)
	}
}

// Missing ends a test that cannot run without name: it is skipped, or fails if REQUIRE
// names it.
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
