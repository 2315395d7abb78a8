//go:build acceptance

package archive_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"pretag/build/archive"
	"pretag/build/testutil"
)

// The version of GitLab Runner is found in programs that Go itself has built. With -trimpath Go leaves out the linker's flags; the commit remains.
func TestRunnerVersionOfRealPrograms(t *testing.T) {
	git := testutil.Tool(t, "git")
	dir := t.TempDir()
	run := func(program string, args ...string) string {
		t.Helper()
		command := exec.Command(program, args...)
		command.Dir = dir
		command.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL="+os.DevNull, "GOFLAGS=-buildvcs=true", "GOWORK=off", "CGO_ENABLED=0", "GOOS=linux")
		out, err := command.Output()
		if err != nil {
			t.Fatalf("%s %q: %v", program, args, err)
		}
		return string(out)
	}
	const module = "gitlab.com/gitlab-org/gitlab-runner"
	for name, text := range map[string]string{
		"go.mod":           "module " + module + "\n\ngo 1.21\n",
		"main.go":          "package main\n\nimport \"" + module + "/common\"\n\nfunc main() { println(common.VERSION, common.REVISION) }\n",
		"common/common.go": "package common\n\nvar VERSION, REVISION = \"dev\", \"HEAD\"\n",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	run(git, "init", "-q")
	run(git, "add", ".")
	run(git, "-c", "user.name=x", "-c", "user.email=x@example.com", "commit", "-q", "-m", "x")
	commit := run(git, "rev-parse", "HEAD")[:40]

	const flags = "-s -w -X " + module + "/common.VERSION=17.9.0 -X " + module + "/common.REVISION=c4cbe9dd"
	flagged := archive.Runner{Version: "17.9.0", Revision: "c4cbe9dd"}
	for _, row := range []struct {
		name, goarch string
		args         []string
		want         archive.Runner
	}{
		{"amd64", "amd64", nil, flagged},
		{"s390x", "s390x", nil, flagged}, // big endian
		{"trimpath", "amd64", []string{"-trimpath"}, archive.Runner{Revision: commit}},
		{"trimpath, no vcs", "amd64", []string{"-trimpath", "-buildvcs=false"}, archive.Runner{}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Setenv("GOARCH", row.goarch)
			run("go", append(append([]string{"build", "-ldflags", flags, "-o", "../program"}, row.args...), ".")...)
			body, err := os.ReadFile(filepath.Join(dir, "../program"))
			if err != nil {
				t.Fatal(err)
			}
			layer := testutil.Tar(t, testutil.File(helper, string(body)))
			found, err := archive.Examine(t.Context(), archive.Spec{GoArch: row.goarch, Layers: layersOf(layer)})
			if diff := cmp.Diff(row.want, found.Runner); err != nil || diff != "" {
				t.Errorf("%v (-want +got):\n%s", err, diff)
			}
			if row.want.Version != "" {
				_, err = archive.Examine(t.Context(), archive.Spec{GoArch: row.goarch, Runner: archive.Runner{Version: "18.0.0"}, Layers: layersOf(layer)})
				testutil.WantError(t, err, "/usr/bin/gitlab-runner-helper is from GitLab Runner 17.9.0, RUNNER_VERSION is 18.0.0")
			}
		})
	}
}
