package loader

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"pretag/build/catalogue"
)

// options are what the command line says.
type options struct {
	name        string // of the command
	command     func(context.Context) error
	config      string
	configGiven bool
	engine      string
	user        string
	helper      string
	replace     string
	all         bool
	dryRun      bool
	json        bool
}

// settings are what the configuration says, with defaults.
type settings struct {
	engineWord   string   // auto, podman, docker
	userNames    []string // whose podman is served
	leftOut      string   // why gitlab-runner is not served, "" if it is
	globs        []string // of helper names
	archives     string
	state        string
	pruneAfter   bool
	runnerConfig []string          // paths of config.toml
	environment  map[string]string // DOCKER_HOST, CONTAINERS_STORAGE_CONF, TMPDIR: "" if unset
}

// maxConfig bounds a configuration file, in bytes.
const maxConfig = 1 << 20

// parse reads the command line. It leaves the command nil if there is nothing more to do.
func (r *run) parse() error {
	r.config = "/etc/gitlab-runner/helper-images.conf"
	args := r.Args
	if len(args) > 0 {
		r.name, args = args[0], args[1:]
	}
	switch {
	case slices.Contains(r.Args, "--help") || slices.Contains(r.Args, "-h"):
		fmt.Fprint(r.Stdout, usage)
		return nil
	case r.name == "--version":
		fmt.Fprintf(r.Stdout, "gitlab-runner-helper-images %d\n", apiVersion)
		return nil
	}
	var known string
	switch r.name {
	case "load":
		r.command, known = r.load, "--config --engine --user --all --helper --dry-run --replace"
	case "status":
		r.command, known = r.status, "--config --engine --user --all --helper --json"
	case "verify":
		r.command, known = r.verify, "--config --helper"
	case "prune":
		r.command, known = r.prune, "--config --engine --user --dry-run"
	default:
		fmt.Fprint(r.Stderr, usage)
		if r.name == "" {
			r.note(exitUsage)
			return nil
		}
		return failf(exitUsage, "unknown command %q: want load, status, verify or prune, then its options", r.name)
	}
	texts := map[string]*string{
		"--config": &r.config, "--engine": &r.engine, "--user": &r.user, "--helper": &r.helper, "--replace": &r.replace,
	}
	flags := map[string]*bool{"--all": &r.all, "--dry-run": &r.dryRun, "--json": &r.json}
	for len(args) > 0 {
		name, value, hasValue := strings.Cut(args[0], "=")
		args = args[1:]
		if !slices.Contains(strings.Fields(known), name) {
			return failf(exitUsage, "%s: unknown option %q (--help lists them)", r.name, name)
		}
		if flag, ok := flags[name]; ok {
			if hasValue {
				return failf(exitUsage, "%s takes no argument", name)
			}
			*flag = true
			continue
		}
		if !hasValue && len(args) > 0 {
			value, args = args[0], args[1:]
		}
		if value == "" {
			return failf(exitUsage, "%s needs an argument", name)
		}
		*texts[name] = value
		r.configGiven = r.configGiven || name == "--config"
	}
	if r.replace != "" && !regexp.MustCompile(`^(sha256:)?[0-9a-f]{12,64}$`).MatchString(r.replace) {
		return failf(exitUsage, "--replace %q: want the ID of the image to be replaced, 12 hex digits at least", r.replace)
	}
	r.replace = strings.TrimPrefix(r.replace, "sha256:")
	return nil
}

// openRegular opens a regular file. It does not wait for a writer where path names a FIFO.
func openRegular(path string) (f *os.File, size int64, err error) {
	if f, err = os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0); err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s: not a regular file", path)
	}
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, info.Size(), nil
}

// readSmall returns the content of a regular file of at most limit bytes.
func readSmall(path string, limit int64) ([]byte, error) {
	f, _, err := openRegular(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("%s: larger than %d bytes", path, limit)
	}
	return data, err
}

