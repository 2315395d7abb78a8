package loader

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// dockerSocket is where Docker's command and GitLab Runner look if nothing says
// otherwise (moby v28, client/client_unix.go; GitLab Runner has the same client).
const dockerSocket = "/var/run/docker.sock"

// A target is one engine, run as one user.
type target struct {
	engine string // podman or docker
	word   string // what the state and the output call the engine: its name, or a host that config.toml names
	user   account
	host   string   // what docker is asked by --host
	env    []string // for the engine, in addition to the user's
	dir    string   // what enter made, "" for none
	lock   *os.File // which says that dir is in use
}

// String returns the name of the target in the output.
func (t *target) String() string {
	if t.word != t.engine {
		return t.word
	}
	return t.engine + "/" + t.user.name
}

// call returns a call of the target's engine.
func (t *target) call(args ...string) call {
	if t.engine == "docker" {
		args = append([]string{"--host", t.host}, args...)
	}
	return call{user: t.user, program: t.engine, args: args, env: t.env}
}

// An endpoint is the engine of this host that a host in config.toml names; the zero
// value is an engine elsewhere.
type endpoint struct {
	podmanUID string // the socket is that of this user's podman
	socket    string // path of another socket, without links
}

// podmanSocket matches the sockets of podman's systemd units (podman v4.3.1,
// contrib/systemd/system/podman.socket).
var podmanSocket = regexp.MustCompile(`^/run/(?:user/([0-9]+)/)?podman/podman\.sock$`)

// endpoint resolves a host as GitLab Runner does: "" is DOCKER_HOST or the
// default socket, never a context of Docker's command. podman-docker makes the
// default socket a link to podman's.
func (r *run) endpoint(host string) endpoint {
	path, ok := strings.CutPrefix(cmp.Or(host, r.defaultHost()), "unix://")
	if !ok || !filepath.IsAbs(path) {
		return endpoint{}
	}
	path = filepath.Clean(path)
	if resolved, err := filepath.EvalSymlinks(r.path(path)); err == nil {
		path = strings.TrimPrefix(resolved, r.root)
	}
	if rest, ok := strings.CutPrefix(path, "/var/run/"); ok {
		path = "/run/" + rest
	}
	if match := podmanSocket.FindStringSubmatch(path); match != nil {
		return endpoint{podmanUID: cmp.Or(match[1], "0")}
	}
	return endpoint{socket: path}
}

func (r *run) defaultHost() string {
	return cmp.Or(r.environment["DOCKER_HOST"], "unix://"+dockerSocket)
}

// same reports whether two hosts are the same engine.
func (r *run) same(a, b string) bool {
	at := r.endpoint(a)
	return cmp.Or(a, r.defaultHost()) == cmp.Or(b, r.defaultHost()) || at != endpoint{} && at == r.endpoint(b)
}

// A plan is what a command works on.
type plan struct {
	podman, docker bool // whether it is asked for and installed
	targets        []*target
	refusals       []error // why others are not served
}

// plan lists the targets: podman of each user, Docker's default socket, and the
// unix sockets that config.toml names. Docker has one store, whatever USERS says:
// root serves it, or a user who may use it.
func (r *run) plan(ctx context.Context, in installation) plan {
	p := plan{
		podman: r.engineWord != "docker" && r.find("podman") != "",
		docker: r.engineWord != "podman" && r.hasDocker(ctx),
	}
	if p.podman {
		for _, name := range r.userNames {
			a, ok := r.me, name == r.me.name
			if !ok {
				a, ok = r.lookup(ctx, name)
			}
			switch {
			case !ok:
				p.refusals = append(p.refusals, failf(exitNoUser, "podman/%s: no such user", name))
			case r.me.uid != 0 && a.uid != r.me.uid:
				p.refusals = append(p.refusals, failf(exitNoPerm, "podman/%s: only root may act for another user", name))
			default:
				p.addPodman(a)
			}
		}
	}
	if p.docker && (r.user == "" || r.user == r.me.name) && r.mayUseDocker() {
		p.targets = append(p.targets, &target{engine: "docker", word: "docker", user: r.me, host: r.defaultHost()})
	}
	if r.user == "" {
		for _, each := range in.Runners {
			if !each.remote && each.Host != "" {
				r.planHost(ctx, &p, each.Host)
			}
		}
	}
	if len(p.targets) == 0 && len(p.refusals) == 0 {
		p.refusals = append(p.refusals, failf(exitNoEngine, "no engine: %s", r.noEngine(p.docker)))
	}
	return p
}

