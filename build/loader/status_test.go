package loader_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
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

// runner puts a gitlab-runner that tells its version, and a config.toml, into the host.
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

// TestWants names the images that a Runner of some version and configuration asks for.
func TestWants(t *testing.T) {
	arch := strings.TrimPrefix(hostHelper(), "alpine-")
	docker := func(lines ...string) string {
		return "concurrent = 1\n\n[[runners]]\n  name = \"a\"\n  executor = \"docker\"\n  shell = \"sh\"\n  [runners.docker]\n    " + strings.Join(lines, "\n    ") + "\n"
	}
	for name, test := range map[string]struct {
		version, revision, config string
		want                      []string
	}{
		// Tags: GitLab Runner v15.8.0, v16.8.0 and v19.3.0, helpers/container/helperimage/linux_info.go.
		"15.8.0":      {"15.8.0", "12335144", "", []string{"x86_64-12335144"}},
		"16.7.1":      {"16.7.1", "aabbccdd", docker(), []string{"x86_64-aabbccdd"}},
		"16.8.0":      {"16.8.0", "c72a09b6", docker(), []string{"x86_64-v16.8.0"}},
		"19.3.0":      {"19.3.0", "9cbf0074", docker(), []string{"x86_64-v19.3.0"}},
		"beta":        {"19.4.0~pre.3.g0123abcd", "0123abcd", docker(), []string{"x86_64-v19.4.0"}},
		"development": {"development version", "HEAD", docker(), []string{"x86_64-latest"}},
		"flavor":      {"19.3.0", "9cbf0074", docker(`helper_image_flavor = "ubuntu" # not alpine`), []string{"ubuntu-x86_64-v19.3.0"}},
		"alpine":      {"19.3.0", "9cbf0074", docker(`helper_image_flavor = 'alpine'`), []string{"x86_64-v19.3.0"}},
		"pwsh": {
			"19.3.0", "9cbf0074", strings.Replace(docker(`helper_image_flavor = "ubuntu"`), `"sh"`, `"pwsh"`, 1),
			[]string{"ubuntu-x86_64-v19.3.0-pwsh"},
		},
		"several": {
			"19.3.0", "9cbf0074", docker() + docker(`helper_image_flavor = "ubuntu"`) + docker() + "[[runners]]\n  executor = \"shell\"\n",
			[]string{"x86_64-v19.3.0", "ubuntu-x86_64-v19.3.0"},
		},
		"script": {
			"19.3.0", "9cbf0074", strings.Replace(docker(), "  name", "  pre_build_script = \"\"\"\n[runners.docker]\n  helper_image_flavor = \"ubuntu\"\n\"\"\"\n  name", 1),
			[]string{"x86_64-v19.3.0"},
		},
		"literal script": {
			"19.3.0", "9cbf0074", strings.Replace(docker(`helper_image_flavor = "ubuntu"`), "  name", "  pre_build_script = '''\n[ -d /cache ] || mkdir /cache\n'''\n  name", 1),
			[]string{"ubuntu-x86_64-v19.3.0"},
		},
		"commented": {"19.3.0", "9cbf0074", docker(`# helper_image_flavor = "ubuntu"`), []string{"x86_64-v19.3.0"}},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, "ENGINE=docker", "DOCKER_HOST=unix:///nowhere")
			h.runner(test.version, test.revision, test.config)
			r := h.report(map[bool]int{true: tryAgain, false: noEngine}[hasDocker()])
			for i, tag := range test.want {
				test.want[i] = repository + ":" + strings.Replace(tag, "x86_64", arch, 1)
			}
			if diff := cmp.Diff(test.want, r.Runner.Wants); diff != "" {
				t.Errorf("images asked for (-want +got):\n%s", diff)
			}
		})
	}

	t.Run("helper_image", func(t *testing.T) {
		h := newHost(t, "ENGINE=docker", "DOCKER_HOST=unix:///nowhere")
		h.runner("19.3.0", "9cbf0074", docker(`helper_image = "example.com/helper:$CI_RUNNER_VERSION-${CI_RUNNER_REVISION}"`))
		r := h.report(map[bool]int{true: tryAgain, false: noEngine}[hasDocker()])
		if diff := cmp.Diff([]string{"example.com/helper:19.3.0-9cbf0074"}, r.Runner.Wants); diff != "" {
			t.Errorf("images asked for (-want +got):\n%s", diff)
		}
	})
}

