package loader

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// maxAnswer bounds what a program may answer, in bytes.
const maxAnswer = 16 << 20

// programDirs are searched after PATH: systemd's default lacks the last one,
// where snap packages put docker.
const programDirs = "/usr/sbin:/sbin:/snap/bin"

// searchPath returns PATH for all programs.
func (r *run) searchPath() string {
	own := r.getenv("PATH")
	if own == "" {
		own = "/usr/bin:/bin"
	}
	if r.root != "" {
		return own
	}
	return own + ":" + programDirs
}

// find returns the path of a program, "" if it is not installed.
func (r *run) find(program string) string {
	for _, dir := range filepath.SplitList(r.searchPath()) {
		if !filepath.IsAbs(dir) {
			continue // nothing is run from the caller's directory
		}
		if path, err := exec.LookPath(filepath.Join(dir, program)); err == nil {
			return path
		}
	}
	return ""
}

// A call is one run of a program.
type call struct {
	program string // its path
	args    []string
	env     []string
	user    *account  // whose credentials it runs with; nil for this process's
	stdin   io.Reader // nil for none
	limit   time.Duration
}

// A callError says why a call failed.
type callError struct {
	words    string // the program's last words, or why it was ended
	timedOut bool
}

func (e *callError) Error() string { return e.words }

// do runs a program and returns what it wrote to standard output. The program
// has no terminal, no descriptors but the three standard ones, and a time limit;
// it ends with this process.
func (r *run) do(ctx context.Context, c call) ([]byte, error) {
	limited, cancel := context.WithTimeout(ctx, c.limit)
	defer cancel()
	cmd := exec.CommandContext(limited, c.program, c.args...)
	cmd.Env = c.env
	cmd.Dir = "/" // other users may not enter the caller's directory
	cmd.Stdin = c.stdin
	stdout, stderr := &head{left: maxAnswer}, &tail{}
	cmd.Stdout, cmd.Stderr = stdout, stderr
	// A new session has no controlling terminal, so nobody can push keystrokes into
	// it (TIOCSTI), and its process group is that of all the program's processes.
	cmd.SysProcAttr = newSession()
	if c.user != nil {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: c.user.uid, Gid: c.user.gid, Groups: c.user.groups}
	}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 3 * time.Second // then SIGKILL, and pipes that others hold open are closed
	err := cmd.Run()
	if cmd.Process != nil && limited.Err() != nil {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // the rest of the session, if any
	}
	switch {
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case limited.Err() != nil:
		return nil, &callError{words: fmt.Sprintf("no answer within %s", c.limit), timedOut: true}
	case errors.Is(err, exec.ErrWaitDelay):
		err = nil // it has ended; a process that it left behind holds a pipe
	}
	if err == nil && stdout.left < 0 {
		return nil, &callError{words: fmt.Sprintf("answers more than %d bytes", maxAnswer)}
	}
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		words := lastWords(stderr.data)
		if words == "" {
			words = lastWords(stdout.data.Bytes())
		}
		if words == "" {
			words = exit.Error()
		}
		return stdout.data.Bytes(), &callError{words: words}
	case err != nil:
		return nil, &callError{words: err.Error()}
	}
	return stdout.data.Bytes(), nil
}

// head keeps the first bytes written to it; left is negative if there were more.
type head struct {
	data bytes.Buffer
	left int
}

func (h *head) Write(p []byte) (int, error) {
	h.data.Write(p[:max(0, min(len(p), h.left))])
	if h.left -= len(p); h.left < 0 {
		h.left = -1
	}
	return len(p), nil
}

// tail keeps the last bytes written to it.
type tail struct{ data []byte }

func (t *tail) Write(p []byte) (int, error) {
	t.data = append(t.data, p...)
	if extra := len(t.data) - 64<<10; extra > 0 {
		t.data = bytes.Clone(t.data[extra:])
	}
	return len(p), nil
}

// lastWords returns the line in which an engine says why: the last one that is
// not empty. podman load lists a reason for each format that it has tried.
func lastWords(output []byte) string {
	last, archive := "", ""
	for line := range strings.Lines(string(output)) {
		if strings.HasPrefix(line, " * docker-archive:") {
			archive = line
		}
		if strings.TrimSpace(line) != "" {
			last = line
		}
	}
	if archive != "" {
		last = archive
	}
	words := []rune(visible(strings.TrimSpace(last)))
	return string(words[:min(len(words), 300)])
}
