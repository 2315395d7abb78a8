// Package runnertest is a small GitLab Runner for tests. It does what a runner
// does for one job, as far as the checks depend on it: it asks a coordinator for
// the job, looks for the helper image in the engine and then next to its
// executable, clones with the helper image, runs the script, sends the trace and
// reports the end. It is strict: whatever it does not expect fails its job.
//
// A test binary becomes the runner when it is called gitlab-runner:
//
//	func TestMain(m *testing.M) { runnertest.Become(); os.Exit(m.Run()) }
package runnertest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
)

// What the runner says of itself.
const (
	Version  = "17.9.0"
	Revision = "c4cbe9dd"
)

// Repository is that of the helper images it asks for (GitLab Runner v17.9.0, helpers/container/helperimage/info.go).
const Repository = "registry.gitlab.com/gitlab-org/gitlab-runner/gitlab-runner-helper"

// Ways to misbehave: a test adds one to PATH, the only variable that reaches the runner.
const (
	Careless = "/runnertest/careless" // does not mind that the helper image is missing
	Mute     = "/runnertest/mute"     // succeeds without running the script
	Crash    = "/runnertest/crash"    // ends right after it has the job
	Hang     = "/runnertest/hang"     // never ends the job; there is a file hanging in its working directory
)

func misbehaves(way string) bool { return strings.Contains(os.Getenv("PATH"), way) }

// Become runs the runner instead of tests where the program is called gitlab-runner.
func Become() {
	if filepath.Base(os.Args[0]) != "gitlab-runner" {
		return
	}
	if len(os.Args) == 2 && os.Args[1] == "--version" {
		fmt.Printf("Version:      %s\nGit revision: %s\nGit branch:   HEAD\n", Version, Revision)
		os.Exit(0)
	}
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "ERROR:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// A runner is one run of the program.
type runner struct {
	config string
	url    string
	trace  bytes.Buffer
	sent   int
}

// job is what the runner reads of a job.
type job struct {
	ID      int
	Token   string
	Image   struct{ Name string }
	GitInfo struct {
		URL string `json:"repo_url"`
		SHA string
	} `json:"git_info"`
	Steps []struct{ Script []string }
}

// run is gitlab-runner run --config FILE --working-directory DIR.
func run(args []string) error {
	if len(args) != 5 || args[0] != "run" || args[1] != "--config" || args[3] != "--working-directory" {
		return fmt.Errorf("arguments are %q", args)
	}
	config, err := os.ReadFile(args[2])
	if err != nil {
		return err
	}
	if entries, err := os.ReadDir(args[4]); err != nil || len(entries) != 0 {
		return fmt.Errorf("the working directory has %v, %w", entries, err)
	}
	r := runner{config: string(config)}
	r.url = r.value("url")
	// As the real one: QUIT waits for the job to end, TERM does not.
	quit := make(chan os.Signal, 1)
	signal.Notify(quit, syscall.SIGQUIT)
	if misbehaves(Hang) {
		signal.Ignore(syscall.SIGTERM)
	}

	var j job
	if err := r.call(http.MethodPost, "jobs/request", map[string]any{
		"token": r.value("token"), "info": map[string]any{"version": Version, "revision": Revision, "executor": r.value("executor")},
	}, http.StatusCreated, &j); err != nil {
		return err
	}
	if misbehaves(Crash) {
		return errors.New("crash")
	}
	if misbehaves(Hang) {
		if err := os.WriteFile(filepath.Join(args[4], "hanging"), nil, 0o644); err != nil {
			return err
		}
		select {}
	}
	state, reason := "success", ""
	if err := r.do(j); err != nil {
		state, reason = "failed", "runner_system_failure"
		fmt.Fprintf(&r.trace, "ERROR: Job failed: %v\n", err)
	}
	if err := r.sendTrace(j); err != nil {
		return err
	}
	if err := r.call(http.MethodPut, fmt.Sprintf("jobs/%d", j.ID), map[string]any{
		"token": j.Token, "state": state, "failure_reason": reason,
		"output": map[string]any{"checksum": fmt.Sprintf("crc32:%08x", crc32.ChecksumIEEE(r.trace.Bytes())), "bytesize": r.trace.Len()},
	}, http.StatusOK, nil); err != nil {
		return err
	}
	<-quit
	return nil
}

// value is that of a key of config.toml, which has each once.
func (r *runner) value(key string) string {
	found := regexp.MustCompile(`(?m)^` + key + ` = "(.*)"$`).FindStringSubmatch(r.config)
	if found == nil {
		return ""
	}
	return found[1]
}

// call does one request to the coordinator.
func (r *runner) call(method, path string, body any, want int, answer any) error {
	content, err := json.Marshal(body)
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(context.Background(), method, r.url+"/api/v4/"+path, bytes.NewReader(content))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	return send(http.DefaultClient, request, want, answer)
}

func send(client *http.Client, request *http.Request, want int, answer any) error {
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	switch {
	case err != nil:
		return err
	case response.StatusCode != want:
		return fmt.Errorf("%s %s: %s, want %d: %s", request.Method, request.URL.Path, response.Status, want, content)
	case answer == nil:
		return nil
	case !strings.HasPrefix(response.Header.Get("Content-Type"), "application/json"):
		return fmt.Errorf("%s %s: the answer is not JSON by its header", request.Method, request.URL.Path)
	}
	return json.Unmarshal(content, answer)
}

// sendTrace sends what was not sent yet.
func (r *runner) sendTrace(j job) error {
	part := r.trace.Bytes()[r.sent:]
	request, err := http.NewRequestWithContext(context.Background(), http.MethodPatch, fmt.Sprintf("%s/api/v4/jobs/%d/trace", r.url, j.ID), bytes.NewReader(part))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "text/plain")
	request.Header.Set("Job-Token", j.Token)
	request.Header.Set("Content-Range", fmt.Sprintf("%d-%d", r.sent, r.sent+len(part)-1))
	r.sent += len(part)
	return send(http.DefaultClient, request, http.StatusAccepted, nil)
}

