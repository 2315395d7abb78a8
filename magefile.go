//go:build mage && !windows

// RPM and DEB packages of pre-tagged GitLab Runner helper images.
package main

import (
	"context"

	"pretag/build"

	//mage:import
	"pretag/targets"
)

// Default is the target that mage runs if none is named.
var Default = targets.Package

// Test runs all tests. REQUIRE names programs that must be installed.
func Test(ctx context.Context) error { return build.Test(ctx, build.Terminal()) }

// Check runs the linters.
func Check(ctx context.Context) error { return build.Check(ctx, build.Terminal()) }

// Bench runs the benchmarks, and compares whole builds with the tools used today.
func Bench(ctx context.Context) error { return build.Bench(ctx, build.Terminal()) }
