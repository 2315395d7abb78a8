package job

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"pretag/build/catalogue"
)

// A Program is an installed gitlab-runner.
type Program struct {
	Path     string
	Version  string // 17.9.0, "development version"
	Revision string // c4cbe9dd, HEAD
}

// Look asks the program at path for its version.
func Look(ctx context.Context, path string) (Program, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, time.Minute, errors.New("no answer within a minute"))
	defer cancel()
	cmd := exec.CommandContext(ctx, path, "--version")
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return Program{}, fmt.Errorf("%s --version: %w", path, err)
	}
	// GitLab Runner v15.8.0 to v19.3.0, common/version.go, Extended
	found := regexp.MustCompile(`(?m)^Version: +(.+)\nGit revision: *(.*)$`).FindSubmatch(out)
	if found == nil {
		return Program{}, fmt.Errorf("%s --version: no version and revision in %q: not a GitLab Runner", path, out)
	}
	return Program{path, string(found[1]), string(found[2])}, nil
}

// A Host is the engine that a runner uses, and how a program is run next to it.
type Host interface {
	// Socket is the path of the engine's API.
	Socket() string
	// Command prepares a program that runs as the engine's user, in its own process
	// group, sees the engine's files and reaches servers on loopback.
	Command(ctx context.Context, argv ...string) *exec.Cmd
	// Give hands a directory and everything in it to the engine's user.
	Give(dir string) error
}

// A Runner is a gitlab-runner program in a private directory. It finds helper
// image archives nowhere but there: it looks relative to its executable and to
// its working directory (GitLab Runner v17.9.0, executors/docker/internal/prebuilt/prebuilt.go).
type Runner struct {
	host Host
	dir  string
}

// Install puts the program into dir, which must be empty and visible to host.
func Install(p Program, host Host, dir string) (Runner, error) {
	r := Runner{host, dir}
	for _, dir := range []string{filepath.Join(dir, "bin"), r.archives()} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return r, err
		}
	}
	path, err := filepath.EvalSymlinks(p.Path) // a link would be resolved by the runner itself
	if err != nil {
		return r, err
	}
	return r, share(path, filepath.Join(dir, "bin", "gitlab-runner"), 0o755)
}

// archives is the directory in which the runner looks for archives, as it does in
// catalogue.HostDir if its executable is in /usr/bin.
func (r Runner) archives() string {
	return filepath.Join(r.dir, strings.TrimPrefix(catalogue.HostDir, "/usr"))
}

// Offer puts the archive where the runner looks, under the name that it looks up.
func (r Runner) Offer(archive, name string) error {
	return share(archive, filepath.Join(r.archives(), name), 0o644)
}

// Withdraw removes every archive that was offered.
func (r Runner) Withdraw() error {
	return errors.Join(os.RemoveAll(r.archives()), os.Mkdir(r.archives(), 0o755))
}

// share makes a file appear under another name, with a hard link if that gives
// every user what mode asks for, else as a copy.
func share(from, to string, mode os.FileMode) error {
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	if info.Mode().Perm()&mode == mode && os.Link(from, to) == nil {
		return nil
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Chmod(mode), out.Close())
}

// Settings are what a job needs to know of the images.
type Settings struct {
	Image    string // that the script runs in; it has a shell and is in the engine
	Flavor   string // of the helper image; empty for the runner's default
	Shell    string // empty or pwsh
	Concrete bool   // run every step through the helper program (GitLab Runner 18.11, FF_CONCRETE)

	// NoNetwork gives no network to containers for which the runner chooses none.
	NoNetwork bool
}

const (
	// jobLimit is the time for one job. A job takes 10 to 40 s on two busy CPUs;
	// the runner's loading of an archive is part of it.
	jobLimit = 10 * time.Minute
	// stopLimit is the time for the runner to end after its job.
	stopLimit = time.Minute
	// wordFile is the repository's only file. It holds a word that is nowhere else.
	wordFile = "word"
)