// addPodman adds a user's podman if it is not there yet.
func (p *plan) addPodman(a account) {
	if p.podman && !slices.ContainsFunc(p.targets, func(t *target) bool { return t.engine == "podman" && t.user.uid == a.uid }) {
		p.targets = append(p.targets, &target{engine: "podman", word: "podman", user: a})
	}
}

// planHost adds the engine that a runner asks, if that is one of this host.
func (r *run) planHost(ctx context.Context, p *plan, host string) {
	at := r.endpoint(host)
	if at.podmanUID != "" {
		if a, ok := r.lookup(ctx, at.podmanUID); ok && (r.me.uid == 0 || a.uid == r.me.uid) {
			p.addPodman(a)
		}
		return
	}
	// The host becomes a word of the state.
	if !p.docker || at.socket == "" || visible(host) != host || strings.Contains(host, " ") ||
		slices.ContainsFunc(p.targets, func(t *target) bool { return t.engine == "docker" && r.same(t.host, host) }) {
		return
	}
	t := &target{engine: "docker", word: host, user: r.me, host: host}
	// Another user's daemon is asked with that user's rights.
	if info, err := os.Stat(at.socket); err == nil && r.me.uid == 0 {
		owner := strconv.FormatUint(uint64(info.Sys().(*syscall.Stat_t).Uid), 10)
		if owner != "0" {
			var ok bool
			if t.user, ok = r.lookup(ctx, owner); !ok {
				p.refusals = append(p.refusals, failf(exitNoUser, "%s: its owner %s is not a user of this host", host, owner))
				return
			}
		}
	}
	p.targets = append(p.targets, t)
}

// mayUseDocker reports whether this user may use Docker: root may, and others may with
// a DOCKER_HOST or with access to the default socket.
func (r *run) mayUseDocker() bool {
	const writable = 2 // W_OK
	return r.me.uid == 0 || r.environment["DOCKER_HOST"] != "" || syscall.Access(r.path(dockerSocket), writable) == nil
}

// hasDocker reports whether Docker's command is installed; podman-docker's has the same name.
func (r *run) hasDocker(ctx context.Context) bool {
	out, err := r.as(ctx, r.me, "docker", "--version")
	return err == nil && bytes.HasPrefix(out, []byte("Docker version"))
}

// noEngine says why there is no target.
func (r *run) noEngine(docker bool) string {
	switch {
	case r.engineWord == "docker" && docker:
		return r.dockerHint()
	case r.engineWord != "auto":
		return r.engineWord + " is not installed"
	case docker:
		return "podman is not installed, and " + r.dockerHint()
	case r.containerd() != "":
		return "neither podman nor docker is installed; containerd is, but load does not serve it: see status"
	}
	return "neither podman nor docker is installed"
}

// containerd returns the command that loads an archive into the containerd of this
// host, "" if there is none, or only Docker's.
func (r *run) containerd() string {
	if _, err := os.Stat(r.path("/run/k3s/containerd/containerd.sock")); err == nil {
		return "k3s ctr -n k8s.io images import -"
	}
	if _, err := os.Stat(r.path("/run/containerd/containerd.sock")); err == nil && r.find("docker") == "" {
		return "ctr -n NAMESPACE images import -"
	}
	return ""
}

// dockerHint says what a user who may not use Docker's default socket can do.
func (r *run) dockerHint() string {
	if own := filepath.Join(r.getenv("XDG_RUNTIME_DIR"), "docker.sock"); filepath.IsAbs(own) {
		if _, err := os.Stat(own); err == nil {
			return fmt.Sprintf("docker's socket belongs to root: for rootless docker set DOCKER_HOST=unix://%s, because GitLab Runner does not read docker's contexts", own)
		}
	}
	return "docker's socket belongs to root"
}

// ask runs the target's engine.
func (r *run) ask(ctx context.Context, t *target, args ...string) ([]byte, error) {
	return r.do(ctx, t.call(args...))
}

// each reports what is not served, and calls a function for each target. A target that
// fails is reported, and the others are served nevertheless.
func (r *run) each(ctx context.Context, p plan, f func(context.Context, *target) error) error {
	if p.podman && r.leftOut != "" {
		r.warn("podman/%s: left out: %s", defaultUser, r.leftOut)
	}
	for _, err := range p.refusals {
		r.refuse(statusOf(err, exitEngine), "%s", err)
	}
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
		if err != nil {
			r.refuse(statusOf(err, exitEngine), "%s: %s", t, err)
		}
	}
	return nil
}

