//go:build acceptance

package build_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	helperimages "pretag/helper-images"

	"pretag/build"
	"pretag/build/testutil"
)

// TestMain makes the test program run the target package, as Reproduce does with the
// real program.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "package" {
		if err := build.Run(context.Background(), nil, os.Environ(), build.NeedVersion, withoutLoaders); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	status := m.Run()
	os.RemoveAll(compiledDir)
	os.Exit(status)
}

// withoutLoaders is build.Package without loaders, whose sources are not here.
func withoutLoaders(ctx context.Context, c build.Config, ui *build.UI) error {
	c.LoaderArches = []string{}
	return build.Package(ctx, c, ui)
}

func TestReproduce(t *testing.T) {
	b := newBench(t, "alpine-x86_64.tar", "ubuntu-arm64.tar")
	if err := os.Chmod(filepath.Dir(b.dir), 0o755); err != nil { // so that nobody can reach it
		t.Fatal(err)
	}
	write(t, b.path("own.yaml"), helperimages.Catalogue)
	vars := []string{"CATALOGUE=" + b.path("own.yaml"), "HELPERS=alpine-x86_64,ubuntu-arm64", "RUNNER_VERSION=19.3.0", "ARCHIVE_COMPRESSION=zstd:fastest", "PATH=" + os.Getenv("PATH")}
	err := b.run(t, func(ctx context.Context, c build.Config, ui *build.UI) error {
		return build.Reproduce(ctx, c, vars, ui)
	}, vars...)
	if err != nil || !strings.Contains(b.out.String(), " files are the same in both builds") {
		t.Errorf("%v\n%s%s", err, &b.out, &b.err)
	}
	may := exec.Command("unshare", "--uts", "true").Run() == nil
	if got := strings.Contains(b.err.String(), "another-host"); got != may {
		t.Errorf("the host name differs: %t, want %t:\n%s", got, may, &b.err)
	}
	b.leavesNothing(t)
}

// In most containers root cannot set the host name.
func TestReproduceWithoutCapability(t *testing.T) {
	testutil.Root(t, "TestReproduce has no capability either")
	command := exec.CommandContext(t.Context(), testutil.Tool(t, "setpriv"), "--bounding-set=-sys_admin", "--inh-caps=-sys_admin", os.Args[0], "-test.run=^TestReproduce$")
	if out, err := command.CombinedOutput(); err != nil {
		t.Errorf("%v:\n%s", err, out)
	}
}
