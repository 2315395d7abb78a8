package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// An Instance is an engine that runs with its own store until it is closed.
type Instance struct {
	Engine
	Driver string // of the image store: overlay, vfs, overlay2, ...

	// ManifestIDs is set where the engine's image IDs are digests of manifests,
	// not of configs: in Docker's containerd store.
	ManifestIDs bool

	dir     string     // contains everything that the engine writes
	lock    *os.File   // held as long as dir is in use
	service *exec.Cmd  // the process that serves the API
	done    chan error // receives the service's exit
	enter   []string   // as root: command prefix that enters the service's namespaces
	drop    []string   // as root: command prefix that becomes the engine's user
	uid     int        // of the engine's user, if it is not this process's user
	gid     int
	api     http.Client
	prefix  string // of every API path: /v1.41
}

// Start runs the engine in a new directory below the one for temporary files, from
// which it first removes what killed runs left. The caller must close the instance.
// Canceling ctx ends Start, but not an instance that has started.
func (e Engine) Start(ctx context.Context) (*Instance, error) {
	i := &Instance{Engine: e, done: make(chan error, 1)}
	i.api.Transport = &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", i.Socket())
		},
	}
	e.sweep()
	err := i.makeDir()
	if err == nil {
		err = i.start(ctx)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", e.Kind, err), i.Close())
	}
	return i, nil
}

// The names of instances' directories are short: a socket's path has at most 107
// bytes (unix(7)), and podman's run root 50, or its cleanup after a container fails
// and podman waits 20 s for it (4.3.1, as a plain user). Each directory has a file
// that is locked while the directory is in use. The lock ends with its process.
const (
	dirPattern  = "pretag-*"
	lockName    = "engine-lock"
	cgroupsName = "engine-cgroups" // lists the cgroups to remove with the directory
)

// newCgroups lists the cgroups that the instance will make at the top of the
// host's hierarchies. dockerd takes a name. podman's name is fixed for cgroupfs
// (podman v4.3.1, libpod/define/config.go), so it counts only if there is none yet.
func (i *Instance) newCgroups() []string {
	names := []string{filepath.Base(i.dir)}
	if i.Kind == PodmanRootful && len(cgroupPaths("libpod_parent", "")) == 0 {
		names = append(names, "libpod_parent")
	}
	return names
}

func (i *Instance) makeDir() (err error) {
	if i.dir, err = os.MkdirTemp("", dirPattern); err != nil {
		return err
	}
	if i.lock, err = os.Create(i.path("new-lock")); err != nil {
		return err
	}
	// If this run is killed, the next one removes what is listed here.
	if err := os.WriteFile(i.path(cgroupsName), []byte(strings.Join(i.newCgroups(), "\n")), 0o644); err != nil {
		return err
	}
	if err := syscall.Flock(int(i.lock.Fd()), syscall.LOCK_EX); err != nil {
		return fmt.Errorf("lock %s: %w", i.lock.Name(), err)
	}
	// It gets its name after it is locked: a file of that name without a lock means that
	// the directory may be removed.
	return os.Rename(i.lock.Name(), i.path(lockName))
}

// sweep removes the directories of instances that no process uses any more: this
// user's or, as root, every user's. What it cannot remove only takes disk space.
func (e Engine) sweep() {
	locks, _ := filepath.Glob(filepath.Join(os.TempDir(), dirPattern, lockName)) // the pattern is well formed
	for _, lock := range locks {
		// Every user can write here: the name may belong to another user, or not to a file.
		f, err := os.OpenFile(lock, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
		if err != nil {
			continue
		}
		info, err := f.Stat()
		mine := err == nil && (os.Geteuid() == 0 || int(info.Sys().(*syscall.Stat_t).Uid) == os.Geteuid())
		if mine && syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
			left := Instance{Engine: e, dir: filepath.Dir(lock)}
			_ = left.remove()
		}
		f.Close()
	}
}

// Socket is the path of the engine's API.
func (i *Instance) Socket() string { return i.path("socket") }

func (i *Instance) path(name string) string { return filepath.Join(i.dir, name) }

