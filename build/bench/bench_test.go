package bench

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"pretag/build/testutil"
)

func TestMeasure(t *testing.T) {
	testutil.Tool(t, "unshare")
	// A process that is not waited for holds 64 MB; another one computes.
	const script = `
sh -c 'x=$(head -c 64000000 /dev/zero | tr "\0" x); touch filled; sleep 1; : "$x"' &
until [ -e filled ]; do sleep 0.1; done
sh -c 'i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done'
sleep 0.5
printf hello >result
sleep 1000 &
`
	u, err := measure(t.Context(), t.TempDir(), os.Environ(), script)
	if err != nil {
		t.Fatal(err)
	}
	if u.Size != 5 || u.Memory < 64_000_000 || u.CPU == 0 {
		t.Errorf("%+v, want 5 bytes, 64 MB of memory at least and some CPU", u)
	}
}

func TestMeasureFails(t *testing.T) {
	for script, want := range map[string]string{
		"echo the reason; exit 3": "exit status 3: the reason",
		"true":                    "result: no such file or directory",
	} {
		if _, err := measure(t.Context(), t.TempDir(), os.Environ(), script); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want one that holds %q", script, err, want)
		}
	}
}

func TestMeasureIsCancelled(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if u, err := measure(ctx, t.TempDir(), os.Environ(), "sleep 1000 & sleep 1000"); err == nil {
		t.Errorf("%+v, want an error", u)
	}
}

// Minutes of benchmarks must not end in an error about a program that was not there at their start.
func TestCompareWithoutInputs(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	r, err := Compare(t.Context(), Options{Dir: t.TempDir(), Rounds: 1, Say: t.Logf})
	want := Report{Missing: []string{"whole builds: no mmdebstrap, which makes the root filesystems"}}
	if diff := cmp.Diff(want, r); err != nil || diff != "" {
		t.Errorf("error %v (-want +got):\n%s", err, diff)
	}
}

func TestTable(t *testing.T) {
	pretag := []Usage{{Wall: time.Second, CPU: 2 * time.Second, Memory: 100e6, Size: 10e6}, {Wall: 3 * time.Second, CPU: 2 * time.Second, Memory: 100e6, Size: 10e6}}
	other := []Usage{{Wall: 4 * time.Second, CPU: 4 * time.Second, Memory: 400e6, Size: 5e6}, {Wall: 4 * time.Second, CPU: 8 * time.Second, Memory: 400e6, Size: 5e6}}
	r := Report{Rows: []Row{{"archive", "pretag", pretag, pretag}, {"archive", "other", other, pretag}}, Missing: []string{"third: no podman"}}
	want := `| WHAT | WAY | WALL s | CPU s | CORES | MEMORY MB | SIZE MB | PRETAG: WALL | CPU | MEMORY | SIZE |
|---|---|---|---|---|---|---|---|---|---|---|
| archive | pretag | 2.0 | 2.0 | 1.33 | 100 | 10.0 | 1.00 | 1.00 | 1.00 | 1.00 |
| archive | other | 4.0 | 6.0 | 1.50 | 400 | 5.0 | 0.50 | 0.38 | 0.25 | 2.00 |

Not measured: third: no podman
`
	if diff := cmp.Diff(want, r.Markdown()); diff != "" {
		t.Error(diff)
	}
}

// Each comparison begins with a way of pretag's, and each script is in one.
func TestWays(t *testing.T) {
	var used []string
	for _, c := range comparisons(inputs{}) {
		if !strings.HasPrefix(c.ways[0], "pretag") {
			t.Errorf("%s begins with %s", c.what, c.ways[0])
		}
		used = append(used, c.ways...)
	}
	files, err := filepath.Glob("ways/*.sh")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".sh")
		w, err := loadWay(name)
		if err != nil || w.name == "" || !slices.Contains(used, name) {
			t.Errorf("%s: called %q, in a comparison: %t, %v", file, w.name, slices.Contains(used, name), err)
		}
		if out, err := exec.Command("sh", "-n", file).CombinedOutput(); err != nil {
			t.Errorf("%s: %s", file, out)
		}
	}
}
