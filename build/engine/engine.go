// Package engine runs container engines, podman and Docker, each with its own image
// store. It uses them by command and through the Docker-compatible API on a unix socket.
//
// It never touches the host's images, containers and daemons. An [Instance] has its own
// image store, its own socket and, as root, its own mount, process and network
// namespaces. So nothing is left when it is closed or its parent is killed, and no image
// can come from a registry. The package does not judge images; package verify does.
package engine

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A Kind is an engine and how it runs.
type Kind string

// The kinds of engine.
const (
	PodmanRootful  Kind = "podman-rootful"  // needs root
	PodmanRootless Kind = "podman-rootless" // as root: run as the user nobody
	Docker         Kind = "docker"          // needs root
)

// Kinds lists every kind, in the order in which reports show them.
func Kinds() []Kind { return []Kind{PodmanRootful, PodmanRootless, Docker} }

// An Engine is an installed engine.
type Engine struct {
	Kind    Kind
	Version string // 4.3.1, 20.10.24+dfsg1

	command string // path of podman or docker, what a person types
	daemon  string // path of dockerd; empty for podman, which is its own daemon
}

func (e Engine) String() string { return fmt.Sprintf("%s %s", e.Kind, e.Version) }

// Before reports whether e is older than version (dotted numbers).
func (e Engine) Before(version string) bool {
	return slices.Compare(numbers(e.Version), numbers(version)) < 0
}

func numbers(version string) []int {
	var ns []int
	for s := range strings.SplitSeq(regexp.MustCompile(`^[0-9.]*`).FindString(version), ".") {
		n, _ := strconv.Atoi(s) // the pattern matches only digits
		ns = append(ns, n)
	}
	return ns
}

// An Absent engine is one that cannot run here.
type Absent struct {
	Kind Kind
	Why  string
}

// Find returns the engines that this user can run here, and for each other kind the
// reason why not. The words of wanted are kinds, or podman for both of its kinds, one of
// which must be found. An unknown word is an error, and so is a wanted engine that is
// absent. Without wanted, Find looks for every kind.
func Find(ctx context.Context, wanted []string) (found []Engine, absent []Absent, err error) {
	var errs []error
	kinds := map[Kind]bool{}
	for _, word := range wanted {
		named, err := kindsOf(word)
		errs = append(errs, err)
		for _, k := range named {
			kinds[k] = true
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, nil, err
	}
	for _, k := range Kinds() {
		if len(wanted) > 0 && !kinds[k] {
			absent = append(absent, Absent{k, "not asked for"})
			continue
		}
		e, err := find(ctx, k)
		if err != nil {
			absent = append(absent, Absent{k, err.Error()})
			continue
		}
		found = append(found, e)
	}
	return found, absent, Missing(wanted, found, absent)
}

// Missing returns an error that names every word of wanted for which no engine was
// found, with the reasons in absent.
func Missing(wanted []string, found []Engine, absent []Absent) error {
	var errs []error
	for _, word := range wanted {
		kinds, err := kindsOf(word)
		if err != nil || slices.ContainsFunc(found, func(e Engine) bool { return slices.Contains(kinds, e.Kind) }) {
			errs = append(errs, err)
			continue
		}
		for _, a := range absent {
			if slices.Contains(kinds, a.Kind) {
				errs = append(errs, fmt.Errorf("engine %s: %s", a.Kind, a.Why))
			}
		}
	}
	return errors.Join(errs...)
}

func kindsOf(word string) ([]Kind, error) {
	if word == "podman" {
		return []Kind{PodmanRootful, PodmanRootless}, nil
	}
	if !slices.Contains(Kinds(), Kind(word)) {
		return nil, fmt.Errorf("engine %q is unknown; want podman, %s, %s or %s", word, PodmanRootful, PodmanRootless, Docker)
	}
	return []Kind{Kind(word)}, nil
}

// find looks for one kind. Its error says why that kind cannot run here.
func find(ctx context.Context, k Kind) (Engine, error) {
	if runtime.GOOS != "linux" {
		return Engine{}, fmt.Errorf("needs Linux, this is %s", runtime.GOOS)
	}
	e := Engine{Kind: k}
	root := os.Geteuid() == 0
	if !root && k != PodmanRootless {
		return Engine{}, errors.New("needs root")
	}
	needs := []string{"podman"}
	switch k {
	case Docker:
		needs = []string{"docker", "dockerd"}
	case PodmanRootless:
		// podman maps a range of user IDs into the store through newuidmap (shadow; Debian's uidmap).
		needs = append(needs, "newuidmap", "newgidmap")
	}
	if root {
		needs = append(needs, "nsenter", "setpriv")
	}
	paths := map[string]string{}
	for _, program := range needs {
		path, err := exec.LookPath(program)
		if err != nil {
			return Engine{}, fmt.Errorf("%s is not installed", program)
		}
		paths[program] = path
	}
	e.command, e.daemon = paths[needs[0]], paths["dockerd"]

	// Outside of a session podman makes directories below TMPDIR, even for --version.
	dir, err := os.MkdirTemp("", dirPattern)
	if err != nil {
		return Engine{}, err
	}
	defer os.RemoveAll(dir)
	ctx, cancel := limit(ctx, callLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, cmp.Or(e.daemon, e.command), "--version")
	cmd.Env = environment(dir, dir, dir)
	out, err := output(ctx, cmd)
	if err != nil {
		return Engine{}, err
	}
	if e.Version = versionIn(out); e.Version == "" {
		return Engine{}, fmt.Errorf("%s --version: no version in %q", cmd.Path, out)
	}
	return e, nil
}

// versionIn returns the version in "podman version 4.3.1" or
// "Docker version 20.10.24+dfsg1, build 5d6db84".
func versionIn(text string) string {
	return regexp.MustCompile(`[0-9]+(\.[0-9]+)+[^\s,]*`).FindString(text)
}

// environment returns the environment of an engine's programs: the directories, and of
// this process's variables only PATH. Others, such as CONTAINER_HOST, DOCKER_HOST or
// STORAGE_DRIVER, lead to the host's engines.
func environment(home, tmp, run string) []string {
	env := slices.DeleteFunc(new(exec.Cmd).Environ(), func(s string) bool { return !strings.HasPrefix(s, "PATH=") })
	return append(env, "HOME="+home, "TMPDIR="+tmp, "XDG_RUNTIME_DIR="+run)
}

// Time limits: of a call that may transfer or remove files, and of other steps. On a
// busy machine podman needed more than a minute to remove an image.
const (
	imageLimit = 10 * time.Minute
	callLimit  = time.Minute
)

func limit(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, d, fmt.Errorf("no answer within %s", d))
}

// output runs cmd and returns what it prints. Its error includes stderr.
func output(ctx context.Context, cmd *exec.Cmd) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.WaitDelay = time.Second // a grandchild may hold the pipes after cmd was killed
	if err := cmd.Run(); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		if text := strings.TrimSpace(stderr.String()); text != "" {
			err = fmt.Errorf("%w: %s", err, text)
		}
		return "", err
	}
	return stdout.String(), nil
}
