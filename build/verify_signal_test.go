//go:build acceptance

package build_test

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A verify that a signal ends exits with that signal's status, also while an engine
// does not answer.
func TestSignalsInVerify(t *testing.T) {
	p := compile(t)
	p.must(t, "package", "FORMATS=deb")
	for signal, want := range map[syscall.Signal]int{syscall.SIGINT: 130, syscall.SIGTERM: 143} {
		dir := t.TempDir()
		started := filepath.Join(dir, "started")
		for _, name := range []string{"podman", "newuidmap", "newgidmap", "nsenter", "setpriv"} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n: >"+started+"\nexec sleep 1000\n"), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		c, text := p.command(t, "verify", "PATH="+dir+":"+os.Getenv("PATH"))
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
			if _, err := os.Stat(started); err == nil {
				break
			}
			if time.Now().After(deadline) {
				t.Fatal("no engine was asked")
			}
		}
		if err := c.Process.Signal(signal); err != nil {
			t.Fatal(err)
		}
		_ = c.Wait() // the state has the status
		if got := c.ProcessState.ExitCode(); got != want || !strings.Contains(text.String(), "interrupted by signal: "+signal.String()) {
			t.Errorf("%v: status %d, want %d: %s", signal, got, want, text)
		}
		p.clean(t)
	}
}
