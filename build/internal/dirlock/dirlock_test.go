package dirlock

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestLock(t *testing.T) {
	out, in, link := filepath.Join(t.TempDir(), "out"), t.TempDir(), filepath.Join(t.TempDir(), "link")
	shared := filepath.Join(out, "helper-images")
	if err := os.Symlink(in, link); err != nil {
		t.Fatal(err)
	}
	type dirs struct{ write, read []string }
	for name, row := range map[string]struct {
		first, second dirs
		excluded      string // the directory that the second one does not get
	}{
		"two builds":                {dirs{[]string{out}, []string{in}}, dirs{[]string{out}, []string{in}}, out},
		"two builds of one input":   {dirs{[]string{out}, []string{in}}, dirs{[]string{shared}, []string{in}}, ""},
		"pull and build":            {dirs{[]string{in}, nil}, dirs{[]string{out}, []string{in}}, in},
		"build and pull":            {dirs{[]string{out}, []string{in}}, dirs{[]string{in}, nil}, in},
		"by another name":           {dirs{[]string{out}, []string{link}}, dirs{[]string{in}, nil}, in},
		"one directory twice":       {dirs{[]string{out, in}, []string{in, link}}, dirs{nil, nil}, ""},
		"pull into a build":         {dirs{[]string{out, shared}, []string{in}}, dirs{[]string{shared}, nil}, shared},
		"nothing to read":           {dirs{nil, []string{"missing"}}, dirs{nil, []string{"missing"}}, ""},
		"read what another writes":  {dirs{[]string{in}, nil}, dirs{nil, []string{in}}, in},
		"two that read":             {dirs{nil, []string{in}}, dirs{nil, []string{in}}, ""},
		"a directory that both use": {dirs{[]string{in}, []string{out}}, dirs{[]string{in}, nil}, in},
	} {
		t.Run(name, func(t *testing.T) {
			unlock, err := Lock(row.first.write, row.first.read)
			if err != nil {
				t.Fatal(err)
			}
			other, err := Lock(row.second.write, row.second.read)
			if want := "lock " + row.excluded + ": another pretag is using it"; row.excluded != "" {
				if err == nil || err.Error() != want {
					t.Errorf("error %v, want %s", err, want)
				}
			} else if err != nil {
				t.Error(err)
			}
			if other != nil {
				other()
			}
			unlock()
			// What was locked before the error is free again.
			if unlock, err = Lock(append(row.first.write, row.second.write...), nil); err != nil {
				t.Fatal(err)
			}
			unlock()
		})
	}
	if _, err := os.Stat("missing"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a directory that is only read was made: %v", err)
	}
}

// Lock removes the directories that it made if nothing is in them, also after an error.
func TestLockRemovesEmpty(t *testing.T) {
	dir := t.TempDir()
	used, empty, mine := filepath.Join(dir, "a", "used"), filepath.Join(dir, "a", "b", "empty"), filepath.Join(dir, "mine")
	if err := os.Mkdir(mine, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, last := range []string{"", filepath.Join(used, "file", "x")} { // the second cannot be made
		unlock, err := Lock([]string{used, empty, mine}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(used, "file"), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		unlock()
		if last != "" {
			if _, err := Lock([]string{empty, last}, nil); err == nil {
				t.Error("no error")
			}
		}
		left, err := filepath.Glob(filepath.Join(dir, "*", "*"))
		if _, mineErr := os.Stat(mine); err != nil || mineErr != nil || len(left) != 1 || left[0] != used {
			t.Errorf("left %q, %v, %v, want %q and %q", left, err, mineErr, used, mine)
		}
	}
}
