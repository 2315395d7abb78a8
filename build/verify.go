package build

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"pretag/build/release"
	"pretag/build/verify"
)

// Verify checks everything that package wrote into OUT: on disk, in every engine,
// and with jobs of GitLab Runner. It writes its reports into OUT's directory verify.
func Verify(ctx context.Context, c Config, ui *UI) error {
	if _, err := os.Stat(filepath.Join(c.Out, release.ManifestName)); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("verify %s: there is no %s; run the package target first", c.Out, release.ManifestName)
	}
	unlock, err := lockOut(c.Out)
	if err != nil {
		return err
	}
	defer unlock()
	owned, err := release.ReadOwned(ctx, c.Out)
	if err != nil {
		return err
	}
	var report verify.Report
	var runErr error
	published, err := c.publish(context.WithoutCancel(ctx), owned, func(stage string) error {
		report, runErr = verify.Run(ctx, verify.Options{
			Out: c.Out, Reports: stage, Engines: c.Engines, Runner: c.Runner, Progress: func(line string) { ui.Say("%s", line) },
		})
		return nil
	})
	if err == nil { // traces of jobs of a former run
		var former []string
		former, err = owned.Former(ctx, published, release.VerifyDir)
		err = errors.Join(err, owned.Remove(former...))
	}
	err = errors.Join(runErr, err)
	if report.Schema == 0 {
		return err // nothing was checked
	}
	if err := errors.Join(err, ui.Print(report.Table())); err != nil {
		return err
	}
	ui.Say("report: %s", filepath.Join(c.Out, verify.Page))
	return report.Err()
}
