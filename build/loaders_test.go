package build_test

import (
	"context"
	"testing"

	"pretag/build"
	"pretag/build/testutil"
)

// TestPackageWithoutLoaders runs package where there is neither Go nor a loader: it says
// so before it makes the archives, which takes minutes.
func TestPackageWithoutLoaders(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	b := newBench(t, "alpine-s390x.tar")
	withLoaders := func(ctx context.Context, c build.Config, ui *build.UI) error {
		c.LoaderArches = nil
		return build.Package(ctx, c, ui)
	}
	err := b.run(t, withLoaders, "HELPERS=alpine-s390x")
	testutil.WantError(t, err, `loaders: nothing can be compiled here`, `run the target loaders where Go and the sources are, and set LOADERS to its output`,
		"loader/gitlab-runner-helper-images-s390x: no such file", "loader/gitlab-runner-helper-images-386: no such file")
	b.leavesNothing(t)
}