// start serves the API with the first storage driver that works.
func (i *Instance) start(ctx context.Context) error {
	// dockerd chooses a storage driver by itself. Hosts use podman with the kernel's
	// overlay. Where that cannot be mounted, such as in a container, vfs copies files.
	drivers := []string{"overlay", "vfs"}
	if i.Kind == Docker {
		drivers = []string{""}
	}
	var errs []error
	for _, driver := range drivers {
		argv, err := i.configure(driver)
		if err != nil {
			return err
		}
		if err = i.serve(ctx, argv...); err == nil {
			return nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", strings.TrimSpace("storage driver "+driver), err))
		if err := errors.Join(context.Cause(ctx), i.stop()); err != nil {
			return errors.Join(append(errs, err)...)
		}
	}
	return errors.Join(errs...)
}

// configure writes, into new directories, the files that the engine reads in place of
// the host's and the user's. It returns the command that serves the API.
func (i *Instance) configure(driver string) ([]string, error) {
	for _, name := range []string{"home", "tmp", "run", "root"} {
		if err := errors.Join(os.RemoveAll(i.path(name)), os.Mkdir(i.path(name), 0o755)); err != nil {
			return nil, err
		}
	}
	if i.Kind == Docker {
		return []string{
			i.daemon,
			"--config-file=" + i.path("daemon.json"),
			"--data-root=" + i.path("root"),
			"--exec-root=" + i.path("run"),
			"--pidfile=" + i.path("pid"),
			"--host=unix://" + i.Socket(),
			"--cgroup-parent=/" + filepath.Base(i.dir),
			"--bridge=none", "--iptables=false", "--ip-forward=false", "--ip-masq=false",
		}, os.WriteFile(i.path("daemon.json"), []byte("{}"), 0o644)
	}
	runtime := ""
	if hybridCgroups() {
		runtime = `runtime = "runc"`
	}
	files := map[string]string{
		"storage.conf": fmt.Sprintf(`[storage]
driver = %q
graphroot = %q
rootless_storage_path = %[2]q
runroot = %[3]q
`, driver, i.path("root"), i.path("run")),

		// podman raises the limits of containers as root, for which it needs
		// CAP_SYS_RESOURCE (podman 4.3, pkg/specgen/generate/oci.go); limits
		// below every user's own need nothing. Locks are in a file, because those in
		// shared memory are the host's.
		"containers.conf": fmt.Sprintf(`[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
log_driver = "k8s-file"
netns = "none"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "none"
lock_type = "file"
static_dir = %q
tmp_dir = %q
volume_path = %q
%s
`, i.path("root/libpod"), i.path("run/libpod"), i.path("root/volumes"), runtime),
	}
	for name, content := range files {
		if err := os.WriteFile(i.path(name), []byte(content), 0o644); err != nil {
			return nil, err
		}
	}
	return []string{i.command, "system", "service", "--time=0", "unix://" + i.Socket()}, nil
}

// hybridCgroups reports whether cgroups of version 2 are mounted next to those of
// version 1, and runc is installed. crun refuses that: "cgroups in hybrid mode not
// supported" (crun 1.8, src/libcrun/cgroup-setup.c).
func hybridCgroups() bool {
	_, mounted := os.Stat("/sys/fs/cgroup/unified/cgroup.controllers")
	_, installed := exec.LookPath("runc")
	return mounted == nil && installed == nil
}

// firstProcess is the first process of an instance as root. It is process 1 of its
// namespaces: when it ends, every process and every mount in them ends. /run and
// /dev/shm are hidden because they hold the sockets, locks and state of the host's
// engines, and /var/tmp because podman leaves files in it whatever TMPDIR is.
const firstProcess = `set -e
mount --make-rprivate /
mount --make-rshared /
mount -t proc proc /proc
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /dev/shm
mount --bind "$1" /var/tmp
if [ -n "$2" ]; then
	mount --bind "$2" /etc/subuid
	mount --bind "$2" /etc/subgid
fi
shift 2
"$@" &
wait $!
`

// serve starts the process that answers the API, and waits until it does.
func (i *Instance) serve(ctx context.Context, argv ...string) error {
	log, err := os.Create(i.path("log"))
	if err != nil {
		return err
	}
	defer log.Close()

	root := os.Geteuid() == 0
	if root {
		subids := ""
		if i.Kind == PodmanRootless {
			subids = i.path("subid")
			if err := i.giveTo("nobody", subids); err != nil {
				return err
			}
		}
		argv = slices.Concat([]string{"sh", "-c", firstProcess, "sh", i.path("tmp"), subids}, i.drop, argv)
	}
	service := exec.Command(argv[0], argv[1:]...)
	service.SysProcAttr = isolate(root)
	service.Stdout, service.Stderr = log, log
	i.inside(service)
	if err := service.Start(); err != nil {
		return err
	}
	i.service = service
	if root {
		i.enter = []string{"nsenter", "--target=" + strconv.Itoa(service.Process.Pid), "--mount", "--pid", "--ipc"}
	}
	go func() { i.done <- service.Wait() }()
	return i.awaitAPI(ctx)
}

// giveTo makes another user the engine's user, with a range of subordinate IDs. Only
// podman sees the range, in its mount namespace: the host's /etc/subuid does not change.
func (i *Instance) giveTo(name, subids string) error {
	u, err := user.Lookup(name)
	if err != nil {
		return err
	}
	var uidErr, gidErr error
	i.uid, uidErr = strconv.Atoi(u.Uid)
	i.gid, gidErr = strconv.Atoi(u.Gid)
	i.drop = []string{"setpriv", "--reuid=" + u.Uid, "--regid=" + u.Gid, "--clear-groups", "--"}
	// 65536 IDs, as useradd gives (login.defs(5)), far above the ranges that it begins with.
	err = os.WriteFile(subids, []byte(u.Uid+":1000000000:65536\n"), 0o644)
	if err := errors.Join(uidErr, gidErr, err); err != nil {
		return err
	}
	return i.Give(i.dir)
}

// callerDirs begins the names of directories that MkdirTemp makes. Containers may
// leave files of other users in them.
const callerDirs = "for-"

// MkdirTemp makes a directory for files of the instance's caller. It is removed
// with the instance at the latest.
func (i *Instance) MkdirTemp() (string, error) {
	dir, err := os.MkdirTemp(i.dir, callerDirs)
	if err != nil {
		return "", err
	}
	return dir, errors.Join(os.Chmod(dir, 0o755), i.Give(dir))
}

// Give makes the engine's user the owner of a directory and everything in it.
func (i *Instance) Give(dir string) error {
	if i.uid == 0 {
		return nil // the engine runs as this process's user
	}
	return filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		return errors.Join(err, os.Lchown(path, i.uid, i.gid))
	})
}

