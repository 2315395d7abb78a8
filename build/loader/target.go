package loader

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// dockerSocket is where Docker's command and GitLab Runner look if nothing says
// otherwise (moby v28, client/client_unix.go; GitLab Runner has the same client).
const dockerSocket = "/var/run/docker.sock"

// A target is one engine, run as one user.
type target struct {
	engine string // podman or docker
	user   account
	host   string // what docker is asked by --host
	named  bool   // a socket that config.toml names, and not the default
	path   string // of the engine's command
	env    []string
	other  bool // the user is not the one of this process
	dir    string
	temp   string // where podman keeps an archive while it loads it
}

// String returns the name of the target in the output.
func (t *target) String() string {
	if t.named {
		return t.host
	}
	return t.engine + "/" + t.user.name
}

// stateEngine returns the first word of the target's lines in the state.
func (t *target) stateEngine() string {
	if t.named {
		return t.host
	}
	return t.engine
}

// A refusal is a target that is not served, and why.
type refusal struct {
	name   string
	status int
	reason string
}

// A plan is what a command works on.
type plan struct {
	targets  []*target
	refusals []refusal
	notes    []string // what is left out on purpose
}

// report prints why targets are not served.
func (p plan) report(r *run) {
	for _, note := range p.notes {
		fmt.Fprintln(r.Stderr, visible(note))
	}
	for _, refusal := range p.refusals {
		r.refuse(refusal.status, "%s: %s", refusal.name, refusal.reason)
	}
}

// An endpoint is what the host of an engine means on this host.
type endpoint struct {
	podmanUID string // the socket is that of this user's podman
	socket    string // path of another unix socket
	remote    bool
}

// podmanSocket matches the sockets of podman's systemd units (podman v4.3.1,
// contrib/systemd/system/podman.socket).
var podmanSocket = regexp.MustCompile(`^(?:/var)?/run/(?:user/([0-9]+)/)?podman/podman\.sock$`)

// endpoint resolves a host as GitLab Runner does: "" is DOCKER_HOST or the
// default socket, never a context of Docker's command. podman-docker makes the
// default socket a link to podman's.
func (r *run) endpoint(host string) endpoint {
	if host == "" {
		host = r.defaultHost()
	}
	path, ok := strings.CutPrefix(host, "unix://")
	if !ok || !filepath.IsAbs(path) {
		return endpoint{remote: true}
	}
	resolved := path
	if to, err := filepath.EvalSymlinks(r.path(path)); err == nil {
		resolved = strings.TrimPrefix(to, strings.TrimSuffix(r.path("/"), "/"))
	}
	for _, candidate := range []string{path, resolved} {
		if match := podmanSocket.FindStringSubmatch(candidate); match != nil {
			uid := match[1]
			if uid == "" {
				uid = "0"
			}
			return endpoint{podmanUID: uid}
		}
	}
	return endpoint{socket: filepath.Clean(path)}
}

func (r *run) defaultHost() string {
	if host := r.environment["DOCKER_HOST"]; host != "" {
		return host
	}
	return "unix://" + dockerSocket
}

// same reports whether two hosts are the same engine.
func (r *run) same(a, b string) bool {
	if a == "" {
		a = r.defaultHost()
	}
	if b == "" {
		b = r.defaultHost()
	}
	if a == b {
		return true
	}
	x, y := r.endpoint(a), r.endpoint(b)
	if x.remote || y.remote {
		return false
	}
	if x.socket == "" || y.socket == "" {
		return x == y
	}
	first, err := os.Stat(r.path(x.socket))
	if err != nil {
		return strings.TrimPrefix(x.socket, "/var") == strings.TrimPrefix(y.socket, "/var")
	}
	second, err := os.Stat(r.path(y.socket))
	return err == nil && os.SameFile(first, second)
}

