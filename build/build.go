// Package build is the line from helper tarballs to packages: archives, then
// packages, then verify. It reads the configuration, calls the stages in their
// order and tells the user; what a stage does stands in the stage's package.
package build

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"

	"pretag/build/internal/atomicfile"
	"pretag/build/internal/dirlock"
	"pretag/build/release"
)

// format counts the changes of what archives hold. Raise it with each change
// that gives other bytes for the same input.
const format = 1

// tool names what decides an archive's bytes beside input and settings: this
// project's format, Go, and what compresses.
func (c Config) tool() string {
	tool := fmt.Sprintf("pretag/%d %s", format, runtime.Version())
	if program := c.Compression.Program(); program != "" {
		tool += " " + program
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, module := range info.Deps {
			if module.Path == "github.com/klauspost/compress" {
				tool += " compress/" + module.Version
			}
		}
	}
	return tool
}

// lockOut locks a directory that is written into.
func lockOut(dir string) (unlock func(), err error) { return dirlock.Lock([]string{dir}, nil) }

// lock locks what a build writes into and reads from. OUT/helper-images is locked
// by itself, because it may be the HELPER_IMAGES that pull and unpack write into.
func (c Config) lock() (unlock func(), err error) {
	return dirlock.Lock([]string{c.Out, filepath.Join(c.Out, release.ArchivesDir)}, []string{c.Inputs})
}

// Clean removes the folder that everything is written to: not where OUT is a
// mistake, the folder of the tarballs or one that the project lies in.
func Clean(c Config) error {
	if _, err := os.Stat(c.Out); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	unlock, err := lockOut(c.Out)
	if err != nil {
		return err
	}
	defer unlock()
	folder, err := resolve(c.Out) // OUT may be a link to where there is room
	if err != nil {
		return err
	}
	project, err := resolve(".")
	if err != nil {
		return err
	}
	if project == folder || strings.HasPrefix(project, strings.TrimSuffix(folder, "/")+"/") {
		return fmt.Errorf("clean: OUT=%s holds the project: nothing removed", c.Out)
	}
	if inputs, err := resolve(c.Inputs); err == nil && inputs == folder {
		return fmt.Errorf("clean: OUT=%s is HELPER_IMAGES too: nothing removed", c.Out)
	}
	return errors.Join(os.RemoveAll(folder), os.RemoveAll(c.Out))
}

// resolve is the absolute path of a file, without links.
func resolve(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(path)
}

// cleanUp removes what a killed run left unfinished in OUT: not in the folders of
// other targets, which may be at work there.
func (c Config) cleanUp() error {
	var errs []error
	for _, folder := range []string{".", release.ArchivesDir, release.SBOMDir, release.RPM, release.Deb, "verify", loaderDir} {
		errs = append(errs, atomicfile.Clean(filepath.Join(c.Out, folder)))
	}
	return errors.Join(errs...)
}
