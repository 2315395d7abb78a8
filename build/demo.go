package build

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"pretag/build/demo"
	"pretag/build/internal/dirlock"
	"pretag/build/internal/gobuild"
)

// The directory of the demo below OUT, and that of its inputs below its own OUT.
const (
	demoDir    = "demo"
	demoInputs = "input"
)

// DemoEnviron returns environ with the values of the demo. The other variables,
// such as JOBS, are the user's.
func DemoEnviron(environ []string) []string {
	out := defaultOut
	for _, entry := range environ {
		if value, found := strings.CutPrefix(entry, "OUT="); found && value != "" {
			out = value
		}
	}
	out = filepath.Join(out, demoDir)
	return append(slices.Clone(environ),
		"OUT="+out,
		"HELPER_IMAGES="+filepath.Join(out, demoInputs),
		"RUNNER_VERSION=19.3.0",
		"RUNNER_REVISION=",
		"HELPERS=alpine-x86_64,alpine-arm,alpine-arm64,alpine-s390x,alpine-ppc64le,alpine-riscv64,ubuntu-x86_64,ubuntu-arm64",
		"SOURCE_DATE_EPOCH=1767225600", // 2026-01-01
		"CATALOGUE=",
	)
}

// Demo runs the whole line on sample inputs.
func Demo(ctx context.Context, c Config, ui *UI) error {
	ui.Say("samples: %d small helper images for %s", len(c.Helpers), c.Inputs)
	if err := c.samples(ctx); errors.Is(err, gobuild.ErrUnavailable) {
		return fmt.Errorf("%w: run demo in a checkout of %s, with Go", err, gobuild.Module)
	} else if err != nil {
		return err
	}
	ui.Say("loader: for this machine only; the target package builds it for every host architecture")
	c.LoaderArches = []string{runtime.GOARCH}
	if err := Package(ctx, c, ui); err != nil {
		return err
	}
	return Verify(ctx, c, ui)
}

// samples makes the sample inputs.
func (c Config) samples(ctx context.Context) error {
	unlock, err := dirlock.Lock([]string{c.Out, c.Inputs}, nil)
	if err != nil {
		return err
	}
	defer unlock()
	_, err = c.publish(ctx, func(stage string) error {
		return demo.Samples(ctx, c.builder(ctx), filepath.Join(stage, demoInputs), c.Helpers, c.Time)
	})
	return err
}
