package engine

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// sweep does not remove a directory that is in use.
func TestSweepKeepsWhatIsInUse(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	i := Instance{Engine: Engine{Kind: Docker}}
	if err := i.makeDir(); err != nil {
		t.Fatal(err)
	}
	i.sweep()
	if _, err := os.Stat(i.dir); err != nil {
		t.Error(err)
	}
	if err := i.lock.Close(); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() != 0 {
		return // removing needs podman then
	}
	i.sweep()
	if _, err := os.Stat(i.dir); !os.IsNotExist(err) {
		t.Errorf("the directory is left: %v", err)
	}
}

func TestVersions(t *testing.T) {
	for said, want := range map[string]string{
		"podman version 4.3.1\n":                         "4.3.1",
		"Docker version 20.10.24+dfsg1, build 5d6db84\n": "20.10.24+dfsg1",
		"Docker version 28.5.2, build ecc6942\n":         "28.5.2",
		"podman version 5.0.0-dev\n":                     "5.0.0-dev",
		"Docker version dev, build HEAD":                 "",
	} {
		if got := versionIn(said); got != want {
			t.Errorf("%q: %q, want %q", said, got, want)
		}
	}
	for _, test := range []struct {
		version, other string
		want           bool
	}{
		{"4.3.1", "4.5.1", true},
		{"4.5.1", "4.5.1", false},
		{"4.10.0", "4.5.1", false},
		{"5.8.2", "4.5.1", false},
		{"20.10.24+dfsg1", "23.0", true},
		{"23.0.0", "23.0", false},
		{"28.5.2", "23.0", false},
	} {
		if got := (Engine{Version: test.version}).Before(test.other); got != test.want {
			t.Errorf("%s before %s: %v", test.version, test.other, got)
		}
	}
}

// A call that takes too long ends with the limit as its error, also when a
// grandchild holds the pipes; an error carries what the program complained of.
func TestOutput(t *testing.T) {
	tooLong := errors.New("no answer within a moment")
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	begun := filepath.Join(t.TempDir(), "begun")
	go func() { // a busy machine may start the program late
		for ; ctx.Err() == nil; time.Sleep(10 * time.Millisecond) {
			if _, err := os.Stat(begun); err == nil {
				cancel(tooLong)
			}
		}
	}()
	start := time.Now()
	_, err := output(ctx, exec.CommandContext(ctx, "sh", "-c", `echo waiting >&2; : >"$0"; sleep 30 & sleep 30`, begun))
	if !errors.Is(err, tooLong) || !strings.Contains(err.Error(), "waiting") {
		t.Errorf("got %v", err)
	}
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("took %s", took)
	}
	if _, err := output(t.Context(), exec.CommandContext(t.Context(), "sh", "-c", "echo bad >&2; exit 4")); err == nil || err.Error() != "exit status 4: bad" {
		t.Errorf("got %v", err)
	}
}

// A call to an engine that does not answer ends with the limit as the error.
func TestAPIGivesUp(t *testing.T) {
	dir := t.TempDir()
	i := Instance{dir: dir}
	i.api.Transport = &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", i.Socket())
	}}
	listener, err := net.Listen("unix", i.Socket()) // never accepts
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	tooLong := errors.New("no answer within a moment")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, tooLong)
	defer cancel()
	if _, err := i.Images(ctx); !errors.Is(err, tooLong) || !strings.HasPrefix(err.Error(), "GET /images/json: ") {
		t.Errorf("got %v", err)
	}
}
