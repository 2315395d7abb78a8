// Package job runs one CI job with a GitLab Runner program. It plays the part of
// GitLab: a coordinator on loopback hands the job out and takes its trace, and
// the job's repository is a bare git repository in a directory. The package
// knows nothing of helper images; package verify decides what a job proves.
package job

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A Job is what the coordinator hands out.
type Job struct {
	Image      string   // reference of the image that the script runs in
	Repository string   // URL that the job's helper clones
	Commit     string   // of the branch main
	Script     []string // shell commands
	CachePath  string   // relative to the clone; restored before the script and saved after it
}

// An Outcome is how a job ended, as the runner reported it.
type Outcome struct {
	State  string // success or failed; empty if the runner reported neither
	Reason string // the runner's failure reason, such as script_failure
	Trace  string // the job's log
	Log    string // what the coordinator was asked, and what the runner program printed
}

const (
	// maxTrace bounds the trace that is kept. A helper job writes about 3 kB.
	maxTrace = 4 << 20
	// maxBody bounds one request.
	maxBody = 8 << 20
	// maxLog bounds each log that is kept.
	maxLog = 1 << 20
)

// A coordinator answers one runner: it hands out its job once. It accepts what the
// runner sends and logs every call, so that the log shows how a runner behaved.
type coordinator struct {
	job    Job
	server http.Server
	url    string
	log    log

	handed atomic.Bool

	mu      sync.Mutex
	trace   []byte
	state   string
	reason  string
	decided chan struct{} // closed when the runner reports the final state
}

// The ID of the only job, and the tokens of the job and of the runner. GitLab Runner 17.9
// to 18.1 panics on tokens shorter than their prefix and nine characters (seen in 17.9.0).
const (
	jobID       = 1
	jobToken    = "glcbt-pretag-verify-job"
	runnerToken = "glrt-pretag-verify-0001"
)

// serve starts a coordinator on a free port of loopback.
func serve(ctx context.Context, j Job) (*coordinator, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	c := &coordinator{job: j, url: "http://" + listener.Addr().String(), decided: make(chan struct{})}
	// The calls are the same from GitLab Runner 15.8.0 to 19.3.0 (network/gitlab.go).
	mux := http.NewServeMux()
	mux.HandleFunc("POST /api/v4/jobs/request", c.handOut)
	mux.HandleFunc("PATCH /api/v4/jobs/{id}/trace", c.appendTrace)
	mux.HandleFunc("PUT /api/v4/jobs/{id}", c.update)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		c.answer(w, r, http.StatusNotFound, nil, "not a call that a job needs")
	})
	c.server.Handler = http.MaxBytesHandler(mux, maxBody)
	c.server.ReadHeaderTimeout = time.Minute
	go c.server.Serve(listener) // ends with close
	return c, nil
}

// close ends the coordinator and its open connections.
func (c *coordinator) close() error { return c.server.Close() }

// outcome returns what the runner has reported so far.
func (c *coordinator) outcome() Outcome {
	c.mu.Lock()
	defer c.mu.Unlock()
	return Outcome{State: c.state, Reason: c.reason, Trace: string(c.trace), Log: c.log.String()}
}

func (c *coordinator) handOut(w http.ResponseWriter, r *http.Request) {
	var request struct {
		Info struct{ Version, Revision, Executor, Shell string }
	}
	note := decode(r, &request)
	if c.handed.Swap(true) {
		c.answer(w, r, http.StatusNoContent, nil, note)
		return
	}
	info := request.Info
	note += fmt.Sprintf(" job handed to runner %s (%s), executor %s, shell %s", info.Version, info.Revision, info.Executor, info.Shell)
	c.answer(w, r, http.StatusCreated, c.job.payload(), note)
}

