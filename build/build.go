// Package build is the line from helper tarballs to packages: archives, then
// packages, then verify. It reads the configuration, calls the stages in their
// order and tells the user; what a stage does stands in the stage's package.
package build

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"runtime/debug"
	"syscall"
)

// format counts the changes of what archives hold. Raise it with each change
// that gives other bytes for the same input.
const format = 1

// Tool names what decides an archive's bytes beside input and settings: this
// project's format, Go, and the libraries that compress.
func Tool() string {
	tool := fmt.Sprintf("pretag/%d %s", format, runtime.Version())
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, module := range info.Deps {
			if module.Path == "github.com/klauspost/compress" {
				tool += " compress/" + module.Version
			}
		}
	}
	return tool
}

// lockOut keeps others from writing to the folder until unlock is called. The
// lock is the kernel's and ends with the process.
func lockOut(out string) (unlock func(), err error) {
	if err := os.MkdirAll(out, 0o755); err != nil {
		return nil, err
	}
	dir, err := os.Open(out)
	if err != nil {
		return nil, err
	}
	err = syscall.Flock(int(dir.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		err = errors.New("another pretag writes there")
	}
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", out, errors.Join(err, dir.Close()))
	}
	return func() { dir.Close() }, nil
}

// Clean removes the folder that everything is written to.
func Clean(c Config) error {
	if _, err := os.Stat(c.Out); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	unlock, err := lockOut(c.Out)
	if err != nil {
		return err
	}
	defer unlock()
	return os.RemoveAll(c.Out)
}
