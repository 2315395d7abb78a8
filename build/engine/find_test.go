//go:build acceptance

package engine

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pretag/build/testutil"
)

func TestFind(t *testing.T) {
	if _, _, err := Find(t.Context(), []string{"podmann", "docker", "crun"}); err == nil ||
		!strings.Contains(err.Error(), `engine "podmann" is unknown`) || !strings.Contains(err.Error(), `engine "crun" is unknown`) {
		t.Errorf("unknown engines: %v", err)
	}
	t.Run("nothing installed", func(t *testing.T) {
		t.Setenv("PATH", t.TempDir())
		found, absent, err := Find(t.Context(), nil)
		if err != nil || len(found) != 0 || len(absent) != len(Kinds()) {
			t.Errorf("found %v, absent %v, %v", found, absent, err)
		}
		for _, wanted := range []string{"podman", "docker"} {
			if _, _, err := Find(t.Context(), []string{wanted}); err == nil || !strings.Contains(err.Error(), "engine "+wanted) {
				t.Errorf("%s wanted: %v", wanted, err)
			}
		}
	})
	t.Run("what is not wanted is not looked for", func(t *testing.T) {
		testutil.Tool(t, "dockerd")
		if os.Geteuid() != 0 {
			testutil.Missing(t, "docker", "needs root")
		}
		found, absent, err := Find(t.Context(), []string{"docker"})
		if err != nil || len(found) != 1 || found[0].Kind != Docker || len(absent) != 2 || absent[0].Why != "not asked for" {
			t.Errorf("found %v, absent %v, %v", found, absent, err)
		}
	})
}

// An engine that does not start says why, and leaves nothing.
func TestStartFails(t *testing.T) {
	if os.Geteuid() != 0 {
		testutil.Missing(t, "root", "no namespaces to start it in")
	}
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	script := filepath.Join(tmp, "dockerd")
	if err := os.WriteFile(script, []byte("#!/bin/sh\necho no kernel >&2\nexit 3\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		os.Getenv("PATH"): "exit status 3\nthe service ended: no kernel",
		tmp:               `exec: "sh": executable file not found in $PATH`,
	} {
		t.Setenv("PATH", path)
		_, err := Engine{Kind: Docker, command: script, daemon: script}.Start(t.Context())
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
		if left, _ := filepath.Glob(filepath.Join(tmp, dirPattern)); len(left) != 0 {
			t.Errorf("left: %v", left)
		}
	}
}
