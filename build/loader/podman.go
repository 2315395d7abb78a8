package loader

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/BurntSushi/toml"
)

// workPrefix begins the names of directories that a run makes, in /run and where
// podman keeps archives while it loads them.
const workPrefix = "gitlab-runner-helper-images."

// enter prepares the use of a target.
//
// libpod records the runtime directory of its first run for good, so a first run
// without a session would break podman in later sessions (or the other way
// round). Another user's podman therefore keeps that record, and its locks, in a
// directory that leave removes; the store of images is the user's own.
func (r *run) enter(ctx context.Context, t *target) error {
	t.env = r.ownEnv()
	if !t.other {
		return nil
	}
	var err error
	if t.user, err = r.withGroups(ctx, t.user); err != nil {
		return err
	}
	t.env = r.userEnv(t.user)
	if temp := r.environment["TMPDIR"]; temp != "" {
		t.env = append(t.env, "TMPDIR="+temp)
	}
	if t.engine == "docker" {
		return nil
	}
	if err := r.makeWork(ctx); err != nil {
		return err
	}
	t.dir = filepath.Join(r.work, strconv.FormatUint(uint64(t.user.uid), 10))
	if err := os.Mkdir(t.dir, 0o700); err != nil {
		return err
	}
	runtime := filepath.Join("/run/user", strconv.FormatUint(uint64(t.user.uid), 10))
	if info, err := os.Lstat(runtime); err != nil || !info.IsDir() || info.Sys().(*syscall.Stat_t).Uid != t.user.uid {
		runtime = t.dir
	}
	variable, conf, err := r.containersConf(ctx, t)
	if err != nil {
		return err
	}
	path := filepath.Join(t.dir, "containers.conf")
	if err := errors.Join(os.WriteFile(path, conf, 0o644), os.Chown(t.dir, int(t.user.uid), int(t.user.gid))); err != nil {
		return err
	}
	t.env = append(t.env, "XDG_RUNTIME_DIR="+runtime, variable+"="+path)
	driver, err := r.storageDriver(ctx, t, r.graphRoot(ctx, t))
	if err != nil {
		return err
	}
	if driver != "" {
		t.env = append(t.env, "STORAGE_DRIVER="+driver)
	}
	return nil
}

// userEnv returns the environment of programs that run as another user.
func (r *run) userEnv(a account) []string {
	return []string{"HOME=" + a.home, "USER=" + a.name, "LOGNAME=" + a.name, "PATH=" + r.searchPath(), "LC_ALL=C"}
}

// leave ends the process that rootless podman leaves to hold its namespace, with
// the user's rights, and removes what enter made. A process that has just begun
// ignores SIGTERM (podman 4.3.1).
func (r *run) leave(ctx context.Context, t *target) error {
	if t.dir == "" {
		return nil
	}
	ctx = context.WithoutCancel(ctx)
	for _, name := range []string{"tmp/pause.pid", "libpod/tmp/pause.pid"} {
		pid, err := r.asUser(ctx, t, "head", "-c", "20", "--", filepath.Join(t.dir, name))
		if err != nil {
			continue // there is none
		}
		if number, err := strconv.ParseUint(string(bytes.TrimSpace(pid)), 10, 31); err == nil && number > 1 {
			_, _ = r.asUser(ctx, t, "kill", "-KILL", strconv.FormatUint(number, 10)) // it may be gone
		}
	}
	dir := t.dir
	t.dir = ""
	return os.RemoveAll(dir) // which follows no links
}

// asUser runs a program as the target's user.
func (r *run) asUser(ctx context.Context, t *target, program string, args ...string) ([]byte, error) {
	path := r.find(program)
	if path == "" {
		return nil, fmt.Errorf("%s is not installed", program)
	}
	c := call{program: path, args: args, env: t.env, limit: r.askLimit}
	if t.other {
		c.user = &t.user
	}
	return r.do(ctx, c)
}

