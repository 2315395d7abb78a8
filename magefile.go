//go:build mage

// RPM and DEB packages of pre-tagged GitLab Runner helper images.
package main

import (
	"context"
	"os"

	"pretag/build"
)

// Default is what mage does when no target is named.
var Default = Package

// Demo takes sample images down the whole line, into out/demo; it needs no setup.
func Demo(ctx context.Context) error {
	return build.Run(ctx, build.DemoEnv(os.Getenv), build.Release, build.Demo)
}

// Archives makes a pre-tagged docker-archive of each selected helper tarball.
func Archives(ctx context.Context) error {
	return build.Run(ctx, os.Getenv, build.Release, func(ctx context.Context, c build.Config, ui *build.UI) error {
		_, err := build.Archives(ctx, c, ui)
		return err
	})
}

// Package makes the archives and their rpm and deb packages.
func Package(ctx context.Context) error {
	return build.Run(ctx, os.Getenv, build.Release, build.Package)
}

// Loaders builds the program that runs on hosts, for each architecture.
func Loaders(ctx context.Context) error {
	return build.Run(ctx, os.Getenv, build.Folders, build.Loaders)
}

// Verify checks everything in the output folder, on disk and in every engine.
func Verify(ctx context.Context) error {
	return build.Run(ctx, os.Getenv, build.Folders, build.Verify)
}

// Unpack takes the helper tarballs out of an rpm or a deb into the input folder.
func Unpack(ctx context.Context, file string) error {
	return build.Run(ctx, os.Getenv, build.Folders, func(ctx context.Context, c build.Config, ui *build.UI) error {
		return build.Unpack(ctx, c, file, ui)
	})
}

// Pull fetches the selected helpers from the registry into the input folder.
func Pull(ctx context.Context) error { return build.Run(ctx, os.Getenv, build.Release, build.Pull) }

// Inspect tells what an archive, a helper tarball, an rpm or a deb holds.
func Inspect(ctx context.Context, file string, json *bool) error {
	return build.Run(ctx, os.Getenv, build.Folders, func(ctx context.Context, c build.Config, ui *build.UI) error {
		return build.Inspect(ctx, c, file, json != nil && *json, ui)
	})
}

// Clean removes what was written to OUT, and nothing else.
func Clean(ctx context.Context) error { return build.Run(ctx, os.Getenv, build.Folders, build.Clean) }

// Test runs all tests.
func Test(ctx context.Context) error { return build.Test(ctx, build.Terminal()) }

// Check runs the linters.
func Check(ctx context.Context) error { return build.Check(ctx, build.Terminal()) }

// Reproduce builds the packages twice under different conditions and compares them.
func Reproduce(ctx context.Context) error {
	return build.Run(ctx, os.Getenv, build.Release, func(ctx context.Context, c build.Config, ui *build.UI) error {
		return build.Reproduce(ctx, c, os.Getenv, ui)
	})
}

// Bench runs the benchmarks, beside the ways of today that are installed.
func Bench(ctx context.Context) error {
	return build.Run(ctx, os.Getenv, build.Folders, build.Bench)
}
