package job

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// started is a coordinator for one job.
func started(t *testing.T) *coordinator {
	t.Helper()
	c, err := serve(t.Context(), Job{Image: "image:1", Repository: "file:///repository", Commit: strings.Repeat("a", 40), Script: []string{"true"}, CachePath: "cached"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// call makes one request as a runner does. It returns the response and its body.
func call(t *testing.T, c *coordinator, method, path, body string) (*http.Response, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, c.url+"/api/v4/"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response, string(text)
}

// A runner that follows the protocol gets one job and ends it.
func TestCoordinator(t *testing.T) {
	c := started(t)
	request := `{"token":"glrt-x","info":{"version":"17.9.0","revision":"c4cbe9dd","executor":"docker","shell":"bash"}}`
	response, text := call(t, c, "POST", "jobs/request", request)
	if response.StatusCode != http.StatusCreated || response.Header.Get("Content-Type") != "application/json" {
		t.Fatalf("request: %s", response.Status)
	}
	var got struct {
		ID      int
		Token   string
		Image   struct{ Name string }
		GitInfo struct {
			URL string `json:"repo_url"`
			SHA string
		} `json:"git_info"`
		Steps []struct {
			Name    string
			Script  []string
			Timeout int
		}
		Variables []struct{ Key, Value string }
	}
	if err := json.Unmarshal([]byte(text), &got); err != nil {
		t.Fatal(err)
	}
	if got.ID == 0 || len(got.Token) < 15 || got.Image.Name != "image:1" || got.GitInfo.URL != "file:///repository" || len(got.GitInfo.SHA) != 40 ||
		len(got.Steps) != 1 || got.Steps[0].Name != "script" || got.Steps[0].Timeout == 0 || len(got.Variables) == 0 {
		t.Errorf("job is %s", text)
	}
	if response, _ := call(t, c, "POST", "jobs/request", request); response.StatusCode != http.StatusNoContent {
		t.Errorf("second request: %s, want 204", response.Status)
	}

	for _, part := range []string{"hello", " world"} {
		if response, _ := call(t, c, "PATCH", "jobs/1/trace", part); response.StatusCode != http.StatusAccepted {
			t.Errorf("trace: %s", response.Status)
		}
	}

	select {
	case <-c.decided:
		t.Error("the job has ended before the runner reported it")
	default:
	}
	for _, state := range []string{"running", "success", "failed"} { // states after the final one are ignored
		body := fmt.Sprintf(`{"token":%q,"state":%q}`, got.Token, state)
		if response, _ := call(t, c, "PUT", "jobs/1", body); response.StatusCode != http.StatusOK {
			t.Errorf("update %s: %s", state, response.Status)
		}
	}
	<-c.decided
	outcome := c.outcome()
	want := `POST /api/v4/jobs/request: 201 job handed to runner 17.9.0 (c4cbe9dd), executor docker, shell bash
POST /api/v4/jobs/request: 204 
PATCH /api/v4/jobs/1/trace: 202 trace: 5 bytes, 5 in all
PATCH /api/v4/jobs/1/trace: 202 trace: 6 bytes, 11 in all
PUT /api/v4/jobs/1: 200 state running
PUT /api/v4/jobs/1: 200 state success
PUT /api/v4/jobs/1: 200 state failed
`
	if diff := cmp.Diff(Outcome{State: "success", Trace: "hello world", Log: want}, outcome); diff != "" {
		t.Error(diff)
	}
}

// Unexpected calls are answered and logged.
func TestCoordinatorUnexpected(t *testing.T) {
	c := started(t)
	call(t, c, "POST", "runners/verify", "{}")
	call(t, c, "POST", "jobs/request", "not JSON")
	call(t, c, "PATCH", "jobs/1/trace", strings.Repeat("x", maxTrace+1))
	call(t, c, "PUT", "jobs/1", `{"state":"failed","failure_reason":"script_failure","exit_code":3}`)
	outcome := c.outcome()
	for _, want := range []string{
		"POST /api/v4/runners/verify: 404 not a call that a job needs\n",
		"POST /api/v4/jobs/request: 201 invalid character 'o' in literal null (expecting 'u'); job handed to runner",
		"state failed, script_failure, exit code 3\n",
	} {
		if !strings.Contains(outcome.Log, want) {
			t.Errorf("the log lacks %q:\n%s", want, outcome.Log)
		}
	}
	if outcome.State != "failed" || outcome.Reason != "script_failure" || len(outcome.Trace) != maxTrace {
		t.Errorf("state %s, reason %s, %d bytes of trace", outcome.State, outcome.Reason, len(outcome.Trace))
	}
}

// A runner that logs without end does not fill the memory.
func TestLogIsBounded(t *testing.T) {
	var l log
	line := bytes.Repeat([]byte("x"), maxLog/2+1)
	for range 3 {
		if n, err := l.Write(line); n != len(line) || err != nil {
			t.Errorf("wrote %d, %v", n, err)
		}
	}
	if got := len(l.String()); got != maxLog {
		t.Errorf("the log has %d bytes, want %d", got, maxLog)
	}
}