// Run has the runner do one job: clone a repository from a read-only mount,
// restore a cache, print a word that only the repository holds, save the cache.
// The job has worked if the outcome's state is success and said is true: the
// word is in the trace. An error means that the job could not be offered.
func (r Runner) Run(ctx context.Context, s Settings) (outcome Outcome, said bool, err error) {
	random := make([]byte, 16)
	rand.Read(random) // never fails
	word := "word-" + hex.EncodeToString(random)

	dir, err := os.MkdirTemp(r.dir, "job-")
	if err != nil {
		return outcome, false, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	repository := filepath.Join(dir, "repository.git")
	commit, err := writeRepository(repository, wordFile, []byte(word+"\n"))
	if err != nil {
		return outcome, false, err
	}
	coordinator, err := serve(ctx, Job{
		Image: s.Image, Repository: "file://" + mounted, Commit: commit,
		// The script does not spell the word, as the trace repeats the script.
		Script: []string{"cat " + wordFile, "cp " + wordFile + " " + cachedFile}, CachePath: cachedFile,
	})
	if err != nil {
		return outcome, false, err
	}
	defer coordinator.close()
	socket := r.host.Socket()
	if s.NoNetwork {
		socket = filepath.Join(dir, "engine")
		proxy, err := withoutNetwork(ctx, r.host.Socket(), socket)
		if err != nil {
			return outcome, false, err
		}
		defer proxy.Close()
	}
	err = errors.Join(
		writeFile(filepath.Join(dir, "gitconfig"), []byte("[safe]\n\tdirectory = *\n")),
		writeFile(filepath.Join(dir, "config.toml"), s.config(coordinator.url, socket, dir)),
		os.Mkdir(filepath.Join(dir, "work"), 0o755),
		r.host.Give(dir),
	)
	if err != nil {
		return outcome, false, err
	}
	if err := r.run(ctx, coordinator, dir); err != nil {
		return coordinator.outcome(), false, err
	}
	outcome = coordinator.outcome()
	return outcome, strings.Contains(outcome.Trace, word), nil
}

const (
	mounted    = "/pretag/verify.git" // the repository, inside containers
	cachedFile = "cached"
)

// config returns the runner's config.toml. An empty value there means the default.
func (s Settings) config(url, socket, dir string) []byte {
	config := fmt.Appendf(nil, `concurrent = 1
check_interval = 1
[[runners]]
name = "pretag verify"
url = %q
token = %q
executor = "docker"
shell = %q
[runners.docker]
host = %q
image = %q
pull_policy = "never"
network_mode = "none"
helper_image_flavor = %q
`, url, runnerToken, s.Shell, "unix://"+socket, s.Image, s.Flavor)
	// The repository may belong to a user that the image does not run as.
	config = fmt.Appendf(config, "volumes = [\"/cache\", %q, %q]\n",
		filepath.Join(dir, "repository.git")+":"+mounted+":ro", filepath.Join(dir, "gitconfig")+":/etc/gitconfig:ro")
	if s.Concrete {
		config = append(config, "[runners.feature_flags]\nFF_CONCRETE = true\n"...)
	}
	return config
}

// supervise runs a program until it ends. A line on standard input is the name
// of a signal for it; the end of standard input asks it to terminate, so that it
// does not outlive a pretag that was killed.
const supervise = `exec 3<&0
"$@" </dev/null &
pid=$!
{ read -r signal <&3 || signal=TERM; kill -s "$signal" $pid; } 2>/dev/null &
wait $pid
status=$?
kill $! 2>/dev/null
exit $status
`

// run runs the runner until the job has ended, and waits for the runner to clean up.
func (r Runner) run(ctx context.Context, c *coordinator, dir string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, jobLimit, fmt.Errorf("no end of the job within %s", jobLimit))
	defer cancel()
	// The command is older than 15.8.0 and does not change up to 19.3.0 (commands/multi.go).
	cmd := r.host.Command(ctx, "sh", "-c", supervise, "sh",
		filepath.Join(r.dir, "bin", "gitlab-runner"), "run",
		"--config", filepath.Join(dir, "config.toml"), "--working-directory", filepath.Join(dir, "work"))
	cmd.Stdout, cmd.Stderr = &c.log, &c.log
	cmd.WaitDelay = time.Second
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()

	select {
	case <-c.decided:
	case err := <-ended:
		return errors.Join(errors.New("gitlab-runner ended before its job did"), err)
	case <-ctx.Done(): // the command is killed
		<-ended
		return context.Cause(ctx)
	}
	// QUIT lets the runner finish: it still removes containers (commands/multi.go).
	if _, err := io.WriteString(stdin, "QUIT\n"); err != nil {
		return err
	}
	select {
	case <-ended: // how does not matter, the job has its state
		return nil
	case <-ctx.Done():
		<-ended
		return context.Cause(ctx)
	case <-time.After(stopLimit):
		cancel()
		<-ended
		return fmt.Errorf("gitlab-runner is still running %s after its job", stopLimit)
	}
}
