//go:build acceptance

package job

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"pretag/build/testutil"
)

// git itself finds nothing wrong with the repository, and clones its file.
func TestRepository(t *testing.T) {
	git := testutil.Tool(t, "git")
	dir := filepath.Join(t.TempDir(), "repository.git")
	commit, err := writeRepository(dir, wordFile, []byte("a word\n"))
	if err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), git, args...)
		cmd.Env = append(cmd.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("git %v: %v: %s", args, err, out)
		}
		return string(out)
	}
	run("--git-dir="+dir, "fsck", "--strict", "--full")
	if got := strings.TrimSpace(run("--git-dir="+dir, "rev-parse", branch)); got != commit {
		t.Errorf("%s is %s, want %s", branch, got, commit)
	}
	run("--git-dir="+dir, "fetch", "--depth=1", "file://"+dir, "+refs/heads/"+branch+":refs/remotes/origin/"+branch)
	if got := run("--git-dir="+dir, "show", commit+":"+wordFile); got != "a word\n" {
		t.Errorf("the file holds %q", got)
	}
}
