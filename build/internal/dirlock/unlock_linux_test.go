package dirlock

import (
	"os"
	"strconv"
	"syscall"
	"testing"
)

// TestUnlockWhileAProgramStarts unlocks a directory whose descriptor has a copy, as a
// program has that is being started.
func TestUnlockWhileAProgramStarts(t *testing.T) {
	dir := t.TempDir()
	unlock, err := Lock([]string{dir}, nil)
	if err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	duplicate := -1
	for _, entry := range entries {
		if target, err := os.Readlink("/proc/self/fd/" + entry.Name()); err != nil || target != dir {
			continue
		}
		fd, err := strconv.Atoi(entry.Name())
		if err != nil {
			t.Fatal(err)
		}
		if duplicate, err = syscall.Dup(fd); err != nil {
			t.Fatal(err)
		}
		defer syscall.Close(duplicate)
		break
	}
	if duplicate < 0 {
		t.Fatalf("no descriptor of %s", dir)
	}
	unlock()
	unlock, err = Lock([]string{dir}, nil)
	if err != nil {
		t.Fatal(err)
	}
	unlock()
}