// appendTrace takes the next part of the trace. What is beyond maxTrace is dropped.
func (c *coordinator) appendTrace(w http.ResponseWriter, r *http.Request) {
	part, err := io.ReadAll(r.Body)
	if err != nil {
		c.answer(w, r, http.StatusBadRequest, nil, err.Error())
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.trace = append(c.trace, part[:min(len(part), maxTrace-len(c.trace))]...)
	w.Header().Set("Job-Status", "running")
	w.Header().Set("X-GitLab-Trace-Update-Interval", "1")
	c.answer(w, r, http.StatusAccepted, nil, fmt.Sprintf("trace: %d bytes, %d in all", len(part), len(c.trace)))
}

// update takes the job's state: running is a sign of life, success and failed are final.
func (c *coordinator) update(w http.ResponseWriter, r *http.Request) {
	var update struct {
		State    string
		Reason   string `json:"failure_reason"`
		ExitCode *int   `json:"exit_code"`
	}
	note := decode(r, &update)
	c.mu.Lock()
	defer c.mu.Unlock()
	note += " state " + update.State
	if update.Reason != "" {
		note += ", " + update.Reason
	}
	if update.ExitCode != nil {
		note += fmt.Sprintf(", exit code %d", *update.ExitCode)
	}
	if (update.State == "success" || update.State == "failed") && c.state == "" {
		c.state, c.reason = update.State, update.Reason
		close(c.decided)
	}
	c.answer(w, r, http.StatusOK, nil, note)
}

// decode reads a request's JSON; the note says what was wrong with it.
func decode(r *http.Request, v any) (note string) {
	if err := json.NewDecoder(r.Body).Decode(v); err != nil {
		return err.Error() + ";"
	}
	return ""
}

// answer sends the answer and logs the call. Tokens are in headers and bodies,
// which are not logged.
func (c *coordinator) answer(w http.ResponseWriter, r *http.Request, status int, body any, note string) {
	c.log.printf("%s %s: %d %s", r.Method, r.URL.Path, status, strings.TrimSpace(note))
	if body == nil {
		w.WriteHeader(status)
		return
	}
	// Runners recognize JSON only by this header (network/client.go).
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(body); err != nil {
		c.log.printf("%s %s: %v", r.Method, r.URL.Path, err)
	}
}

// payload is the answer to jobs/request. It has every field that GitLab always
// sends, as far as runners read them (GitLab Runner v15.8.0 and v17.9.0,
// common/network.go; v19.3.0, common/spec).
func (j Job) payload() map[string]any {
	const timeout = 600 // seconds
	none := []any{}
	return map[string]any{
		"id": jobID, "token": jobToken, "allow_git_fetch": true,
		"job_info": map[string]any{
			"id": jobID, "name": "verify", "stage": "test", "project_id": 1, "project_name": "verify",
			"project_full_path": "pretag/verify", "namespace_id": 1, "root_namespace_id": 1, "time_in_queue_seconds": 0,
		},
		"git_info": map[string]any{
			"repo_url": j.Repository, "repo_object_format": "sha1", "ref": branch, "ref_type": "branch",
			"sha": j.Commit, "before_sha": strings.Repeat("0", 40), "depth": 1,
			"refspecs": []string{"+refs/heads/" + branch + ":refs/remotes/origin/" + branch},
		},
		"runner_info": map[string]any{"timeout": timeout, "runner_session_url": ""},
		"variables": []any{
			variable("CI", "true"),
			variable("CI_PROJECT_PATH", "pretag/verify"),
			variable("CI_PROJECT_ID", "1"),
			variable("CI_PIPELINE_ID", "1"),
			variable("CI_COMMIT_SHA", j.Commit),
			variable("CI_COMMIT_REF_NAME", branch),
		},
		"steps": []any{map[string]any{
			"name": "script", "script": j.Script, "timeout": timeout, "when": "on_success", "allow_failure": false,
		}},
		"image":    map[string]any{"name": j.Image},
		"services": none, "artifacts": none, "credentials": none, "dependencies": none,
		"cache": []any{map[string]any{
			"key": "verify", "untracked": false, "policy": "pull-push", "when": "on_success", "paths": []string{j.CachePath},
		}},
		"features": map[string]any{"trace_sections": true, "failure_reasons": []string{"unknown_failure", "script_failure", "runner_system_failure", "image_pull_failure"}},
	}
}

func variable(key, value string) map[string]any {
	return map[string]any{"key": key, "value": value, "public": true, "masked": false, "file": false, "raw": false}
}

// A log keeps the lines that were written to it, up to maxLog bytes.
type log struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *log) printf(format string, args ...any) {
	fmt.Fprintf(l, format+"\n", args...)
}

// Write makes the log an io.Writer. It drops what is beyond maxLog.
func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text.Write(p[:min(len(p), maxLog-l.text.Len())])
	return len(p), nil
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}