// makeWork makes the directory of this run, in one that only root can write to, after
// it has removed those of runs that were killed. A run holds a lock on its directory.
func (r *run) makeWork(ctx context.Context) error {
	if r.work != "" {
		return nil
	}
	parent := r.path("/run")
	old, err := filepath.Glob(filepath.Join(parent, workPrefix+"*"))
	if err != nil {
		return err
	}
	for _, dir := range old {
		if err := r.removeStale(ctx, dir); err != nil {
			fmt.Fprintln(r.Stderr, visible(fmt.Sprintf("left by a killed run: %s", err)))
		}
	}
	for {
		dir, err := os.MkdirTemp(parent, workPrefix)
		if err != nil {
			return err
		}
		f, err := lockDir(dir)
		if err == nil && f != nil && sameFile(f, dir) {
			r.work, r.workLock = dir, f
			return os.Chmod(dir, 0o711) // users enter their own directory in it
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return errors.Join(err, os.Remove(dir))
		}
		// Another run has removed the directory before it was locked.
	}
}

// lockDir returns the open directory with a lock on it, nil if another process has it.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(dir, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = nil
		}
		return nil, err
	}
	return f, nil
}

// removeStale removes the directory of a run that has ended.
func (r *run) removeStale(ctx context.Context, dir string) error {
	info, err := os.Lstat(dir)
	if err != nil || !info.IsDir() || info.Sys().(*syscall.Stat_t).Uid != 0 {
		return err
	}
	f, err := lockDir(dir)
	if f == nil || err != nil {
		return err
	}
	defer f.Close()
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		a, ok := r.lookup(ctx, entry.Name())
		if !ok {
			continue
		}
		t := &target{engine: "podman", user: a, other: true, dir: filepath.Join(dir, entry.Name()), env: r.userEnv(a)}
		if err := r.leave(ctx, t); err != nil {
			return err
		}
	}
	return os.RemoveAll(dir)
}

// cleanUp removes what this run made.
func (r *run) cleanUp() error {
	if r.work == "" {
		return nil
	}
	return errors.Join(os.RemoveAll(r.work), r.workLock.Close())
}

// containersConf returns the settings that keep libpod's records private, and the
// variable that podman reads them by. From 4.4 on CONTAINERS_CONF_OVERRIDE adds
// settings to all others; below, CONTAINERS_CONF replaces them, so the others
// have to be read here (containers/common v0.51, pkg/config/config.go).
func (r *run) containersConf(ctx context.Context, t *target) (variable string, conf []byte, err error) {
	if r.podman == "" {
		out, err := r.do(ctx, call{program: t.path, args: []string{"--version"}, env: r.ownEnv(), limit: r.askLimit})
		if err != nil {
			return "", nil, err
		}
		r.podman = strings.TrimSpace(strings.TrimPrefix(string(out), "podman version"))
	}
	var major, minor int
	if _, err := fmt.Sscanf(r.podman, "%d.%d", &major, &minor); err != nil {
		return "", nil, fmt.Errorf("podman --version: %q is not a version", visible(r.podman))
	}
	all := map[string]any{}
	variable = "CONTAINERS_CONF_OVERRIDE"
	if major < 4 || major == 4 && minor < 4 {
		variable = "CONTAINERS_CONF"
		if all, err = r.systemConf(ctx, t); err != nil {
			return "", nil, err
		}
	}
	merge(all, map[string]any{"engine": map[string]any{
		"static_dir": filepath.Join(t.dir, "static"),
		"tmp_dir":    filepath.Join(t.dir, "tmp"),
		"lock_type":  "file",
	}})
	conf, err = toml.Marshal(all)
	return variable, conf, err
}

