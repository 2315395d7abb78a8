package loader

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"pretag/build/catalogue"
)

// docker is a Docker runner in config.toml, as GitLab Runner writes it.
func docker(lines ...string) string {
	return "[[runners]]\n  name = \"a\"\n  executor = \"docker\"\n  shell = \"sh\"\n  [runners.docker]\n    " + strings.Join(lines, "\n    ") + "\n"
}

// TestWants names the images that a Runner of some version and configuration asks
// for. The tables of names of all versions are tested in package catalogue.
func TestWants(t *testing.T) {
	for name, test := range map[string]struct {
		version, revision, config string
		want                      []string
		unclear                   string
	}{
		"15.8.0":      {version: "15.8.0", revision: "12335144", want: []string{"x86_64-12335144"}},
		"16.7.1":      {version: "16.7.1", revision: "aabbccdd", config: docker(), want: []string{"x86_64-aabbccdd"}},
		"16.8.0":      {version: "16.8.0", revision: "c72a09b6", config: "concurrent = 1\n\n" + docker(), want: []string{"x86_64-v16.8.0"}},
		"19.3.0":      {version: "19.3.0", revision: "9cbf0074", config: docker(), want: []string{"x86_64-v19.3.0"}},
		"beta":        {version: "19.4.0~pre.3.g0123abcd", revision: "0123abcd", config: docker(), want: []string{"x86_64-v19.4.0"}},
		"development": {version: "development version", revision: "HEAD", config: docker(), want: []string{"x86_64-latest"}},
		"flavor":      {version: "19.3.0", config: docker(`helper_image_flavor = "ubuntu" # not alpine`), want: []string{"ubuntu-x86_64-v19.3.0"}},
		"alpine":      {version: "19.3.0", config: docker(`helper_image_flavor = 'alpine'`), want: []string{"x86_64-v19.3.0"}},
		"commented":   {version: "19.3.0", config: docker(`# helper_image_flavor = "ubuntu"`), want: []string{"x86_64-v19.3.0"}},
		"pwsh": {
			version: "19.3.0", config: strings.Replace(docker(`helper_image_flavor = "ubuntu"`), `"sh"`, `"pwsh"`, 1),
			want: []string{"ubuntu-x86_64-v19.3.0-pwsh"},
		},
		"several": {
			version: "19.3.0", config: docker() + docker(`helper_image_flavor = "ubuntu"`) + docker() + "[[runners]]\n  executor = \"shell\"\n",
			want: []string{"x86_64-v19.3.0", "ubuntu-x86_64-v19.3.0"},
		},
		"script": {
			version: "19.3.0", config: strings.Replace(docker(), "  name", "  pre_build_script = \"\"\"\n[runners.docker]\n  helper_image_flavor = \"ubuntu\"\n\"\"\"\n  name", 1),
			want: []string{"x86_64-v19.3.0"},
		},
		"literal script": {
			version: "19.3.0", config: strings.Replace(docker(`helper_image_flavor = "ubuntu"`), "  name", "  pre_build_script = '''\n[ -d /cache ] || mkdir /cache\n'''\n  name", 1),
			want: []string{"ubuntu-x86_64-v19.3.0"},
		},
		// Row F.
		"concrete flag":              {version: "19.3.0", config: docker() + "  [runners.feature_flags]\n    FF_CONCRETE = true\n", want: []string{"concrete-x86_64-v19.3.0"}},
		"concrete flag, environment": {version: "19.3.0", config: strings.Replace(docker(), "  name", "  environment = [\"FF_CONCRETE=1\"]\n  name", 1), want: []string{"concrete-x86_64-v19.3.0"}},
		"concrete flag, both":        {version: "19.3.0", config: strings.Replace(docker(), "  name", "  environment = [\"FF_CONCRETE=1\"]\n  name", 1) + "  [runners.feature_flags]\n    FF_CONCRETE = false\n", want: []string{"x86_64-v19.3.0"}},
		"concrete flag, too old":     {version: "18.10.0", config: docker() + "  [runners.feature_flags]\n    FF_CONCRETE = true\n", want: []string{"x86_64-v18.10.0"}},
		"concrete flag, pwsh": {
			version: "19.3.0", config: strings.Replace(docker(`helper_image_flavor = "ubuntu"`), `"sh"`, `"pwsh"`, 1) + "  [runners.feature_flags]\n    FF_CONCRETE = true\n",
			want: []string{"ubuntu-x86_64-v19.3.0"},
		},
		"variable in flavor": {version: "19.3.0", config: docker(`helper_image_flavor = "$FLAVOR"`), unclear: `runner "a": helper_image_flavor = "$FLAVOR" depends on the job's variables`},
		"helper_image": {
			version: "19.3.0", revision: "9cbf0074", config: docker(`helper_image = "example.com/helper:$CI_RUNNER_VERSION-${CI_RUNNER_REVISION}"`),
			want: []string{"example.com/helper:19.3.0-9cbf0074"},
		},
		"variable in helper_image": {version: "19.3.0", config: docker(`helper_image = "example.com/helper:$TAG"`), unclear: "depends on the job's variables"},
		"option as helper_image":   {version: "19.3.0", config: docker(`helper_image = "--help"`), unclear: "is not an image"},
		// Row G.
		"CRLF":           {version: "19.3.0", config: strings.ReplaceAll(docker(`helper_image_flavor = "ubuntu"`), "\n", "\r\n"), want: []string{"ubuntu-x86_64-v19.3.0"}},
		"inline table":   {version: "19.3.0", config: "[[runners]]\nexecutor = \"docker\"\ndocker = {helper_image_flavor = \"ubuntu\"}\n", want: []string{"ubuntu-x86_64-v19.3.0"}},
		"inline array":   {version: "19.3.0", config: "runners = [{executor = \"docker\", docker = {helper_image_flavor = \"ubuntu\"}}]\n", want: []string{"ubuntu-x86_64-v19.3.0"}},
		"dotted key":     {version: "19.3.0", config: "[[runners]]\nexecutor = \"docker\"\ndocker.helper_image_flavor = \"ubuntu\"\n", want: []string{"ubuntu-x86_64-v19.3.0"}},
		"not TOML":       {version: "19.3.0", config: "[[runners]\n", unclear: "config.toml is not understood: toml: line 2"},
		"wrong type":     {version: "19.3.0", config: "[[runners]]\nexecutor = 5\n", unclear: "config.toml is not understood"},
		"no revision":    {version: "15.9.9", config: docker(), unclear: "its revision, which is part of the tags, is not known"},
		"kubernetes":     {version: "19.3.0", config: "[[runners]]\nexecutor = \"kubernetes\"\n", want: []string{"x86_64-v19.3.0"}},
		"docker-windows": {version: "19.3.0", config: "[[runners]]\nexecutor = \"docker-windows\"\n", want: []string{"x86_64-v19.3.0"}},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "config.toml")
			if err := os.WriteFile(path, []byte(test.config), 0o600); err != nil {
				t.Fatal(err)
			}
			in := installation{installed: true, Version: test.version, Revision: test.revision}
			in.read(path, "x86_64")
			in.complete("x86_64")
			for i, tag := range test.want {
				if !strings.Contains(tag, "/") {
					test.want[i] = catalogue.Repository + ":" + tag
				}
			}
			if diff := cmp.Diff(test.want, in.Wants); diff != "" {
				t.Errorf("images asked for (-want +got):\n%s", diff)
			}
			unclear := strings.Join(in.Unclear, "\n")
			if test.unclear == "" && unclear != "" || !strings.Contains(unclear, test.unclear) {
				t.Errorf("unclear %q, want %q", unclear, test.unclear)
			}
		})
	}
}