// reach asks the engine something cheap to see whether it works: podman info would run
// the host's package manager several times.
func (r *run) reach(ctx context.Context, t *target) error {
	if t.engine == "docker" {
		if _, err := r.ask(ctx, t, "version"); err != nil {
			return failf(exitTempFail, "not up: %s", err)
		}
		return nil
	}
	if _, err := r.ask(ctx, t, "images", "--quiet", "--filter", "reference=none"); err != nil {
		return failf(exitEngine, "does not work: %s", err)
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
	answer := fmt.Sprintf("answer of %s image inspect", t.engine)
	images := []*held{}
	if jsonErr := json.Unmarshal(out, &images); jsonErr != nil && err == nil {
		return nil, fmt.Errorf("%s: %w", answer, jsonErr)
	}
	for i, image := range images {
		if image == nil {
			return nil, fmt.Errorf("%s: image %d is null", answer, i)
		}
		if image.ID = strings.TrimPrefix(image.ID, "sha256:"); !hex64.MatchString(image.ID) {
			return nil, fmt.Errorf("%s: %q is not an image ID", answer, image.ID)
		}
	}
	found := map[string]*held{}
	switch {
	case len(images) == len(references):
		for i, reference := range references {
			found[reference] = images[i]
		}
		return found, nil
	case err == nil || len(images) > len(references):
		return nil, fmt.Errorf("%s: %d images, want %d", answer, len(images), len(references))
	case len(images) == 0:
		return found, r.reach(ctx, t)
	}
	// The engine has some, and answers in order, but does not say which are missing.
	for _, reference := range references {
		one, err := r.look(ctx, t, reference)
		if err != nil {
			return nil, err
		}
		maps.Copy(found, one)
	}
	return found, nil
}

// engineInfo is where an engine keeps images.
type engineInfo struct {
	temp        string   // where podman keeps an archive while it loads it
	directories []string // in which an image needs room
}

// info asks the engine where it keeps images, and an archive while it unpacks it:
// podman where TMPDIR or its configuration says, Docker in its own directory or,
// where containerd keeps the images, in containerd's, which Docker does not name.
// Those of a remote engine are not on this host. info refuses a store whose driver
// turns out not to be the one that the user's own podman uses.
func (r *run) info(ctx context.Context, t *target) (info engineInfo, err error) {
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
	store := answer.Store
	switch {
	case t.engine == "podman":
		info.temp = cmp.Or(r.environment["TMPDIR"], store.ImageCopyTmpDir)
		if !filepath.IsAbs(info.temp) {
			info.temp = "/var/tmp" // podman's default
		}
		info.directories = []string{store.GraphRoot, info.temp}
	case !strings.HasPrefix(t.host, "unix:"):
	case slices.ContainsFunc(answer.DriverStatus, func(pair [2]string) bool { return strings.HasPrefix(pair[1], "io.containerd.snapshotter") }):
		info.directories = []string{"/var/lib/containerd"}
	default:
		info.directories = []string{answer.DockerRootDir}
	}
	if t.engine == "podman" && t.user.uid != r.me.uid {
		driver, err := r.storageDriver(ctx, t.user, store.GraphRoot)
		if err != nil {
			return info, err
		}
		if driver != "" && driver != store.GraphDriverName {
			return info, fmt.Errorf("podman uses the storage driver %s here, but %s is a store of %s", store.GraphDriverName, store.GraphRoot, driver)
		}
	}
	return info, nil
}

// lack says which directories have no room for an image of that size, "" if all have.
// Each needs the room, also where they share a file system.
func lack(directories []string, size int64) string {
	var words []string
	wanted := map[uint64]int64{} // by device
	for _, directory := range directories {
		info, err := os.Stat(directory)
		var fs syscall.Statfs_t
		if err != nil || syscall.Statfs(directory, &fs) != nil {
			continue // it does not exist yet, or is on another host
		}
		device := uint64(info.Sys().(*syscall.Stat_t).Dev)
		wanted[device] += size + 8<<20
		if free := int64(fs.Bavail) * int64(fs.Bsize); free < wanted[device] {
			words = append(words, fmt.Sprintf("%s has %d MiB free, want %d", directory, free>>20, wanted[device]>>20))
		}
	}
	return strings.Join(words, "; ")
}
