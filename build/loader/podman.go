package loader

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
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
	t.env = nil
	if t.user.uid == r.me.uid {
		return nil
	}
	var err error
	if t.user, err = r.withGroups(ctx, t.user); err != nil || t.engine == "docker" {
		return err
	}
	if err := r.makeDir(ctx, t); err != nil {
		return err
	}
	runtime := filepath.Join("/run/user", t.user.number())
	if info, err := os.Lstat(runtime); err != nil || !info.IsDir() || info.Sys().(*syscall.Stat_t).Uid != t.user.uid {
		runtime = t.dir
	}
	setting, err := r.writeConf(ctx, t)
	if err != nil {
		return err
	}
	if err := os.Chown(t.dir, int(t.user.uid), int(t.user.gid)); err != nil {
		return err
	}
	t.env = []string{"XDG_RUNTIME_DIR=" + runtime, setting}
	driver, err := r.storageDriver(ctx, t.user, r.graphRoot(ctx, t.user))
	if driver != "" {
		t.env = append(t.env, "STORAGE_DRIVER="+driver)
	}
	return err
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
		pid, err := r.as(ctx, t.user, "head", "-c", "20", "--", filepath.Join(t.dir, name))
		if err != nil {
			continue // there is none
		}
		if number, err := strconv.ParseUint(string(bytes.TrimSpace(pid)), 10, 31); err == nil && number > 1 {
			_, _ = r.as(ctx, t.user, "kill", "-KILL", strconv.FormatUint(number, 10)) // it may be gone
		}
	}
	err := errors.Join(os.RemoveAll(t.dir), t.lock.Close()) // RemoveAll follows no links
	t.dir = ""
	return err
}

// makeDir makes the directory of a target in /run, where only root can, after it has
// removed those of runs that were killed. A run holds a lock on its directory.
func (r *run) makeDir(ctx context.Context, t *target) error {
	prefix := r.path("/run/" + workPrefix)
	old, err := filepath.Glob(prefix + "*")
	if err != nil {
		return err
	}
	for _, dir := range old {
		if err := r.removeStale(ctx, dir); err != nil {
			r.warn("left by a killed run: %s", err)
		}
	}
	for {
		dir, err := os.MkdirTemp(filepath.Dir(prefix), workPrefix+t.user.number()+".")
		if err != nil {
			return err
		}
		f, err := lockFile(dir, syscall.O_DIRECTORY)
		switch {
		case f != nil:
			t.dir, t.lock = dir, f
			return nil
		case err != nil && !errors.Is(err, os.ErrNotExist):
			return errors.Join(err, os.Remove(dir))
		}
		// Another run has removed the directory before it was locked: try again.
	}
}

// removeStale removes the directory of a target that a killed run has left.
func (r *run) removeStale(ctx context.Context, dir string) error {
	f, err := lockFile(dir, syscall.O_DIRECTORY)
	if f == nil {
		return err
	}
	uid, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(dir), workPrefix), ".")
	if a, ok := r.lookup(ctx, uid); ok {
		return r.leave(ctx, &target{user: a, dir: dir, lock: f})
	}
	return errors.Join(os.RemoveAll(dir), f.Close())
}

// writeConf writes the settings that keep libpod's records private, and returns the
// variable by which podman reads them. From 4.4 on CONTAINERS_CONF_OVERRIDE adds
// settings to all others; below, CONTAINERS_CONF replaces them, so the others
// have to be read here (containers/common v0.51, pkg/config/config.go).
func (r *run) writeConf(ctx context.Context, t *target) (setting string, err error) {
	version, err := r.as(ctx, r.me, "podman", "--version")
	if err != nil {
		return "", err
	}
	var major, minor int
	if _, err := fmt.Sscanf(string(version), "podman version %d.%d", &major, &minor); err != nil {
		return "", fmt.Errorf("podman --version: %q names no version", version)
	}
	conf := map[string]any{}
	variable := "CONTAINERS_CONF_OVERRIDE"
	if major < 4 || major == 4 && minor < 4 {
		variable = "CONTAINERS_CONF"
		if conf, err = r.currentConf(ctx, t.user); err != nil {
			return "", err
		}
	}
	merge(conf, map[string]any{"engine": map[string]any{
		"static_dir": filepath.Join(t.dir, "static"),
		"tmp_dir":    filepath.Join(t.dir, "tmp"),
		"lock_type":  "file",
	}})
	text, err := toml.Marshal(conf)
	if err != nil {
		return "", err
	}
	path := filepath.Join(t.dir, "containers.conf")
	return variable + "=" + path, os.WriteFile(path, text, 0o644)
}