// plan lists the targets: podman of each user, Docker's default socket, and the
// unix sockets that config.toml names. Docker has one store, whatever USERS says:
// root serves it, or a user who may use it.
func (r *run) plan(ctx context.Context, in installation) plan {
	var p plan
	podman := ""
	if r.engineWord != "docker" {
		podman = r.find("podman")
	}
	docker := ""
	if r.engineWord != "podman" {
		docker = r.findDocker(ctx)
	}
	add := func(a account) {
		if podman != "" && !slices.ContainsFunc(p.targets, func(t *target) bool { return t.engine == "podman" && t.user.uid == a.uid }) {
			p.targets = append(p.targets, &target{engine: "podman", user: a, path: podman, other: a.uid != r.me.uid})
		}
	}
	if podman != "" {
		for _, name := range r.userNames {
			a, ok := r.me, name == r.me.name
			if !ok {
				a, ok = r.lookup(ctx, name)
			}
			switch {
			case !ok:
				p.refusals = append(p.refusals, refusal{"podman/" + name, exitNoUser, "no such user"})
			case r.me.uid != 0 && a.uid != r.me.uid:
				p.refusals = append(p.refusals, refusal{"podman/" + name, exitNoPerm, "only root may act for another user"})
			default:
				add(a)
			}
		}
		if r.leftOut != "" {
			p.notes = append(p.notes, "podman/"+defaultUser+": left out: "+r.leftOut)
		}
	}
	if docker != "" && (r.user == "" || r.user == r.me.name) && r.mayUseDocker() {
		p.targets = append(p.targets, &target{engine: "docker", user: r.me, path: docker, host: r.defaultHost()})
	}
	if r.user == "" {
		for _, each := range in.runners {
			r.planRunner(ctx, &p, each, add, docker)
		}
	}
	if len(p.targets) == 0 && len(p.refusals) == 0 {
		p.refusals = append(p.refusals, refusal{"no engine", exitNoEngine, r.noEngine(docker)})
	}
	return p
}

// planRunner adds the engine that a runner asks, if that is one of this host.
func (r *run) planRunner(ctx context.Context, p *plan, each runner, add func(account), docker string) {
	if each.remote || each.Host == "" {
		return
	}
	switch at := r.endpoint(each.Host); {
	case at.remote:
	case at.podmanUID != "":
		if a, ok := r.lookup(ctx, at.podmanUID); ok && (r.me.uid == 0 || a.uid == r.me.uid) {
			add(a)
		}
	case docker == "" || !cleanSocket(at.socket):
	case slices.ContainsFunc(p.targets, func(t *target) bool { return t.engine == "docker" && r.same(t.host, each.Host) }):
	default:
		t := &target{engine: "docker", user: r.me, path: docker, host: "unix://" + at.socket, named: true}
		// Another user's daemon is asked with that user's rights.
		if info, err := os.Stat(at.socket); err == nil && r.me.uid == 0 {
			if owner := info.Sys().(*syscall.Stat_t).Uid; owner != 0 {
				a, ok := r.lookup(ctx, strconv.FormatUint(uint64(owner), 10))
				if !ok {
					p.refusals = append(p.refusals, refusal{t.host, exitNoUser, fmt.Sprintf("its owner %d is not a user of this host", owner)})
					return
				}
				t.user, t.other = a, true
			}
		}
		p.targets = append(p.targets, t)
	}
}

// cleanSocket reports whether the path can be a word of the state.
func cleanSocket(path string) bool {
	return visible(path) == path && !strings.Contains(path, " ")
}

// mayUseDocker reports whether Docker is this user's to serve: root's always, and
// another user's with a DOCKER_HOST or with access to the default socket.
func (r *run) mayUseDocker() bool {
	const writable = 2 // W_OK
	return r.me.uid == 0 || r.environment["DOCKER_HOST"] != "" || syscall.Access(r.path(dockerSocket), writable) == nil
}

// findDocker returns the path of Docker's command; podman-docker's has the same name.
func (r *run) findDocker(ctx context.Context) string {
	path := r.find("docker")
	if path == "" {
		return ""
	}
	out, err := r.do(ctx, call{program: path, args: []string{"--version"}, env: r.ownEnv(), limit: r.askLimit})
	if err != nil || !bytes.HasPrefix(out, []byte("Docker version")) {
		return ""
	}
	return path
}

