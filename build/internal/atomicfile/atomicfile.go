// Package atomicfile writes files that are complete or not there.
package atomicfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"syscall"
)

// TempSuffix ends the names of unfinished files: .<name>.<random>.pretag-tmp.
const TempSuffix = ".pretag-tmp"

// Write replaces the file at path with what fill writes: it writes a temporary file in
// the same directory, syncs it and renames it. If any of that fails, it removes the
// temporary file and leaves the old file. Last it syncs the directory: if that fails,
// the new file is in place, but a loss of power may undo the rename. The file's mode is
// 0644 whatever the umask.
func Write(path string, fill func(*os.File) error) error {
	dir, base := filepath.Split(path)
	f, err := os.CreateTemp(filepath.Clean(dir), "."+base+".*"+TempSuffix)
	if err != nil {
		return err
	}
	err = fill(f)
	if err == nil {
		err = errors.Join(f.Chmod(0o644), f.Sync())
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return syncDir(dir)
}

// Rename renames a synced file and replaces the file that has the new name.
func Rename(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return err
	}
	return syncDir(filepath.Dir(to))
}

// WriteBytes replaces the file at path with data.
func WriteBytes(path string, data []byte) error {
	return Write(path, func(f *os.File) error {
		_, err := f.Write(data)
		return err
	})
}

// unfinished matches the names that Write, and os.MkdirTemp with TempSuffix, give:
// os.CreateTemp puts a number in place of the star.
var unfinished = regexp.MustCompile(`^\..+\.[0-9]+` + regexp.QuoteMeta(TempSuffix) + `$`)

// Clean removes unfinished files and directories of a killed process from dir. The
// caller prevents other processes from writing there.
func Clean(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	errs := []error{err}
	for _, entry := range entries {
		if name := entry.Name(); unfinished.MatchString(name) {
			errs = append(errs, os.RemoveAll(filepath.Join(dir, name)))
		}
	}
	return errors.Join(errs...)
}

// syncDir makes renames permanent. Some file systems, such as FUSE's, cannot sync a
// directory, which is not an error.
func syncDir(dir string) error {
	d, err := os.Open(filepath.Clean(dir))
	if err != nil {
		return err
	}
	err = d.Sync()
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, errors.ErrUnsupported) {
		err = nil
	}
	return errors.Join(err, d.Close())
}
