package build

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"pretag/build/bench"
	"pretag/build/internal/atomicfile"
)

// Bench runs the Go benchmarks, and then compares whole builds with the ways in
// which others make the same. The table goes to Out, and as Markdown into
// OUT/bench/table.md.
func Bench(ctx context.Context, c Config, ui *UI) error {
	if err := ui.run(ctx, "go", "test", "-run=^$", "-bench=.", "-benchmem", "./build/..."); err != nil {
		return err
	}
	program, err := os.Executable()
	if err != nil {
		return err
	}
	dir := filepath.Join(c.Out, "bench")
	report, err := bench.Compare(ctx, bench.Options{
		Dir:       dir,
		Program:   program,
		Rounds:    c.BenchRounds,
		Catalogue: c.Catalogue,
		Say:       ui.Say,
	})
	// What was measured before something failed is told as well.
	if len(report.Rows) > 0 {
		ui.Table(report.Table())
	}
	for _, missing := range report.Missing {
		ui.Say("not measured: %s", missing)
	}
	return errors.Join(err, os.MkdirAll(dir, 0o755), atomicfile.WriteBytes(filepath.Join(dir, "table.md"), []byte(report.Markdown())))
}