// TestStatus tells what is asked for from what is merely there.
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

// TestStatusAdvises tells what to do about an image that is asked for and missing.
func TestStatusAdvises(t *testing.T) {
	arch := strings.TrimPrefix(hostHelper(), "alpine-")
	inEachEngine(t, func(t *testing.T, e engine) {
		h := newHost(t, e.settings...)
		h.install("19.3.0", hostHelper())
		config := "[[runners]]\n  executor = \"docker\"\n[[runners]]\n  executor = \"docker\"\n  [runners.docker]\n    helper_image_flavor = \"concrete\"\n" +
			"[[runners]]\n  executor = \"docker\"\n  [runners.docker]\n    helper_image = \"example.com/helper:1\"\n"
		h.runner("19.3.0", "9cbf0074", config)
		h.want(tryAgain, []string{
			"\nNo archive here has " + repository + ":concrete-" + arch + "-v19.3.0: install its package.\n",
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

// TestUsage has the ways to be wrong.
func TestUsage(t *testing.T) {
	for _, test := range []struct {
		code    int
		text    string
		setting string
		args    []string
	}{
		{wrongUsage, "Usage:", "", []string{}},
		{wrongUsage, "Usage:", "", []string{"lod"}},
		{wrongUsage, `unknown command "lod": want load, status, verify or prune, then its options`, "", []string{"lod"}},
		{wrongUsage, `unknown command "--engine": want load, status`, "", []string{"--engine", "podman", "load"}},
		{wrongUsage, `load: unknown option "--json"`, "", []string{"load", "--json"}},
		{wrongUsage, `verify: unknown option "alpine"`, "", []string{"verify", "alpine"}},
		{wrongUsage, "--helper needs an argument", "", []string{"load", "--helper="}},
		{wrongConfig, `engine "cri-o": want auto, podman or docker`, "", []string{"load", "--engine", "cri-o"}},
		{wrongConfig, `line 4: unknown setting "ENGNE"`, "ENGNE=podman", []string{"load"}},
		{wrongConfig, `line 4: unknown setting "touch /tmp/x"`, "touch /tmp/x", []string{"load"}},
		{wrongConfig, `PRUNE="maybe"`, "PRUNE=maybe", []string{"load"}},
		{wrongUsage, "docker has one store for all", "", []string{"load", "--engine=docker", "--user=somebody"}},
		{allPresent, "Usage:", "", []string{"--help"}},
		{allPresent, "Usage:", "", []string{"load", "--help"}},
		{allPresent, "gitlab-runner-helper-images ", "", []string{"--version"}},
	} {
		t.Run(strings.Join(append(test.args, test.setting), " "), func(t *testing.T) {
			h := newHost(t)
			if test.setting != "" {
				h.settings = append(h.settings, test.setting)
			}
			cmd := h.command(test.args...)
			if len(test.args) == 0 {
				cmd.Args = cmd.Args[:1]
			}
			if out, code := output(t, cmd); code != test.code || !strings.Contains(out, test.text) {
				t.Errorf("exit %d, want %d and %q:\n%s", code, test.code, test.text, out)
			}
		})
	}
	t.Run("no such user", func(t *testing.T) {
		e := podman(t)
		h := newHost(t, e.settings...)
		h.install("19.3.0", hostHelper())
		h.settings = append(h.settings, "USERS=no-such-user root")
		h.want(noUser, []string{"no-such-user: no such user", "podman/root: " + hostHelper() + ": loaded"}, "load")
	})
}
