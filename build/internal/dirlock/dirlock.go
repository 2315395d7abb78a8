// Package dirlock keeps processes that share a directory out of each other's way.
//
// Every stage follows one rule: lock each directory that it writes into for
// writing, and the directory of the input tarballs for reading. So two builds may
// read the same tarballs, and nothing replaces or removes them meanwhile.
package dirlock

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
)

// Lock locks the directories of write against all others, and those of read
// against those that write. A missing directory of write is made, and removed by
// unlock if it is still empty then; a missing one of read is left out. Lock does not
// wait: a lock that another process has is an error. The locks are the kernel's and
// end with the process, or when unlock is called.
func Lock(write, read []string) (unlock func(), err error) {
	var locked []*os.File
	var made []string
	unlock = func() {
		for _, dir := range slices.Backward(made) {
			_ = os.Remove(dir) // fails if something is in it
		}
		for _, dir := range locked {
			// A program that is being started has the descriptor, too, until it runs:
			// closing ours alone would leave the lock for that time (flock(2)).
			_ = syscall.Flock(int(dir.Fd()), syscall.LOCK_UN)
			dir.Close()
		}
	}
	for i, name := range slices.Concat(write, read) {
		how := syscall.LOCK_SH
		if i < len(write) {
			how = syscall.LOCK_EX
			made = append(made, missing(name)...)
			if err := os.MkdirAll(name, 0o755); err != nil {
				unlock()
				return nil, err
			}
		}
		if slices.ContainsFunc(locked, func(dir *os.File) bool { return is(dir, name) }) {
			continue // to lock it again would fail
		}
		dir, err := os.Open(name)
		if errors.Is(err, fs.ErrNotExist) && how == syscall.LOCK_SH {
			continue
		}
		if err == nil {
			locked = append(locked, dir)
			err = syscall.Flock(int(dir.Fd()), how|syscall.LOCK_NB)
		}
		// Its unlock may have removed the directory since it was opened here.
		if errors.Is(err, syscall.EWOULDBLOCK) || err == nil && !is(dir, name) {
			err = errors.New("another pretag is using it")
		}
		if err != nil {
			unlock()
			return nil, fmt.Errorf("lock %s: %w", name, err)
		}
	}
	return unlock, nil
}

// missing returns the directory and those of its parents that do not exist, parents first.
func missing(dir string) []string {
	if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return append(missing(filepath.Dir(dir)), dir)
}

// is reports whether name is that of the open directory.
func is(dir *os.File, name string) bool {
	open, err := dir.Stat()
	named, err2 := os.Stat(name)
	return err == nil && err2 == nil && os.SameFile(open, named)
}