// noEngine says why there is no target.
func (r *run) noEngine(docker string) string {
	switch {
	case r.engineWord != "auto":
		if r.engineWord == "docker" && docker != "" {
			return r.dockerHint()
		}
		return r.engineWord + " is not installed"
	case docker != "":
		return "podman is not installed, and " + r.dockerHint()
	}
	for _, socket := range []string{"/run/k3s/containerd/containerd.sock", "/run/containerd/containerd.sock"} {
		if _, err := os.Stat(r.path(socket)); err == nil {
			return "neither podman nor docker is installed; containerd is, which load does not serve: see status"
		}
	}
	return "neither podman nor docker is installed"
}

// dockerHint says what a user who may not use Docker's default socket can do.
func (r *run) dockerHint() string {
	if own := filepath.Join(r.getenv("XDG_RUNTIME_DIR"), "docker.sock"); filepath.IsAbs(own) {
		if _, err := os.Stat(own); err == nil {
			return fmt.Sprintf("docker is root's: for the rootless one set DOCKER_HOST=unix://%s, as GitLab Runner does not read docker's contexts", own)
		}
	}
	return "docker is root's"
}

// ownEnv returns the environment of programs that run as this process's user.
// Docker's contexts are not GitLab Runner's.
func (r *run) ownEnv() []string {
	drop := []string{"DOCKER_CONTEXT", "LC_ALL", "PATH", "HOME", "DOCKER_HOST", "CONTAINERS_STORAGE_CONF", "TMPDIR"}
	var env []string
	for _, entry := range r.Environ {
		if name, _, _ := strings.Cut(entry, "="); !slices.Contains(drop, name) {
			env = append(env, entry)
		}
	}
	for _, name := range []string{"DOCKER_HOST", "CONTAINERS_STORAGE_CONF", "TMPDIR"} {
		if value := r.environment[name]; value != "" {
			env = append(env, name+"="+value)
		}
	}
	return append(env, "LC_ALL=C", "PATH="+r.searchPath(), "HOME="+r.me.home)
}

// ask runs the target's engine.
func (r *run) ask(ctx context.Context, t *target, args ...string) ([]byte, error) {
	return r.askWith(ctx, t, nil, r.askLimit, args...)
}

func (r *run) askWith(ctx context.Context, t *target, stdin io.Reader, limit time.Duration, args ...string) ([]byte, error) {
	if t.engine == "docker" {
		args = append([]string{"--host", t.host}, args...)
	}
	c := call{program: t.path, args: args, env: t.env, stdin: stdin, limit: limit}
	if t.other {
		c.user = &t.user
	}
	if t.temp != "" {
		c.env = append(slices.Clone(c.env), "TMPDIR="+t.temp)
	}
	return r.do(ctx, c)
}