// do does the job: in the engine or, without one, on this machine.
func (r *runner) do(j job) error {
	fmt.Fprintf(&r.trace, "Running with gitlab-runner %s (%s)\n", Version, Revision)
	if misbehaves(Mute) {
		return nil
	}
	volumes := regexp.MustCompile(`"([^":]*):([^":]*):ro"`).FindAllStringSubmatch(r.config, -1)
	if len(volumes) != 2 {
		return fmt.Errorf("%d read-only mounts in config.toml, want 2", len(volumes))
	}
	repository, inside := volumes[0][1], volumes[0][2]
	if j.GitInfo.URL != "file://"+inside || len(j.GitInfo.SHA) != 40 || len(j.Steps) != 1 {
		return fmt.Errorf("the job is %+v", j)
	}
	if socket := strings.TrimPrefix(r.value("host"), "unix://"); socket != "" {
		return r.inEngine(newEngine(socket), j, repository, inside)
	}
	return r.here(j, repository)
}

// here clones and runs the script without an engine.
func (r *runner) here(j job, repository string) error {
	dir, err := os.MkdirTemp("", "runnertest-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	for _, argv := range [][]string{
		{"git", "clone", "--quiet", "file://" + repository, dir},
		{"git", "-C", dir, "checkout", "--quiet", j.GitInfo.SHA},
		{"sh", "-ec", "cd \"$0\"; set -x\n" + strings.Join(j.Steps[0].Script, "\n"), dir},
	} {
		cmd := exec.Command(argv[0], argv[1:]...)
		cmd.Stdout, cmd.Stderr = &r.trace, &r.trace
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("%s: %w", argv[0], err)
		}
	}
	return nil
}