// systemConf merges the files of containers.conf(5), the system's and the user's.
func (r *run) systemConf(ctx context.Context, t *target) (map[string]any, error) {
	all := map[string]any{}
	files := []string{r.path("/usr/share/containers/containers.conf"), r.path("/etc/containers/containers.conf")}
	dropIns, err := filepath.Glob(r.path("/etc/containers/containers.conf.d/*.conf"))
	if err != nil {
		return nil, err
	}
	for _, path := range append(files, dropIns...) {
		data, err := readSmall(path, maxConfig)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		var one map[string]any
		if err == nil {
			err = toml.Unmarshal(data, &one)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		merge(all, one)
	}
	own := r.userFile(ctx, t, filepath.Join(t.user.home, ".config/containers/containers.conf"))
	var one map[string]any
	if toml.Unmarshal(own, &one) == nil { // otherwise podman itself reports it, in a session
		merge(all, one)
	}
	return all, nil
}

// merge adds the settings of b to a; tables are merged, other values replaced.
func merge(a, b map[string]any) {
	for key, value := range b {
		if table, ok := value.(map[string]any); ok {
			if into, ok := a[key].(map[string]any); ok {
				merge(into, table)
				continue
			}
		}
		a[key] = value
	}
}

// userFile returns the content of a file of the user's, read with the user's
// rights; nil if there is none.
func (r *run) userFile(ctx context.Context, t *target, path string) []byte {
	out, err := r.asUser(ctx, t, "head", "-c", strconv.Itoa(maxConfig), "--", path)
	if err != nil {
		return nil
	}
	return out
}

// graphRoot returns where a user's podman keeps images: what the user's
// storage.conf says, or the system's for rootless users, or the default
// (containers/storage v1.43 and v1.59, types/options.go).
func (r *run) graphRoot(ctx context.Context, t *target) string {
	var storage struct {
		Storage struct {
			GraphRoot    string `toml:"graphroot"`
			RootlessPath string `toml:"rootless_storage_path"`
		} `toml:"storage"`
	}
	path := ""
	for _, file := range []string{"/usr/share/containers/storage.conf", "/etc/containers/storage.conf"} {
		if data, err := readSmall(r.path(file), maxConfig); err == nil && toml.Unmarshal(data, &storage) == nil {
			path = storage.Storage.RootlessPath
		}
	}
	storage.Storage.GraphRoot = ""
	if toml.Unmarshal(r.userFile(ctx, t, filepath.Join(t.user.home, ".config/containers/storage.conf")), &storage) == nil {
		path = cmp.Or(storage.Storage.GraphRoot, path)
	}
	path = os.Expand(path, func(name string) string {
		return map[string]string{"HOME": t.user.home, "USER": t.user.name, "UID": strconv.FormatUint(uint64(t.user.uid), 10)}[name]
	})
	return cmp.Or(path, filepath.Join(t.user.home, ".local/share/containers/storage"))
}

// imagesDir matches the directory in which a storage driver keeps what it knows of images.
var imagesDir = regexp.MustCompile(`^(overlay|vfs|btrfs|zfs|aufs|devicemapper|fuse-overlayfs)-images$`)

// storageDriver returns the driver of a user's store, "" if the store is new. libpod
// records the driver of its first run in its database, which wins over every
// configuration, and which is hidden while the loader runs podman for the user. A
// second driver in the same place would be a store that the user's podman does
// not see, so where the driver is not certain nothing is done.
func (r *run) storageDriver(ctx context.Context, t *target, graphRoot string) (string, error) {
	listing, err := r.asUser(ctx, t, "ls", "-A", "--", graphRoot)
	if err != nil {
		return "", nil // it is not there yet
	}
	var drivers []string
	for line := range strings.Lines(string(listing)) {
		if match := imagesDir.FindStringSubmatch(strings.TrimSuffix(line, "\n")); match != nil {
			drivers = append(drivers, match[1])
		}
	}
	recorded := map[string]bool{}
	for _, name := range []string{"libpod/bolt_state.db", "db.sql", "libpod/db.sql"} {
		data, err := r.asUser(ctx, t, "head", "-c", strconv.Itoa(maxAnswer), "--", filepath.Join(graphRoot, name))
		if err == nil {
			for _, driver := range databaseDrivers(data) {
				recorded[driver] = true
			}
		}
	}
	switch names := slices.Sorted(maps.Keys(recorded)); {
	case len(names) == 1 && (len(drivers) == 0 || slices.Contains(drivers, names[0])):
		return names[0], nil
	case len(names) > 0:
		return "", fmt.Errorf("podman's database in %s names the storage driver %s, but there are images of %s: ask podman info as %s, and remove the store that it does not use",
			graphRoot, strings.Join(names, " and "), cmp.Or(strings.Join(drivers, " and "), "none"), t.user.name)
	case len(drivers) > 1:
		return "", fmt.Errorf("%s holds images of the storage drivers %s: ask podman info as %s, and remove the store that it does not use",
			graphRoot, strings.Join(drivers, " and "), t.user.name)
	case len(drivers) == 1:
		return drivers[0], nil
	}
	return "", nil
}

var (
	// Keys and values of a page follow each other in order (podman v4.3.1,
	// libpod/boltdb_state_internal.go: graph-driver-name, graph-root).
	boltDriver = regexp.MustCompile(`graph-driver-name([a-z-]{3,20}?)graph-root`)
	// The columns of a row follow each other (podman v5.4.2, libpod/sqlite_state_internal.go:
	// GraphRoot, RunRoot, GraphDriver, VolumeDir).
	sqliteDriver = regexp.MustCompile(`(?:/containers|/run)(overlay|vfs|btrfs|zfs|aufs|devicemapper)/[^\x00]{1,1000}/volumes`)
)

// databaseDrivers returns the storage drivers that libpod's database may name.
func databaseDrivers(data []byte) []string {
	var drivers []string
	for _, form := range []*regexp.Regexp{boltDriver, sqliteDriver} {
		for _, match := range form.FindAllSubmatch(data, -1) {
			if driver := string(match[1]); !slices.Contains(drivers, driver) {
				drivers = append(drivers, driver)
			}
		}
	}
	return drivers
}

// makeTemp makes the directory in which podman keeps an archive while it loads it,
// below base, with the user's rights. The state names it first, so that the next
// run can remove what a killed one left.
func (r *run) makeTemp(ctx context.Context, t *target, base string, temporary *journal) error {
	dir := filepath.Join(base, workPrefix+rand.Text())
	if visible(dir) != dir {
		return fmt.Errorf("temporary directory %q: control characters", base)
	}
	if err := temporary.replace("", temporaryLine(t.user, dir)); err != nil {
		return err
	}
	t.temp = dir
	if _, err := r.asUser(ctx, t, "mkdir", "-m", "700", "--", dir); err != nil {
		return errors.Join(err, r.removeTemp(ctx, t, temporary))
	}
	return nil
}

func temporaryLine(a account, dir string) string {
	return strconv.FormatUint(uint64(a.uid), 10) + " " + dir
}

// removeTemp removes the directory of makeTemp.
func (r *run) removeTemp(ctx context.Context, t *target, temporary *journal) error {
	dir := t.temp
	t.temp = ""
	if _, err := r.asUser(context.WithoutCancel(ctx), t, "rm", "-rf", "--", dir); err != nil {
		return err
	}
	return temporary.replace(temporaryLine(t.user, dir), "")
}

// removeLeftovers removes the directories of makeTemp that killed runs left. It is
// called with the lock held, so nobody uses them.
func (r *run) removeLeftovers(ctx context.Context, temporary *journal) {
	for _, line := range slices.Clone(temporary.lines) {
		uid, dir, ok := strings.Cut(line, " ")
		a, known := r.lookup(ctx, uid)
		if !ok || !known || !strings.HasPrefix(filepath.Base(dir), workPrefix) || filepath.Clean(dir) != dir {
			continue
		}
		t := &target{user: a, other: a.uid != r.me.uid, env: r.userEnv(a), temp: dir}
		if err := r.removeTemp(ctx, t, temporary); err != nil {
			fmt.Fprintln(r.Stderr, visible(fmt.Sprintf("left by a killed run: %s: %s", dir, err)))
		}
	}
}
