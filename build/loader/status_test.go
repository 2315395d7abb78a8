//go:build acceptance

package loader_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// report is what status --json prints.
type report struct {
	Runner struct {
		Version  string   `json:"version"`
		Revision string   `json:"revision"`
		Wants    []string `json:"wants"`
	} `json:"runner"`
	Images []struct {
		Engine, User, Helper, Image, State, ID string
		Wanted                                 bool
	} `json:"images"`
}

// runner puts a gitlab-runner that reports its version, and a config.toml, into the host.
func (h *host) runner(version, revision, config string) {
	h.tb.Helper()
	dir := filepath.Dir(h.archives)
	script := fmt.Sprintf("#!/bin/sh\ncat <<E\nVersion:      %s\nGit revision: %s\nGit branch:   stable\nE\n", version, revision)
	// RUNNER_CONFIG is root's; a user has theirs at home.
	for name, text := range map[string]string{"gitlab-runner": script, "config.toml": config, ".gitlab-runner/config.toml": config} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o755)); err != nil {
			h.tb.Fatal(err)
		}
	}
	h.env = []string{"PATH=" + dir + ":" + os.Getenv("PATH"), "HOME=" + dir}
}

func (h *host) report(code int) report {
	h.tb.Helper()
	cmd := h.command("status", "--json")
	out, _ := cmd.Output()
	if got := cmd.ProcessState.ExitCode(); got != code {
		h.tb.Fatalf("status --json: exit %d, want %d\n%s", got, code, out)
	}
	var r report
	if err := json.Unmarshal(out, &r); err != nil {
		h.tb.Fatalf("%v in\n%s", err, out)
	}
	return r
}

// TestStatus distinguishes what is asked for from what is merely there.
func TestStatus(t *testing.T) {
	inEachEngine(t, func(t *testing.T, e engine) {
		h := newHost(t, e.settings...)
		f := h.install("19.3.0", hostHelper())[0]
		h.runner("19.3.0", "9cbf0074", "[[runners]]\n  executor = \"docker\"\n[[runners]]\n  executor = \"docker\"\n  [runners.docker]\n    helper_image_flavor = \"concrete\"\n")
		h.want(allPresent, []string{"loaded"}, "load")
		r := h.report(tryAgain) // nobody has concrete
		if len(r.Images) != 2 {
			t.Fatalf("%d images, want 2: %+v", len(r.Images), r.Images)
		}
		got, missing := r.Images[0], r.Images[1]
		if got.Engine != e.name || got.User != e.user || got.Helper != hostHelper() || got.Image != f.RepoTag || got.State != "present" || got.ID != imageID(f) || !got.Wanted {
			t.Errorf("of the archive: %+v", got)
		}
		if missing.Helper != "" || !strings.Contains(missing.Image, ":concrete-") || missing.State != "missing" || !missing.Wanted {
			t.Errorf("of the image that no archive has: %+v", missing)
		}

		// What the installed Runner asks for is never pruned, whatever is newer.
		h.install("19.4.0", hostHelper())
		h.want(allPresent, []string{"loaded"}, "load")
		h.want(allPresent, []string{"kept: the installed GitLab Runner asks for it"}, "prune")
		if got := e.id(t, f.RepoTag); got != imageID(f) {
			t.Errorf("prune took %s", f.RepoTag)
		}
	})
}

// TestStatusAdvises reports what to do about an image that is asked for and missing.
func TestStatusAdvises(t *testing.T) {
	arch := strings.TrimPrefix(hostHelper(), "alpine-")
	inEachEngine(t, func(t *testing.T, e engine) {
		h := newHost(t, e.settings...)
		h.install("19.3.0", hostHelper())
		config := "[[runners]]\n  executor = \"docker\"\n[[runners]]\n  executor = \"docker\"\n  [runners.docker]\n    helper_image_flavor = \"concrete\"\n" +
			"[[runners]]\n  executor = \"docker\"\n  [runners.docker]\n    helper_image = \"example.com/helper:1\"\n"
		h.runner("19.3.0", "9cbf0074", config)
		h.want(tryAgain, []string{
			"\nNo archive here has " + repository + ":concrete-" + arch + "-v19.3.0: install its package, gitlab-runner-helper-images-concrete-" + runtime.GOARCH + " of version 19.3.0\n",
			"\nNo package has example.com/helper:1: config.toml asks for it with helper_image.\n",
			"\nTo load " + hostHelper() + ": gitlab-runner-helper-images load\n",
		}, "status")
		h.want(tryAgain, []string{" " + hostHelper() + " ", "\nHELPER=\"ubuntu-*\" leaves out " + hostHelper() + ".\n"}, "status", "--helper", "ubuntu-*")
		h.want(allPresent, []string{"loaded"}, "load")
		h.runner("19.3.0", "9cbf0074", "")
		if out := h.want(allPresent, []string{"present"}, "status", "--helper", "ubuntu-*"); strings.Contains(out, "unpackaged") || strings.Contains(out, "leaves out") {
			t.Errorf("an archive is here and the image too:\n%s", out)
		}
	})
}

// TestNoSuchUser serves the users that exist.
func TestNoSuchUser(t *testing.T) {
	e := podman(t)
	h := newHost(t, e.settings...)
	h.install("19.3.0", hostHelper())
	h.settings = append(h.settings, "USERS=no-such-user root")
	h.want(noUser, []string{"no-such-user: no such user", "podman/root: " + hostHelper() + ": loaded"}, "load")
}