// readConf reads KEY=value lines. It is not a shell script: a typo is an error.
func readConf(path string) (map[string]string, error) {
	data, err := readSmall(path, maxConfig)
	if err != nil {
		return nil, err
	}
	values := map[string]string{}
	number := 0
	for line := range strings.Lines(string(data)) {
		number++
		line = strings.TrimRight(line, "\r\n")
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		if !ok || !slices.Contains([]string{
			"ENGINE", "USERS", "HELPER", "PRUNE", "ARCHIVES", "STATE", "RUNNER_CONFIG", "DOCKER_HOST", "CONTAINERS_STORAGE_CONF", "TMPDIR",
		}, key) {
			return nil, fmt.Errorf("%s: line %d: unknown setting %q", path, number, key)
		}
		if n := len(value); n >= 2 && (value[0] == '"' || value[0] == '\'') && value[n-1] == value[0] {
			value = value[1 : n-1]
		}
		if visible(value) != value {
			return nil, fmt.Errorf("%s: line %d: control characters in %s", path, number, key)
		}
		values[key] = value
	}
	return values, nil
}

// configure reads the configuration; the command line wins over it.
func (r *run) configure(ctx context.Context) error {
	values, err := readConf(r.config)
	switch {
	case err == nil:
	case !r.configGiven && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission)):
		values = map[string]string{} // other users may not enter GitLab Runner's directory
	default:
		return failure{exitConfig, err}
	}
	r.engineWord = cmp.Or(r.engine, values["ENGINE"], "auto")
	if !slices.Contains([]string{"auto", "podman", "docker"}, r.engineWord) {
		return failf(exitConfig, "engine %q: want auto, podman or docker", r.engineWord)
	}
	r.globs = strings.FieldsFunc(cmp.Or(r.helper, values["HELPER"], "*"), func(c rune) bool { return c == ',' || c == ' ' })
	for i, glob := range r.globs {
		r.globs[i] = strings.ReplaceAll(glob, "[!", "[^") // as in the shell
		if _, err := path.Match(r.globs[i], ""); err != nil {
			return failf(exitConfig, "helper %q: not a glob", glob)
		}
	}
	switch prune := cmp.Or(values["PRUNE"], "no"); prune {
	case "yes", "no":
		r.pruneAfter = prune == "yes"
	default:
		return failf(exitConfig, "%s: PRUNE=%q: want yes or no", r.config, prune)
	}
	r.environment = map[string]string{}
	for _, name := range []string{"DOCKER_HOST", "CONTAINERS_STORAGE_CONF", "TMPDIR"} {
		r.environment[name] = cmp.Or(r.getenv(name), values[name]) // the caller's own environment wins
	}
	r.archives = cmp.Or(values["ARCHIVES"], r.path(catalogue.HostDir))
	if err := r.identify(ctx); err != nil {
		return err
	}
	if r.me.uid == 0 {
		r.state = cmp.Or(values["STATE"], r.path("/var/lib/gitlab-runner-helper-images"))
		r.runnerConfig = strings.Fields(values["RUNNER_CONFIG"])
		if len(r.runnerConfig) == 0 {
			r.runnerConfig = r.discoverConfigs()
		}
		r.userNames = strings.Fields(values["USERS"])
	} else {
		// These settings are root's; a user has a state and a store of their own.
		r.state = filepath.Join(cmp.Or(r.getenv("XDG_STATE_HOME"), filepath.Join(r.me.home, ".local/state")), "gitlab-runner-helper-images")
		r.runnerConfig = []string{filepath.Join(r.me.home, ".gitlab-runner/config.toml")}
		r.userNames = []string{r.me.name}
	}
	if r.user != "" {
		r.userNames = []string{r.user}
	}
	for _, name := range r.userNames {
		if !userForm.MatchString(name) {
			return failf(exitConfig, "user %q: not a valid user name", name)
		}
	}
	for key, value := range map[string]string{"ARCHIVES": r.archives, "STATE": r.state} {
		if !filepath.IsAbs(value) {
			return failf(exitConfig, "%s=%q: want an absolute path", key, value)
		}
	}
	if r.engineWord == "docker" && r.user != "" && r.user != r.me.name {
		return failf(exitUsage, "--user is for podman: docker has one store for all")
	}
	if r.me.uid == 0 && len(r.userNames) == 0 {
		r.userNames, r.leftOut = r.defaultUsers(ctx)
	}
	return nil
}

// selected reports whether a glob of HELPER matches the helper.
func (r *run) selected(helper string) bool {
	return slices.ContainsFunc(r.globs, func(glob string) bool {
		ok, err := path.Match(glob, helper)
		return ok && err == nil
	})
}