// inside has cmd use the instance's directories and configuration.
func (i *Instance) inside(cmd *exec.Cmd) {
	cmd.Env = append(environment(i.path("home"), i.path("tmp"), i.path("run")),
		"CONTAINERS_CONF="+i.path("containers.conf"), "CONTAINERS_STORAGE_CONF="+i.path("storage.conf"))
	cmd.Dir = i.dir
}

// awaitAPI returns as soon as the engine answers. If the engine ends instead, the error
// has the end of its log.
func (i *Instance) awaitAPI(ctx context.Context) error {
	ctx, cancel := limit(ctx, callLimit)
	defer cancel()
	for {
		var version struct{ APIVersion string }
		err := i.getJSON(ctx, "/version", nil, &version)
		if err == nil {
			i.prefix = "/v" + version.APIVersion // as Docker's clients do after negotiation
			return i.describe(ctx)
		}
		select {
		case ended := <-i.done:
			i.done <- ended
			return fmt.Errorf("%w: %s", errors.Join(ended, errors.New("the service ended")), i.LastWords())
		case <-ctx.Done():
			return fmt.Errorf("%w: %w: %s", context.Cause(ctx), err, i.LastWords())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (i *Instance) describe(ctx context.Context) error {
	var info struct {
		Driver       string
		DriverStatus [][2]string
	}
	err := i.getJSON(ctx, "/info", nil, &info)
	i.Driver = info.Driver
	// moby/moby v28.5.2, daemon/containerd/service.go, LayerStoreStatus
	i.ManifestIDs = slices.Contains(info.DriverStatus, [2]string{"driver-type", "io.containerd.snapshotter.v1"})
	return err
}

// LastWords returns the end of what the service logged.
func (i *Instance) LastWords() string {
	log, err := os.ReadFile(i.path("log"))
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(log)), "\n")
	return strings.Join(lines[max(0, len(lines)-5):], "\n")
}

// wrap prepares a program to run next to the service, as the engine's user and
// in the service's namespaces: as root in its mount, PID and IPC namespaces and in those
// that the options of nsenter name.
func (i *Instance) wrap(ctx context.Context, argv []string, namespaces ...string) *exec.Cmd {
	if i.enter != nil {
		argv = slices.Concat(i.enter, namespaces, []string{"--"}, i.drop, argv)
	}
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	i.inside(cmd)
	return cmd
}

// Command prepares a program that uses the engine through its socket. It runs as the
// engine's user, ends with the instance, and reaches servers on this machine's
// loopback. When ctx is done its whole process group is killed.
func (i *Instance) Command(ctx context.Context, argv ...string) *exec.Cmd {
	cmd := i.wrap(ctx, argv)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // an interrupt at the terminal is ours to handle
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	return cmd
}

// run runs the engine's command line next to the service.
func (i *Instance) run(ctx context.Context, stdin io.Reader, args ...string) (string, error) {
	argv := slices.Concat([]string{i.command}, args)
	if i.Kind == Docker {
		argv = slices.Concat([]string{i.command, "--host=unix://" + i.Socket()}, args)
	}
	cmd := i.wrap(ctx, argv, "--net")
	cmd.Stdin = stdin
	out, err := output(ctx, cmd)
	if err != nil {
		if context.Cause(ctx) == nil { // which a caller may want to recognize
			err = i.tidy(err)
		}
		return "", fmt.Errorf("%s %s: %w", filepath.Base(i.command), args[0], err)
	}
	return out, nil
}

// tidy shortens an engine's error and makes it the same for equal failures: without
// the names of temporary files. podman tries an archive as every format and lists
// all errors (containers/common v0.50, libimage/load.go): tidy keeps that of
// docker-archive.
func (i *Instance) tidy(err error) error {
	text := strings.ReplaceAll(err.Error(), i.dir, "")
	if found := regexp.MustCompile(`\* docker-archive: .*`).FindString(text); found != "" {
		text = strings.TrimPrefix(found, "* ")
	}
	return errors.New(regexp.MustCompile(`/(podman|oci|api_load\.tar)[0-9]+`).ReplaceAllString(text, "/$1"))
}

// Load loads an archive by command, from standard input.
func (i *Instance) Load(ctx context.Context, archive io.Reader) error {
	ctx, cancel := limit(ctx, imageLimit)
	defer cancel()
	_, err := i.run(ctx, archive, "load")
	return err
}

// Run runs a container of the image without a network and returns what it prints.
func (i *Instance) Run(ctx context.Context, image string, args ...string) (string, error) {
	ctx, cancel := limit(ctx, callLimit)
	defer cancel()
	argv := slices.Concat([]string{"run", "--rm", "--pull=never", "--network=none", image}, args)
	out, err := i.run(ctx, nil, argv...)
	// dockerd waits 2 s for what an ended container has printed, and then drops it
	// (moby, daemon/monitor.go, handleContainerExit): too short on a busy machine.
	for tries := 1; i.Kind == Docker && out == "" && err == nil && tries < 3; tries++ {
		out, err = i.run(ctx, nil, argv...)
	}
	return out, err
}

// Close ends the instance and removes everything of it.
func (i *Instance) Close() error {
	err := i.stop()
	if i.dir != "" {
		err = errors.Join(err, i.remove())
	}
	if i.lock != nil {
		err = errors.Join(err, i.lock.Close())
	}
	return err
}

// remove removes the directory and the cgroups of the instance.
func (i *Instance) remove() error {
	var err error
	if names, readErr := os.ReadFile(i.path(cgroupsName)); readErr == nil {
		err = removeCgroups(strings.Split(string(names), "\n"))
	}
	if os.Geteuid() != 0 {
		// Files in the store belong to subordinate ids, which only podman's own
		// namespace may remove. There podman mounts its store on itself, and a
		// container that has just ended may still hold it.
		ctx, cancel := limit(context.Background(), callLimit)
		defer cancel()
		_, unshareErr := i.run(ctx, nil, "unshare", "sh", "-c", `umount --lazy "$1/root/overlay" 2>/dev/null; rm -rf "$1/root" "$1"/`+callerDirs+`*`, "sh", i.dir)
		// podman keeps the user's namespace open with a process, which only this ends.
		_, migrateErr := i.run(ctx, nil, "system", "migrate")
		err = errors.Join(err, unshareErr, migrateErr)
	}
	return errors.Join(err, os.RemoveAll(i.dir))
}

// stop ends the service.
func (i *Instance) stop() error {
	if i.service == nil {
		return nil
	}
	// As root, everything ends with the first process. As a plain user, podman runs as
	// two processes of a group. What they would clean up is removed with the directory.
	if err := syscall.Kill(-i.service.Process.Pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	select {
	case <-i.done: // killed, so the error says nothing
	case <-time.After(callLimit):
		return fmt.Errorf("process %d: still there %s after it was stopped", i.service.Process.Pid, callLimit)
	}
	i.service = nil
	i.api.CloseIdleConnections()
	return nil
}

// removeCgroups removes the empty cgroups that containers of the instance leave.
func removeCgroups(names []string) error {
	var errs []error
	for _, name := range names {
		for _, below := range []string{"/*/*", "/*", ""} {
			for _, path := range cgroupPaths(name, below) {
				// Another instance may be using podman's cgroup.
				if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.EBUSY) {
					errs = append(errs, err)
				}
			}
		}
	}
	return errors.Join(errs...)
}

// cgroupPaths lists the cgroups of that name at the top of the hierarchies of
// version 1 and of that of version 2, or with a pattern those below them.
func cgroupPaths(name, pattern string) []string {
	var dirs []string
	for _, top := range []string{"/sys/fs/cgroup/", "/sys/fs/cgroup/*/"} {
		paths, _ := filepath.Glob(top + name + pattern) // the pattern is well formed
		for _, path := range paths {
			if info, err := os.Lstat(path); err == nil && info.IsDir() {
				dirs = append(dirs, path)
			}
		}
	}
	return dirs
}
