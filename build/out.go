package build

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"pretag/build/internal/atomicfile"
	"pretag/build/internal/dirlock"
	"pretag/build/release"
)

// lockOut locks a directory that is written into.
func lockOut(dir string) (unlock func(), err error) { return dirlock.Lock([]string{dir}, nil) }

// lock locks what a build writes into and reads from. OUT/helper-images is locked
// by itself, because it may be the HELPER_IMAGES that pull and unpack write into.
func (c Config) lock() (unlock func(), err error) {
	return dirlock.Lock([]string{c.Out, filepath.Join(c.Out, release.ArchivesDir)}, []string{c.Inputs})
}

// Clean removes OUT. It refuses if OUT is HELPER_IMAGES, or contains the working
// directory.
func Clean(c Config) error {
	if _, err := os.Stat(c.Out); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	unlock, err := lockOut(c.Out)
	if err != nil {
		return err
	}
	defer unlock()
	folder, err := resolve(c.Out) // OUT may be a symbolic link to a larger disk
	if err != nil {
		return err
	}
	project, err := resolve(".")
	if err != nil {
		return err
	}
	if project == folder || strings.HasPrefix(project, strings.TrimSuffix(folder, "/")+"/") {
		return fmt.Errorf("clean: OUT=%s contains the working directory: nothing removed", c.Out)
	}
	if inputs, err := resolve(c.Inputs); err == nil && inputs == folder {
		return fmt.Errorf("clean: OUT=%s is HELPER_IMAGES too: nothing removed", c.Out)
	}
	return errors.Join(os.RemoveAll(folder), os.RemoveAll(c.Out))
}

// resolve returns the absolute path of a file, without symbolic links.
func resolve(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(path)
}

// cleanUp removes the unfinished files of a killed run. It leaves the directories
// of other targets, which may be running.
func cleanUp(out string) error {
	var errs []error
	for _, dir := range []string{".", release.ArchivesDir, release.SBOMDir, release.RPM, release.Deb, release.VerifyDir, loaderDir} {
		errs = append(errs, atomicfile.Clean(filepath.Join(out, dir)))
	}
	return errors.Join(errs...)
}

// warnOfOthers names the files below OUT that an earlier build delivered and this
// one did not.
func warnOfOthers(out string, delivered []string, ui *UI) error {
	var others []string
	for _, folder := range []string{release.ArchivesDir, release.RPM, release.Deb, release.SBOMDir} {
		entries, err := os.ReadDir(filepath.Join(out, folder))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		for _, entry := range entries {
			if name := path.Join(folder, entry.Name()); !slices.Contains(delivered, name) {
				others = append(others, name)
			}
		}
	}
	if len(others) > 0 {
		ui.Warn("left by another build: %s (%d files in all); verify reports them, so remove them, or run clean first", filepath.Join(out, others[0]), len(others))
	}
	return nil
}
