//go:build acceptance

package build

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"pretag/build/testutil"
)

// If git fails, the error says so, and does not say that SOURCE_DATE_EPOCH is missing.
func TestCommitTime(t *testing.T) {
	git := testutil.Tool(t, "git")
	fake := func(script string) func(*testing.T) {
		return func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "git"), []byte("#!/bin/sh\n"+script), 0o755); err != nil {
				t.Fatal(err)
			}
			t.Setenv("PATH", dir)
		}
	}
	repository := func(damage func(t *testing.T)) func(*testing.T) {
		return func(t *testing.T) {
			for _, args := range [][]string{{"init", "-q"}, {"-c", "user.name=x", "-c", "user.email=x@example.com", "commit", "-q", "--allow-empty", "-m", "x"}} {
				if text, err := exec.Command(git, args...).CombinedOutput(); err != nil {
					t.Fatalf("git %q: %v: %s", args, err, text)
				}
			}
			damage(t)
		}
	}
	remove := func(name string) func(*testing.T) {
		return func(t *testing.T) {
			if err := os.RemoveAll(filepath.Join(".git", name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	const fix = "; fix that, or set SOURCE_DATE_EPOCH (seconds since 1970, such as 1767225600)"
	for name, row := range map[string]struct {
		prepare func(*testing.T)
		want    []string
	}{
		"whole":         {repository(func(*testing.T) {}), []string{""}},
		"no repository": {func(*testing.T) {}, []string{"SOURCE_DATE_EPOCH is required, because this is not a git repository: seconds"}},
		"no git":        {func(t *testing.T) { t.Setenv("PATH", t.TempDir()) }, []string{"SOURCE_DATE_EPOCH is required, because git is not installed: seconds"}},
		"no commit":     {repository(remove("refs/heads")), []string{"git log -1: exit status 128: fatal: ", fix}},
		"no objects":    {repository(func(t *testing.T) { remove("objects")(t); mkdir(t, ".git/objects") }), []string{"git log -1: exit status 128: fatal: bad object HEAD", fix}},
		"bad config":    {repository(func(t *testing.T) { write(t, ".git/config", "[core\n") }), []string{"git log -1: exit status 128: fatal: bad config line 1", fix}},
		"another owner": {repository(func(t *testing.T) {
			testutil.Root(t, "to give the repository away")
			t.Setenv("GIT_CONFIG_GLOBAL", os.DevNull)
			t.Setenv("GIT_CONFIG_SYSTEM", os.DevNull)
			if err := errors.Join(os.Chown(".git", 1, 1), os.Chown(".", 1, 1)); err != nil {
				t.Fatal(err)
			}
		}), []string{"git log -1: exit status 128: fatal: detected dubious ownership in repository", fix}},
		"killed": {fake("kill -9 $$"), []string{"git log -1: signal: killed" + fix}},
		"hangs":  {fake("exec /bin/sleep 60"), []string{"git log -1: no answer within 1s" + fix}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			row.prepare(t)
			_, err := commitTime(t.Context(), time.Second)
			testutil.WantError(t, err, row.want...)
		})
	}
}

func mkdir(t *testing.T, path string) {
	t.Helper()
	if err := os.Mkdir(path, 0o755); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