// currentConf merges the files of containers.conf(5), the system's and the user's.
func (r *run) currentConf(ctx context.Context, user account) (map[string]any, error) {
	all := map[string]any{}
	dropIns, err := filepath.Glob(r.path("/etc/containers/containers.conf.d/*.conf"))
	if err != nil {
		return nil, err
	}
	for _, path := range append([]string{r.path("/usr/share/containers/containers.conf"), r.path("/etc/containers/containers.conf")}, dropIns...) {
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
	var own map[string]any
	if toml.Unmarshal(r.userFile(ctx, user, ".config/containers/containers.conf"), &own) == nil {
		merge(all, own) // if it is not valid, podman reports that to its user
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

// userFile returns the content of a file in the user's home, read with the user's
// rights; nil if there is none.
func (r *run) userFile(ctx context.Context, user account, name string) []byte {
	out, err := r.as(ctx, user, "head", "-c", strconv.Itoa(maxConfig), "--", filepath.Join(user.home, name))
	if err != nil {
		return nil
	}
	return out
}

// graphRoot returns where a user's podman keeps images: what the user's
// storage.conf says, or the system's for rootless users, or the default
// (containers/storage v1.43 and v1.59, types/options.go).
func (r *run) graphRoot(ctx context.Context, user account) string {
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
	if toml.Unmarshal(r.userFile(ctx, user, ".config/containers/storage.conf"), &storage) == nil {
		path = cmp.Or(storage.Storage.GraphRoot, path)
	}
	path = os.Expand(path, func(name string) string {
		return map[string]string{"HOME": user.home, "USER": user.name, "UID": user.number()}[name]
	})
	return cmp.Or(path, filepath.Join(user.home, ".local/share/containers/storage"))
}

// imagesDir matches the directory in which a storage driver keeps what it knows of images.
var imagesDir = regexp.MustCompile(`^(overlay|vfs|btrfs|zfs|aufs|devicemapper|fuse-overlayfs)-images$`)

// storageDriver returns the driver of a user's store, "" if the store is new. libpod
// records the driver of its first run in its database, which wins over every
// configuration, and which is hidden while the loader runs podman for the user. A
// second driver in the same place would be a store that the user's podman does
// not see, so nothing is done if the driver is not certain.
func (r *run) storageDriver(ctx context.Context, user account, graphRoot string) (string, error) {
	listing, err := r.as(ctx, user, "ls", "-A", "--", graphRoot)
	if err != nil {
		return "", nil // the store does not exist yet
	}
	var drivers, recorded []string
	for line := range strings.Lines(string(listing)) {
		if match := imagesDir.FindStringSubmatch(strings.TrimSuffix(line, "\n")); match != nil {
			drivers = append(drivers, match[1])
		}
	}
	for _, name := range []string{"libpod/bolt_state.db", "db.sql", "libpod/db.sql"} {
		if data, err := r.as(ctx, user, "head", "-c", strconv.Itoa(maxAnswer), "--", filepath.Join(graphRoot, name)); err == nil {
			recorded = append(recorded, databaseDrivers(data)...)
		}
	}
	slices.Sort(recorded)
	recorded = slices.Compact(recorded)
	switch {
	case len(recorded) == 1 && (len(drivers) == 0 || slices.Contains(drivers, recorded[0])):
		return recorded[0], nil
	case len(recorded) > 0:
		return "", fmt.Errorf("podman's database in %s names the storage driver %s, but the store has images of %s: run podman info as %s, and remove the store that it does not use",
			graphRoot, strings.Join(recorded, " and "), cmp.Or(strings.Join(drivers, " and "), "no driver"), user.name)
	case len(drivers) > 1:
		return "", fmt.Errorf("%s holds images of the storage drivers %s: run podman info as %s, and remove the store that it does not use",
			graphRoot, strings.Join(drivers, " and "), user.name)
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
			drivers = append(drivers, string(match[1]))
		}
	}
	return drivers
}

// makeTemp makes a directory below base in which podman keeps an archive while it
// loads it, with the user's rights. The state names it first, so that the next
// run can remove what a killed one left.
func (r *run) makeTemp(ctx context.Context, user account, base string) (string, error) {
	dir := filepath.Join(base, workPrefix+rand.Text())
	if visible(dir) != dir {
		return "", fmt.Errorf("temporary directory %q: control characters", base)
	}
	if err := r.temporary.replace("", user.number()+" "+dir); err != nil {
		return "", err
	}
	if _, err := r.as(ctx, user, "mkdir", "-m", "700", "--", dir); err != nil {
		return "", errors.Join(err, r.removeTemp(ctx, user, dir))
	}
	return dir, nil
}

// removeTemp removes the directory of makeTemp.
func (r *run) removeTemp(ctx context.Context, user account, dir string) error {
	if _, err := r.as(context.WithoutCancel(ctx), user, "rm", "-rf", "--", dir); err != nil {
		return err
	}
	return r.temporary.replace(user.number()+" "+dir, "")
}

// removeLeftovers removes the directories of makeTemp that killed runs left. It needs
// the lock, so that nobody uses them.
func (r *run) removeLeftovers(ctx context.Context) {
	for _, line := range slices.Clone(r.temporary.lines) {
		uid, dir, ok := strings.Cut(line, " ")
		a, known := r.lookup(ctx, uid)
		if !ok || !known || !strings.HasPrefix(filepath.Base(dir), workPrefix) || filepath.Clean(dir) != dir {
			continue
		}
		if err := r.removeTemp(ctx, a, dir); err != nil {
			r.warn("left by a killed run: %s: %s", dir, err)
		}
	}
}