// report is what status --json prints.
type report struct {
	Runner struct {
		Version  string
		Revision string
		Wants    []string
		Unknown  []string
	}
	Images  []row
	Runners []runner
}

func (h *fakeHost) report() report {
	h.t.Helper()
	stdout, stderr, _ := h.run("status", "--json")
	var r report
	if err := json.Unmarshal([]byte(stdout), &r); err != nil {
		h.t.Fatalf("%v in\n%s%s", err, stdout, stderr)
	}
	return r
}

// TestSeveralConfigs reads every config.toml that a service of GitLab Runner names (row G).
func TestSeveralConfigs(t *testing.T) {
	h := newFakeHost(t)
	h.settings = h.settings[:2] // no RUNNER_CONFIG
	h.engine("docker")
	h.runner("19.3.0", "9cbf0074", "")
	h.write("srv/one.toml", docker(`helper_image_flavor = "ubuntu"`))
	h.write("srv/two.toml", docker(`helper_image_flavor = "ubi-fips"`))
	h.write("etc/gitlab-runner/config.toml", docker())
	h.write("etc/systemd/system/gitlab-runner.service", "[Service]\nExecStart=/usr/bin/gitlab-runner \"run\" \"--config\" \""+h.path("srv/one.toml")+"\" \"--working-directory\" \"/home/gitlab-runner\"\n")
	h.write("etc/systemd/system/second.service", "[Service]\nExecStart=-/usr/bin/gitlab-runner run \\\n --config="+h.path("srv/two.toml")+"\n")
	h.write("etc/systemd/system/other.service", "[Service]\nExecStart=/usr/bin/other --config /nowhere\n")
	want := []string{catalogue.Repository + ":ubuntu-x86_64-v19.3.0", catalogue.Repository + ":ubi-fips-x86_64-v19.3.0", catalogue.Repository + ":x86_64-v19.3.0"}
	if diff := cmp.Diff(want, h.report().Runner.Wants); diff != "" {
		t.Errorf("images asked for (-want +got):\n%s", diff)
	}
}

