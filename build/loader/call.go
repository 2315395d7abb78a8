package loader

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
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
	own := cmp.Or(r.getenv("PATH"), "/usr/bin:/bin")
	if r.root != "" {
		return own
	}
	return own + ":" + programDirs
}

// env returns the environment of programs that run as a user. Docker's contexts are
// not GitLab Runner's.
func (r *run) env(user account) []string {
	var env, names []string
	if user.uid == r.me.uid {
		user = r.me                                              // HOME may not be the one of the database
		env = append(slices.Clone(r.Environ), "DOCKER_CONTEXT=") // of equal names the last one counts
		names = []string{"TMPDIR", "DOCKER_HOST", "CONTAINERS_STORAGE_CONF"}
	} else {
		env = []string{"USER=" + user.name, "LOGNAME=" + user.name}
		names = []string{"TMPDIR"}
	}
	for _, name := range names {
		if value := r.environment[name]; value != "" {
			env = append(env, name+"="+value)
		}
	}
	return append(env, "HOME="+user.home, "PATH="+r.searchPath(), "LC_ALL=C")
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
	user    account
	program string
	args    []string
	env     []string      // in addition to the user's
	stdin   io.Reader     // nil for none
	limit   time.Duration // 0 for askLimit
}

// A callError says why a call failed.
type callError struct {
	words    string // what the program said last, or why it was ended
	timedOut bool
}

func (e *callError) Error() string { return e.words }

// do runs a program and returns what it wrote to standard output. The program
// has no terminal, only the three standard descriptors, and a time limit; it ends
// with this process.
func (r *run) do(ctx context.Context, c call) ([]byte, error) {
	path := r.find(c.program)
	if path == "" {
		return nil, fmt.Errorf("%s is not installed", c.program)
	}
	limit := cmp.Or(c.limit, r.askLimit)
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	cmd := exec.CommandContext(limited, path, c.args...)
	cmd.Env = append(r.env(c.user), c.env...)
	cmd.Dir = "/" // other users may not enter the caller's directory
	cmd.Stdin = c.stdin
	stdout, stderr := &head{left: maxAnswer}, &head{left: maxAnswer}
	cmd.Stdout, cmd.Stderr = stdout, stderr
	// A new session has no controlling terminal, so nobody can push keystrokes into
	// it (TIOCSTI), and its process group is that of all the program's processes.
	cmd.SysProcAttr = newSession()
	if c.user.uid != r.me.uid {
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
		return nil, &callError{words: fmt.Sprintf("no answer within %s", limit), timedOut: true}
	case errors.Is(err, exec.ErrWaitDelay):
		err = nil // the program has ended; a process that it left behind holds a pipe
	}
	if err == nil && stdout.left < 0 {
		return nil, &callError{words: fmt.Sprintf("its output has more than %d bytes", maxAnswer)}
	}
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		err = &callError{words: cmp.Or(lastWords(stderr.data.Bytes()), lastWords(stdout.data.Bytes()), exit.Error())}
	case err != nil:
		return nil, &callError{words: err.Error()}
	}
	return stdout.data.Bytes(), err
}

// as runs a program as a user.
func (r *run) as(ctx context.Context, user account, program string, args ...string) ([]byte, error) {
	return r.do(ctx, call{user: user, program: program, args: args})
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

// lastWords returns the line in which a program says why it failed: the last one that
// is not empty. podman load lists a reason for each format that it has tried.
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
	words := []rune(visible(strings.TrimSpace(cmp.Or(archive, last))))
	return string(words[:min(len(words), 300)])
}