// each calls a function in each target that works. One that does not is
// reported and keeps none of the others from being served.
func (r *run) each(ctx context.Context, p plan, f func(context.Context, *target) error) error {
	p.report(r)
	for _, t := range p.targets {
		err := r.enter(ctx, t)
		if err == nil {
			err = f(ctx, t)
		}
		if leaveErr := r.leave(ctx, t); err == nil {
			err = leaveErr
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		var down notUp
		switch {
		case err == nil:
		case errors.As(err, &down):
			r.refuse(down.status, "%s: %s", t, down)
		default:
			r.refuse(statusOf(err, exitEngine), "%s: %s", t, err)
		}
	}
	return nil
}

// notUp is the error of a target that does not answer.
type notUp struct {
	status int
	words  string
}

func (e notUp) Error() string { return e.words }

// reach asks the engine something cheap, which fails if it does not work:
// podman info runs the host's package manager several times.
func (r *run) reach(ctx context.Context, t *target) error {
	if t.engine == "docker" {
		if _, err := r.ask(ctx, t, "version"); err != nil {
			return notUp{exitTempFail, "not up: " + err.Error()}
		}
		return nil
	}
	if _, err := r.ask(ctx, t, "images", "--quiet", "--filter", "reference=none"); err != nil {
		return notUp{exitEngine, "does not work: " + err.Error()}
	}
	return nil
}

// look asks the engine for images; those that it does not have are left out. It
// is one call where the engine has them all.
func (r *run) look(ctx context.Context, t *target, references ...string) (map[string]*held, error) {
	if len(references) == 0 {
		return nil, r.reach(ctx, t)
	}
	out, err := r.ask(ctx, t, append([]string{"image", "inspect", "--"}, references...)...)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	images := []*held{}
	if jsonErr := json.Unmarshal(out, &images); jsonErr != nil && err == nil {
		return nil, fmt.Errorf("answer of %s image inspect: %w", t.engine, jsonErr)
	}
	for i, image := range images {
		if image == nil {
			return nil, fmt.Errorf("answer of %s image inspect: image %d is null", t.engine, i)
		}
		if image.ID = strings.TrimPrefix(image.ID, "sha256:"); !hex64.MatchString(image.ID) {
			return nil, fmt.Errorf("answer of %s image inspect: %q is not an image ID", t.engine, image.ID)
		}
	}
	found := map[string]*held{}
	switch {
	case len(images) == len(references):
		for i, reference := range references {
			found[reference] = images[i]
		}
		return found, nil
	case err == nil:
		return nil, fmt.Errorf("answer of %s image inspect: %d images, want %d", t.engine, len(images), len(references))
	case len(images) == 0:
		if err := r.reach(ctx, t); err != nil {
			return nil, err
		}
	}
	// Some are there. The engine answers in order, but does not say which are missing.
	if len(images) > 0 {
		for _, reference := range references {
			one, err := r.look(ctx, t, reference)
			if err != nil {
				return nil, err
			}
			if one[reference] != nil {
				found[reference] = one[reference]
			}
		}
	}
	return found, nil
}

// directories returns where the engine keeps images, and an archive while it
// unpacks it: podman where TMPDIR or its configuration says, Docker in its own
// directory or, where containerd keeps the images, in containerd's, which Docker
// does not name. Those of a remote engine are not on this host.
func (r *run) directories(ctx context.Context, t *target) (info engineInfo, err error) {
	out, err := r.ask(ctx, t, "info", "--format", "{{json .}}")
	if err != nil {
		return info, err
	}
	var answer struct {
		Store struct {
			GraphRoot, GraphDriverName, ImageCopyTmpDir string
		} `json:"store"`
		DockerRootDir string
		DriverStatus  [][2]string
	}
	if err := json.Unmarshal(out, &answer); err != nil {
		return info, fmt.Errorf("answer of %s info: %w", t.engine, err)
	}
	if t.engine == "podman" {
		info = engineInfo{graphRoot: answer.Store.GraphRoot, driver: answer.Store.GraphDriverName, temp: answer.Store.ImageCopyTmpDir}
		if own := r.environment["TMPDIR"]; own != "" {
			info.temp = own
		}
		if !filepath.IsAbs(info.temp) {
			info.temp = "/var/tmp" // podman's default
		}
		info.directories = []string{info.graphRoot, info.temp}
		return info, nil
	}
	if u, err := url.Parse(t.host); err != nil || u.Scheme != "unix" {
		return info, nil
	}
	info.directories = []string{answer.DockerRootDir}
	for _, pair := range answer.DriverStatus {
		if strings.HasPrefix(pair[1], "io.containerd.snapshotter") {
			info.directories = []string{"/var/lib/containerd"}
		}
	}
	return info, nil
}

// engineInfo is what an engine reports about where it keeps images.
type engineInfo struct {
	graphRoot, driver, temp string   // podman's
	directories             []string // in which an image needs room
}

// lack says where there is no room for an image of that size, "" if there is.
func lack(directories []string, size int64) string {
	type disk struct {
		name       string
		free, want int64
	}
	var disks []uint64
	at := map[uint64]*disk{}
	for _, directory := range directories {
		info, err := os.Stat(directory)
		var fs syscall.Statfs_t
		if err != nil || syscall.Statfs(directory, &fs) != nil {
			continue // it is made later, or on another host
		}
		device := uint64(info.Sys().(*syscall.Stat_t).Dev)
		if at[device] == nil {
			at[device] = &disk{name: directory, free: int64(fs.Bavail) * int64(fs.Bsize)}
			disks = append(disks, device)
		}
		at[device].want += size + 8<<20
	}
	var words []string
	for _, device := range disks {
		if d := at[device]; d.free < d.want {
			words = append(words, fmt.Sprintf("%s has %d MiB free, want %d", d.name, d.free>>20, d.want>>20))
		}
	}
	return strings.Join(words, "; ")
}