// inEngine finds the helper image as the real runner does (GitLab Runner
// v17.9.0, executors/docker/docker.go, getHelperImage), has the helper print the
// repository and the job image run the script.
func (r *runner) inEngine(e engine, j job, repository, inside string) error {
	if r.value("pull_policy") != "never" || r.value("network_mode") != "none" {
		return errors.New("config.toml allows pulling or a network")
	}
	arch := map[string]string{"amd64": "x86_64"}[runtime.GOARCH]
	if arch == "" {
		arch = runtime.GOARCH
	}
	name, tag := "alpine-"+arch, arch+"-v"+Version
	if flavor := r.value("helper_image_flavor"); flavor != "" {
		name, tag = flavor+"-"+arch, flavor+"-"+tag
	}
	reference := Repository + ":" + tag
	if !e.has(reference) {
		if err := e.load(archive(name), Repository, tag); err != nil {
			fmt.Fprintf(&r.trace, "loading: %v\n", err)
		}
	}
	if !e.has(reference) {
		if !misbehaves(Careless) {
			return fmt.Errorf("failed to pull image %q with specified policies [never]", reference)
		}
		reference = j.Image.Name
	}
	if !e.has(j.Image.Name) {
		return fmt.Errorf("failed to pull image %q with specified policies [never]", j.Image.Name)
	}
	for _, step := range []struct {
		image string
		argv  []string
	}{{reference, []string{"git", "print", inside}}, {j.Image.Name, []string{"sh", "-c", "echo the script runs"}}} {
		out, err := e.container(step.image, step.argv, repository+":"+inside+":ro")
		r.trace.Write(out)
		if err != nil {
			return err
		}
	}
	return nil
}

// archive is where the runner looks for the archive of a helper.
func archive(name string) string {
	self, err := os.Executable()
	if err != nil {
		return err.Error() // no such file
	}
	return filepath.Join(filepath.Dir(self), "../lib/gitlab-runner/helper-images", "prebuilt-"+name+".docker.tar.zst")
}

// An engine is a client of Docker's API.
type engine struct{ client *http.Client }

func newEngine(socket string) engine {
	return engine{&http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}}
}

func (e engine) call(method, path string, query url.Values, body io.Reader, kind string, want int, answer any) error {
	u := url.URL{Scheme: "http", Host: "engine", Path: "/v1.40" + path, RawQuery: query.Encode()}
	request, err := http.NewRequestWithContext(context.Background(), method, u.String(), body)
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", kind)
	return send(e.client, request, want, answer)
}

func (e engine) has(reference string) bool {
	var image struct{ ID string }
	return e.call(http.MethodGet, "/images/"+reference+"/json", nil, nil, "", http.StatusOK, &image) == nil
}

func (e engine) load(path, repository, tag string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	var answer struct{ Stream string }
	if err := e.call(http.MethodPost, "/images/load", url.Values{"quiet": {"1"}}, f, "application/x-tar", http.StatusOK, &answer); err != nil {
		return err
	}
	name := strings.TrimSpace(strings.TrimPrefix(answer.Stream, "Loaded image:"))
	return e.call(http.MethodPost, "/images/"+name+"/tag", url.Values{"repo": {repository}, "tag": {tag}}, nil, "", http.StatusCreated, nil)
}

// container runs a command and returns what it prints.
func (e engine) container(image string, argv []string, bind string) ([]byte, error) {
	body, err := json.Marshal(map[string]any{
		"Image": image, "Cmd": argv, "Tty": true,
		"HostConfig": map[string]any{"Binds": []string{bind}, "NetworkMode": "none"},
	})
	if err != nil {
		return nil, err
	}
	var created struct{ ID string }
	if err := e.call(http.MethodPost, "/containers/create", nil, bytes.NewReader(body), "application/json", http.StatusCreated, &created); err != nil {
		return nil, err
	}
	path := "/containers/" + created.ID
	defer e.call(http.MethodDelete, path, url.Values{"force": {"true"}}, nil, "", http.StatusNoContent, nil)
	if err := e.call(http.MethodPost, path+"/start", nil, nil, "", http.StatusNoContent, nil); err != nil {
		return nil, err
	}
	var ended struct{ StatusCode int }
	if err := e.call(http.MethodPost, path+"/wait", nil, nil, "", http.StatusOK, &ended); err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "http://engine/v1.40"+path+"/logs?stdout=true&stderr=true", nil)
	if err != nil {
		return nil, err
	}
	response, err := e.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	out, err := io.ReadAll(response.Body)
	if err == nil && ended.StatusCode != 0 {
		err = fmt.Errorf("%s %q: exit code %d", image, argv, ended.StatusCode)
	}
	return out, err
}
