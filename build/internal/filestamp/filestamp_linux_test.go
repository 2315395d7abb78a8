package filestamp_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"pretag/build/internal/filestamp"
)

// of is the stamp of a file that has not changed for long enough to have one.
func of(t *testing.T, path string) filestamp.Stamp {
	t.Helper()
	for {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if stamp := filestamp.Of(info); stamp != "" {
			return stamp
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// Whatever happens to a file gives it another stamp, also what leaves its size
// and its time of modification.
func TestOf(t *testing.T) {
	for name, change := range map[string]func(path string, was os.FileInfo) error{
		"written to, and its time put back": func(path string, was os.FileInfo) error {
			if err := os.WriteFile(path, []byte("other"), 0o644); err != nil {
				return err
			}
			return os.Chtimes(path, was.ModTime(), was.ModTime())
		},
		"replaced by another of the same time": func(path string, was os.FileInfo) error {
			if err := os.WriteFile(path+".new", []byte("other"), 0o644); err != nil {
				return err
			}
			if err := os.Chtimes(path+".new", was.ModTime(), was.ModTime()); err != nil {
				return err
			}
			return os.Rename(path+".new", path)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "file")
			if err := os.WriteFile(path, []byte("first"), 0o644); err != nil {
				t.Fatal(err)
			}
			was, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			if stamp := filestamp.Of(was); stamp != "" {
				t.Errorf("a file that has just changed has the stamp %q", stamp)
			}
			before := of(t, path)
			if again := of(t, path); again != before {
				t.Errorf("unchanged: stamps %q and %q", before, again)
			}
			if err := change(path, was); err != nil {
				t.Fatal(err)
			}
			if is, err := os.Stat(path); err != nil || is.Size() != was.Size() || !is.ModTime().Equal(was.ModTime()) {
				t.Fatalf("want the size and time of before: %v, %v", is, err)
			}
			if after := of(t, path); after == before {
				t.Errorf("changed: the stamp is still %q", after)
			}
		})
	}
}
