package loader

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"pretag/build/internal/atomicfile"
)

// maxState bounds a file of the state, in bytes.
const maxState = 16 << 20

// An entry is one line of the state: an image that this loader has loaded, or has
// found in the store with the content of an archive.
type entry struct {
	engine, user string
	repoTag      string
	id           string // what the engine calls the image
	imageID      string // of the archive
	how          string // loaded, found, or loading until it is known that it was loaded
}

func (e entry) String() string {
	return strings.Join([]string{e.engine, e.user, e.repoTag, e.id, e.imageID, e.how}, " ")
}

// parseEntry reads a line of the state; ok is false for one that is not an entry.
func parseEntry(line string) (e entry, ok bool) {
	fields := strings.Split(line, " ")
	if len(fields) != 6 {
		return entry{}, false
	}
	e = entry{fields[0], fields[1], fields[2], fields[3], fields[4], fields[5]}
	return e, referenceForm.MatchString(e.repoTag) && hex64.MatchString(e.id) && hex64.MatchString(e.imageID) &&
		slices.Contains([]string{"loaded", "found", "loading"}, e.how)
}

// A journal is a file of lines in the state directory, replaced as a whole.
// Lines that this version does not understand are kept.
type journal struct {
	path  string
	lines []string
}

// readState reads the files of the state.
func (r *run) readState() error {
	r.images, r.temporary = &journal{path: filepath.Join(r.state, "images")}, &journal{path: filepath.Join(r.state, "temporary")}
	for _, j := range []*journal{r.images, r.temporary} {
		data, err := readSmall(j.path, maxState)
		if err != nil && !errors.Is(err, fs.ErrNotExist) && (r.me.uid == 0 || !errors.Is(err, fs.ErrPermission)) {
			return fmt.Errorf("read state: %w", err)
		}
		for line := range strings.Lines(string(data)) {
			j.lines = append(j.lines, strings.TrimRight(line, "\n"))
		}
	}
	return nil
}

// replace replaces one line by another in the file; "" is no line. If
// that fails, the file is as it was.
func (j *journal) replace(before, after string) error {
	var lines []string
	for _, line := range j.lines {
		if line != before && line != after {
			lines = append(lines, line)
		}
	}
	if after != "" {
		lines = append(lines, after)
	}
	if slices.Equal(lines, j.lines) {
		return nil
	}
	text := ""
	if len(lines) > 0 {
		text = strings.Join(lines, "\n") + "\n"
	}
	if err := errors.Join(atomicfile.WriteBytes(j.path, []byte(text)), os.Chmod(j.path, 0o600)); err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	j.lines = lines
	return nil
}

// entries returns the lines about one target.
func (j *journal) entries(t *target) []entry {
	var entries []entry
	for _, line := range j.lines {
		if e, ok := parseEntry(line); ok && e.engine == t.word && e.user == t.user.name {
			entries = append(entries, e)
		}
	}
	return entries
}

// lock keeps other loaders out until this process ends, and reads the state. Only the
// owner of the state can open the lock file: with read permission others could hold
// the lock.
func (r *run) lock(ctx context.Context) error {
	if err := os.MkdirAll(r.state, 0o700); err != nil {
		return failure{statusOf(err, exitNoPerm), err}
	}
	path := filepath.Join(r.state, "lock")
	// One that earlier versions made may be open elsewhere.
	if info, err := os.Lstat(path); err == nil && (!info.Mode().IsRegular() || info.Mode().Perm() != 0o600) {
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	for deadline := time.Now().Add(r.lockLimit); ; {
		f, err := lockFile(path, os.O_RDWR|os.O_CREATE)
		switch {
		case err != nil:
			return failure{statusOf(err, exitNoPerm), err}
		case f != nil:
			r.locked = f // kept open, and so the lock, until the process ends
			return errors.Join(atomicfile.Clean(r.state), r.readState())
		case time.Now().After(deadline):
			return failf(exitTempFail, "another loader is running: it has locked %s", path)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// lockFile opens a file or directory and locks it. It returns nil if another process
// has the lock, or has replaced the file meanwhile.
func lockFile(path string, flag int) (*os.File, error) {
	f, err := os.OpenFile(path, flag|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err == nil {
		opened, err := f.Stat()
		there, err2 := os.Lstat(path)
		if err == nil && err2 == nil && os.SameFile(opened, there) {
			return f, nil
		}
	}
	f.Close()
	if err != nil && !errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return nil, nil
}
