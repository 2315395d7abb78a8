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
	"slices"
	"syscall"
)

// Lock locks the directories of write against all others, and those of read
// against those that write. A missing directory of write is made, one of read is
// left out. Lock does not wait: a lock that another process has is an error. The
// locks are the kernel's and end with the process, or when unlock is called.
func Lock(write, read []string) (unlock func(), err error) {
	var locked []*os.File
	unlock = func() {
		for _, dir := range locked {
			// A program that is being started has the descriptor, too, until it runs:
			// closing ours alone would leave the lock for that time (flock(2)).
			_ = syscall.Flock(int(dir.Fd()), syscall.LOCK_UN)
			dir.Close()
		}
	}
	for i, name := range slices.Concat(write, read) {
		writes := i < len(write)
		if writes {
			if err := os.MkdirAll(name, 0o755); err != nil {
				unlock()
				return nil, err
			}
		}
		dir, err := os.Open(name)
		if errors.Is(err, fs.ErrNotExist) && !writes {
			continue
		}
		if err == nil && slices.ContainsFunc(locked, func(other *os.File) bool { return same(other, dir) }) {
			dir.Close()
			continue
		}
		if err == nil {
			locked = append(locked, dir)
			how := syscall.LOCK_SH
			if writes {
				how = syscall.LOCK_EX
			}
			err = syscall.Flock(int(dir.Fd()), how|syscall.LOCK_NB)
		}
		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = errors.New("another pretag is using it")
		}
		if err != nil {
			unlock()
			return nil, fmt.Errorf("lock %s: %w", name, err)
		}
	}
	return unlock, nil
}

// same reports whether two open directories are one: a process that opens a
// directory twice would lock itself out.
func same(a, b *os.File) bool {
	x, err := a.Stat()
	y, err2 := b.Stat()
	return err == nil && err2 == nil && os.SameFile(x, y)
}
