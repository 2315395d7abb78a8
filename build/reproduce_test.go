package build_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"pretag/build"
	"pretag/build/testutil"
)

func TestCompareTrees(t *testing.T) {
	a, b := t.TempDir(), t.TempDir()
	for path, body := range map[string]string{
		a + "/same": "x", b + "/same": "x", a + "/other": "x", b + "/other": "y", a + "/first": "x", b + "/second": "x",
	} {
		write(t, path, []byte(body))
	}
	same, differences, err := build.CompareTrees(t.Context(), a, b)
	if diff := cmp.Diff([]string{"first", "other", "second"}, differences); err != nil || same != 1 || diff != "" {
		t.Errorf("%d %v\n%s", same, err, diff)
	}
}

// A key that can be read only once is refused, because two builds read it.
func TestReproduceRefusesPipe(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	fifo := filepath.Join(t.TempDir(), "key")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{fifo, fmt.Sprint("/dev/fd/", r.Fd())} {
		b := newBench(t, "alpine-x86_64.tar")
		err := b.run(t, func(ctx context.Context, c build.Config, ui *build.UI) error {
			return build.Reproduce(ctx, c, nil, ui)
		}, "HELPERS=alpine-x86_64", "GPG_KEY_PATH="+key)
		testutil.WantError(t, err, "GPG_KEY_PATH names a pipe, and reproduce reads the key twice; want a file")
		b.leavesNothing(t)
	}
}
