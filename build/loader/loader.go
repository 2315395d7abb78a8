// Package loader puts the helper images that are installed on a host into its
// container engines, so that GitLab Runner finds them before the first job.
//
// Its rules:
//
//   - A target is one engine, run as one user. For users other than the caller that is
//     podman, and each has a separate store. Nothing is left behind in their sessions.
//   - The content of a store decides (image ID, or diff IDs and config), not its tags.
//     An image that the loader did not load keeps its tag.
//   - Values from a record, a configuration or an engine are validated before they are
//     used, and control characters in them never reach the terminal.
//   - What cannot be found out is reported as unknown, never as present.
//   - Engines get a plain tar on standard input, which every version accepts.
//   - Only prune removes images, and it never uses force.
package loader

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode"
)

// apiVersion is the version of the command and of the capability that the
// packages of images require.
const apiVersion = 2

// Exit statuses; those from 64 on have the meaning of sysexits.h where it has one.
const (
	exitOK       = 0
	exitEngine   = 1  // an engine refused
	exitUsage    = 64 // wrong option or argument
	exitDataErr  = 65 // an archive or its record is damaged
	exitNoInput  = 66 // no archive is installed
	exitNoUser   = 67 // no such user
	exitNoEngine = 69 // no engine is installed
	exitUnfit    = 72 // archives are installed, but none for this host
	exitNoSpace  = 73 // not enough space
	exitTempFail = 75 // try again: an engine is not up, another loader is running
	exitForeign  = 76 // another image has the tag
	exitNoPerm   = 77 // only root may do this
	exitConfig   = 78 // the configuration is wrong
)

const usage = `Usage: gitlab-runner-helper-images COMMAND [OPTION]...

  load     put the archives of this host's architecture into the engines
             [--engine auto|podman|docker] [--user USER] [--all] [--helper GLOB,...] [--dry-run] [--replace ID]
  status   which image GitLab Runner will ask for, and what the engines have
             [--engine auto|podman|docker] [--user USER] [--all] [--helper GLOB,...] [--json]
  verify   compare the archives with their records
             [--helper GLOB,...]
  prune    remove superseded images that load has put there and nothing uses
             [--engine auto|podman|docker] [--user USER] [--dry-run]

Every command takes --config FILE (default /etc/gitlab-runner/helper-images.conf).
Exit status: 0 all is well, 75 try again later, others as in gitlab-runner-helper-images(8).
`

// A failure is an error with the exit status that it leads to.
type failure struct {
	status int
	err    error
}

func (f failure) Error() string { return f.err.Error() }

func (f failure) Unwrap() error { return f.err }

func failf(status int, format string, args ...any) error {
	return failure{status, fmt.Errorf(format, args...)}
}

// statusOf returns the exit status of an error: that of the failure in it,
// "no space" for a full disk, and otherwise the one given.
func statusOf(err error, otherwise int) int {
	var f failure
	switch {
	case errors.As(err, &f):
		return f.status
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return exitNoSpace
	}
	return otherwise
}

// A Process is what the loader gets from the process that it runs in.
type Process struct {
	Args           []string // without the program's name
	Environ        []string
	Stdout, Stderr io.Writer
}

// Main runs one command until it ends or a signal ends it, and returns the exit status.
func Main(p Process) int {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM)
	defer signal.Stop(signals)
	go func() {
		if received, ok := (<-signals).(syscall.Signal); ok {
			cancel(failf(128+int(received), "ended by signal: %s", received))
		}
	}()
	syscall.Umask(0o022)
	closeOnExec()
	return newRun(p).main(ctx)
}

// closeOnExec keeps descriptors that this process was started with from the
// programs that it runs. Go's own are closed anyway.
func closeOnExec() {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return // no /proc, as in some chroots
	}
	for _, entry := range entries {
		if fd, err := strconv.Atoi(entry.Name()); err == nil && fd > 2 {
			syscall.CloseOnExec(fd)
		}
	}
}

// A run is one run of a command.
type run struct {
	Process
	options
	settings
	me account

	// Limits of a call to an engine, and of waiting for another loader.
	askLimit, loadLimit, lockLimit time.Duration
	root                           string // prefix of system files; "" but in tests
	uid                            int

	result            int      // the exit status so far
	locked            *os.File // which keeps other loaders out
	images, temporary *journal // the state: images that were loaded, and directories in use

	records  []record
	damaged  []error          // of records
	unlisted []string         // archives without a record
	verdicts map[string]error // of archives that were read through
}

func newRun(p Process) *run {
	return &run{Process: p, uid: os.Geteuid(), askLimit: time.Minute, loadLimit: 2 * time.Minute, lockLimit: 4 * time.Minute, verdicts: map[string]error{}}
}

func (r *run) main(ctx context.Context) int {
	err := r.parse()
	if err == nil && r.command == nil {
		return r.result
	}
	if err == nil {
		err = r.configure(ctx)
	}
	if err == nil {
		err = r.command(ctx)
		if cause := context.Cause(ctx); cause != nil {
			err, r.result = cause, 0
		}
	}
	if err != nil {
		for line := range strings.SplitSeq(err.Error(), "\n") {
			r.warn("gitlab-runner-helper-images: %s", line)
		}
		r.note(statusOf(err, exitEngine))
	}
	return r.result
}

// note remembers why this run will not exit 0: the first reason that stays,
// and exitTempFail only if there is no other.
func (r *run) note(status int) {
	if r.result == exitOK || r.result == exitTempFail && status != exitOK {
		r.result = status
	}
}

// say prints one line of the result.
func (r *run) say(format string, args ...any) {
	fmt.Fprintln(r.Stdout, visible(fmt.Sprintf(format, args...)))
}

// warn prints one line to standard error.
func (r *run) warn(format string, args ...any) {
	fmt.Fprintln(r.Stderr, visible(fmt.Sprintf(format, args...)))
}

// refuse prints why something was not done and notes the exit status.
func (r *run) refuse(status int, format string, args ...any) {
	r.note(status)
	out := r.Stdout
	if r.json {
		out = r.Stderr
	}
	fmt.Fprintln(out, visible(fmt.Sprintf(format, args...)))
}

// visible replaces what could control a terminal: control characters, and
// formatting characters that reorder text.
func visible(s string) string {
	return strings.Map(func(c rune) rune {
		if unicode.IsControl(c) || unicode.Is(unicode.Cf, c) || c == '\u2028' || c == '\u2029' {
			return '\ufffd'
		}
		return c
	}, s)
}

// getenv returns the value of a variable of the process.
func (r *run) getenv(name string) string {
	for _, entry := range slices.Backward(r.Environ) {
		if value, ok := strings.CutPrefix(entry, name+"="); ok {
			return value
		}
	}
	return ""
}

// path returns the path of a system file.
func (r *run) path(name string) string { return filepath.Join("/", r.root, name) }