// TestRunnersEngines says for each runner which engine it asks, and never
// "present" of an engine that was not asked (row D).
func TestRunnersEngines(t *testing.T) {
	h := newFakeHost(t)
	h.engine("docker")
	h.engine("podman")
	h.settings = append(h.settings, "USERS=root")
	a := h.archive("alpine-x86_64", "x86_64-v19.3.0", "x")
	h.has("store", a.RepoTag, imageOf(a))
	named := func(name, host string) string { return strings.Replace(docker(host), `"a"`, `"`+name+`"`, 1) }
	h.runner("19.3.0", "9cbf0074", named("default", "")+named("podman", `host = "unix:///run/podman/podman.sock"`)+named("remote", `host = "tcp://192.0.2.1:2376"`)+
		named("other", `host = "unix:///srv/docker.sock"`)+strings.Replace(named("machines", ""), `"docker"`, `"docker+machine"`, 1))
	got := map[string]string{}
	for _, each := range h.report().Runners {
		got[each.Name] = each.State + " " + each.Reason
	}
	want := map[string]string{
		"default": "present ", "podman": "present ", "other": "present ",
		"remote":   "unknown a remote engine is asked only if it is DOCKER_HOST",
		"machines": "unknown its executor creates machines that have their own engines",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("runners (-want +got):\n%s", diff)
	}
	hosts := map[string]bool{}
	for _, call := range h.calls() {
		if strings.HasPrefix(call, "docker --host ") {
			hosts[strings.Fields(call)[2]] = true
		}
	}
	if diff := cmp.Diff(map[string]bool{"unix:///var/run/docker.sock": true, "unix:///srv/docker.sock": true}, hosts); diff != "" {
		t.Errorf("hosts asked (-want +got):\n%s", diff)
	}
	out := h.want(exitTempFail, []string{"RUNNER ", "remote ", "tcp://192.0.2.1:2376", "unknown: a remote engine"}, "status")
	if !strings.Contains(out, "docker/root") {
		t.Errorf("the default engine has no name:\n%s", out)
	}

	t.Run("contexts do not count", func(t *testing.T) {
		h.environ = append(h.environ, "DOCKER_CONTEXT=rootless")
		h.program("docker", `[ -z "$DOCKER_CONTEXT" ] || { echo "context $DOCKER_CONTEXT is used" >&2; exit 1; }; [ "$1" != --version ] || echo Docker version 1`)
		if out, _, _ := h.run("load", "--engine=docker"); strings.Contains(out, "is used") {
			t.Errorf("docker was called with a context:\n%s", out)
		}
	})
	t.Run("on request", func(t *testing.T) {
		h.engine("docker")
		h.settings = append(h.settings, "DOCKER_HOST=tcp://192.0.2.1:2376")
		for _, each := range h.report().Runners {
			if each.Name == "remote" && each.State != present {
				t.Errorf("the runner of DOCKER_HOST: %+v", each)
			}
		}
	})
}

// TestDockerSocketOfPodman knows podman-docker's link (row D).
func TestDockerSocketOfPodman(t *testing.T) {
	h := newFakeHost(t)
	r := newRun(Process{})
	r.root = h.dir
	h.write("run/podman/podman.sock", "")
	if err := symlink("../../run/podman/podman.sock", h.path("var/run/docker.sock")); err != nil {
		t.Fatal(err)
	}
	for host, want := range map[string]endpoint{
		"":                               {podmanUID: "0"},
		"unix:///run/podman/podman.sock": {podmanUID: "0"},
		"unix:///run/user/1000/podman/podman.sock": {podmanUID: "1000"},
		"unix:///srv/docker.sock":                  {socket: "/srv/docker.sock"},
		"tcp://127.0.0.1:2375":                     {},
		"ssh://root@example.com":                   {},
		"unix://relative":                          {},
	} {
		if got := r.endpoint(host); got != want {
			t.Errorf("%q is %+v, want %+v", host, got, want)
		}
	}
}

func symlink(target, path string) error {
	return errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.Symlink(target, path))
}
