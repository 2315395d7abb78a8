package build

import (
	"context"
	"path/filepath"
	"runtime"

	"pretag/build/demo"
	"pretag/build/internal/dirlock"
	"pretag/build/release"
)

// The directory of the demo below OUT, and that of its inputs below its own OUT.
const (
	demoDir    = "demo"
	demoInputs = "input"
)

// DemoEnv is the environment of the demo: getenv, with a value of its own for
// each variable that the demo must set. The rest, such as JOBS, is the user's.
func DemoEnv(getenv func(string) string) func(string) string {
	out := getenv("OUT")
	if out == "" {
		out = DefaultOut
	}
	out = filepath.Join(out, demoDir)
	fixed := map[string]string{
		"OUT":               out,
		"HELPER_IMAGES":     filepath.Join(out, demoInputs),
		"RUNNER_VERSION":    "19.3.0",
		"HELPERS":           "alpine-x86_64,alpine-arm,alpine-arm64,alpine-s390x,alpine-ppc64le,alpine-riscv64,ubuntu-x86_64,ubuntu-arm64",
		"SOURCE_DATE_EPOCH": "1767225600", // 2026-01-01
		"CATALOGUE":         "",
	}
	return func(name string) string {
		if value, ok := fixed[name]; ok {
			return value
		}
		return getenv(name)
	}
}

// Demo makes sample inputs and takes them down the whole line.
func Demo(ctx context.Context, c Config, ui *UI) error {
	ui.Say("samples: %d small helper images for %s", len(c.Helpers), c.Inputs)
	if err := c.samples(ctx); err != nil {
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
	owned, err := release.ReadOwned(c.Out)
	if err != nil {
		return err
	}
	_, err = c.publish(ctx, owned, func(stage string) error {
		return demo.Samples(ctx, filepath.Join(stage, demoInputs), c.Helpers, c.Time)
	})
	return err
}
