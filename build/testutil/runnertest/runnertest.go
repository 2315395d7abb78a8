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

	"pretag/build/catalogue"
)

// What the runner reports as its version, and where it looks for helper images.
const (
	Version    = "17.9.0"
	Revision   = "c4cbe9dd"
	Repository = catalogue.Repository
)

// Ways to misbehave: a test adds one to PATH, the only variable that reaches the runner.
const (
	Careless = "/runnertest/careless" // uses the job's image if the helper image is missing
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
	// As with the real one, QUIT waits for the job to end and TERM does not.
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
	if err := send(http.DefaultClient, http.MethodPatch, fmt.Sprintf("%s/api/v4/jobs/%d/trace", r.url, j.ID), http.Header{
		"Content-Type": {"text/plain"}, "Job-Token": {j.Token}, "Content-Range": {fmt.Sprintf("0-%d", r.trace.Len()-1)},
	}, bytes.NewReader(r.trace.Bytes()), http.StatusAccepted, nil); err != nil {
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

// value returns the value of a key of config.toml, which has each key once.
func (r *runner) value(key string) string {
	found := regexp.MustCompile(`(?m)^` + key + ` = "(.*)"$`).FindStringSubmatch(r.config)
	if found == nil {
		return ""
	}
	return found[1]
}

// call sends one request to the coordinator.
func (r *runner) call(method, path string, body any, want int, answer any) error {
	content, err := json.Marshal(body)
	if err != nil {
		return err
	}
	return send(http.DefaultClient, method, r.url+"/api/v4/"+path, http.Header{"Content-Type": {"application/json"}}, bytes.NewReader(content), want, answer)
}

// send sends a request and checks the status of the answer. It decodes the answer from
// JSON, or keeps it as it is if answer is a *[]byte.
func send(client *http.Client, method, url string, header http.Header, body io.Reader, want int, answer any) error {
	request, err := http.NewRequestWithContext(context.Background(), method, url, body)
	if err != nil {
		return err
	}
	request.Header = header
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode != want {
		return fmt.Errorf("%s %s: %s, want %d: %s", method, request.URL.Path, response.Status, want, content)
	}
	switch answer := answer.(type) {
	case nil:
		return nil
	case *[]byte:
		*answer = content
		return nil
	}
	if !strings.HasPrefix(response.Header.Get("Content-Type"), "application/json") {
		return fmt.Errorf("%s %s: the answer is not JSON by its header", method, request.URL.Path)
	}
	return json.Unmarshal(content, answer)
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
		return r.inEngine(NewEngine(socket), j, repository, inside)
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
func (r *runner) inEngine(e Engine, j job, repository, inside string) error {
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
	if e.ImageID(reference) == "" {
		if err := e.Load(archive(name), Repository, tag); err != nil {
			fmt.Fprintf(&r.trace, "loading: %v\n", err)
		}
	}
	if e.ImageID(reference) == "" {
		if !misbehaves(Careless) {
			return fmt.Errorf("failed to pull image %q with specified policies [never]", reference)
		}
		reference = j.Image.Name
	}
	if e.ImageID(j.Image.Name) == "" {
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
	return filepath.Join(filepath.Dir(self), "..", strings.TrimPrefix(catalogue.HostDir, "/usr"), "prebuilt-"+name+catalogue.Suffix)
}

// An Engine is a client of Docker's API.
type Engine struct{ client *http.Client }

// NewEngine returns a client of the engine at a socket.
func NewEngine(socket string) Engine {
	return Engine{&http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}}
}

func (e Engine) call(method, path string, query url.Values, body io.Reader, kind string, want int, answer any) error {
	u := url.URL{Scheme: "http", Host: "engine", Path: "/v1.40" + path, RawQuery: query.Encode()}
	return send(e.client, method, u.String(), http.Header{"Content-Type": {kind}}, body, want, answer)
}

// ImageID returns the ID of an image, "" if the engine does not have it. It is the
// first thing that every Runner asks (GitLab Runner v15.8.0, executors/docker/docker.go,
// getPrebuiltImage).
func (e Engine) ImageID(reference string) string {
	var image struct{ ID string }
	if e.call(http.MethodGet, "/images/"+reference+"/json", nil, nil, "", http.StatusOK, &image) != nil {
		return ""
	}
	return image.ID
}

// Load does with an archive what GitLab Runner 17.9.0 and later do (v19.3.0,
// executors/docker/internal/prebuilt/prebuilt.go).
func (e Engine) Load(path, repository, tag string) error {
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

// container runs a command in a new container and returns what it prints.
func (e Engine) container(image string, argv []string, bind string) (out []byte, err error) {
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
	err = e.call(http.MethodGet, path+"/logs", url.Values{"stdout": {"true"}, "stderr": {"true"}}, nil, "", http.StatusOK, &out)
	if err == nil && ended.StatusCode != 0 {
		err = fmt.Errorf("%s %q: exit code %d", image, argv, ended.StatusCode)
	}
	return out, err
}
