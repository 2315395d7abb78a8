// Package targets holds the mage targets that build and check packages. Another
// project can import them into its magefile:
//
//	//mage:import pretag
//	_ "pretag/targets"
//
// Its targets are then pretag:package, pretag:verify and so on.
package targets

import (
	"context"
	"os"

	"pretag/build"
)

// Demo runs the whole line on sample images, in OUT/demo. It needs no setup.
func Demo(ctx context.Context) error {
	return build.Run(ctx, os.Args[1:], build.DemoEnviron(os.Environ()), build.NeedVersion, build.Demo)
}

// Archives makes a docker-archive with its RepoTag from each selected helper tarball.
// It needs RUNNER_VERSION and the tarballs in HELPER_IMAGES. HELPERS selects,
// ARCHIVE_COMPRESSION is how to compress.
func Archives(ctx context.Context) error {
	return run(ctx, build.NeedVersion, func(ctx context.Context, c build.Config, ui *build.UI) error {
		_, err := build.Archives(ctx, c, ui)
		return err
	})
}

// Package makes the archives, and rpm and deb packages of them, in OUT.
// It needs RUNNER_VERSION and the tarballs in HELPER_IMAGES. These variables matter
// most: HELPERS, FORMATS, PACKAGE_LAYOUT, PACKAGES_ITERATION, GPG_KEY_PATH,
// SOURCE_DATE_EPOCH. docs/variables.md lists all.
// DRY_RUN=1 only lists the packages.
func Package(ctx context.Context) error { return run(ctx, build.NeedVersionOrDryRun, build.Package) }

// Loaders builds the program that runs on hosts, for each architecture, in OUT/loader.
func Loaders(ctx context.Context) error { return run(ctx, build.NeedNothing, build.Loaders) }

// Bundle collects the packages that a host needs in one tar file, for each format and
// host architecture, in OUT/bundle. It needs what package wrote.
func Bundle(ctx context.Context) error { return run(ctx, build.NeedNothing, build.Bundle) }

// Verify checks what is in OUT, on disk and in every engine.
// ENGINES names the engines that must be there.
func Verify(ctx context.Context) error { return run(ctx, build.NeedNothing, build.Verify) }

// Inspect shows what an archive, a helper tarball, an rpm or a deb holds, and its problems.
func Inspect(ctx context.Context, file string, json *bool) error {
	return run(ctx, build.NeedNothing, func(ctx context.Context, c build.Config, ui *build.UI) error {
		return build.Inspect(ctx, c, file, json != nil && *json, ui)
	})
}

// Unpack takes the helper tarballs out of an rpm or a deb, into HELPER_IMAGES.
func Unpack(ctx context.Context, file string) error {
	return run(ctx, build.NeedNothing, func(ctx context.Context, c build.Config, ui *build.UI) error {
		return build.Unpack(ctx, c, file, ui)
	})
}

// Pull fetches the selected helpers of RUNNER_VERSION from IMAGE_REPOSITORY, into HELPER_IMAGES.
func Pull(ctx context.Context) error { return run(ctx, build.NeedVersion, build.Pull) }

// Reproduce builds the packages twice under different conditions and compares every file.
func Reproduce(ctx context.Context) error {
	return run(ctx, build.NeedVersion, func(ctx context.Context, c build.Config, ui *build.UI) error {
		return build.Reproduce(ctx, c, os.Environ(), ui)
	})
}

// Clean removes what was written to OUT, and nothing else.
func Clean(ctx context.Context) error { return run(ctx, build.NeedNothing, build.Clean) }

func run(ctx context.Context, need build.Need, stage build.Stage) error {
	return build.Run(ctx, os.Args[1:], os.Environ(), need, stage)
}
