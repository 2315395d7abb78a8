package build

import (
	"context"
	"strings"

	"pretag/build/fetch"
	"pretag/build/internal/text"
)

// Pull fetches the selected helpers from the registry into HELPER_IMAGES.
func Pull(ctx context.Context, c Config, ui *UI) error {
	unlock, err := lockOut(c.Inputs)
	if err != nil {
		return err
	}
	defer unlock()
	progress := ui.Progress(len(c.Helpers))
	tarballs, err := fetch.Pull(ctx, fetch.PullOptions{
		Dir: c.Inputs, Helpers: c.Helpers, Version: c.Version, Jobs: c.Jobs, Progress: progress.At,
		Repository: c.Repository, PlainHTTP: c.PlainHTTP, Credentials: c.Credentials,
	})
	progress.Close()
	if len(tarballs) > 0 {
		fetched(tarballs, ui)
	}
	return err
}

// Unpack takes the helper tarballs out of a package into HELPER_IMAGES, and shows
// the command that builds from them.
func Unpack(ctx context.Context, c Config, file string, ui *UI) error {
	unlock, err := lockOut(c.Inputs)
	if err != nil {
		return err
	}
	defer unlock()
	progress := ui.Progress(len(c.Helpers))
	found, err := fetch.Unpack(ctx, file, fetch.UnpackOptions{Dir: c.Inputs, Catalogue: c.Catalogue, Progress: progress.At})
	progress.Close()
	if err != nil {
		return err
	}
	fetched(found.Tarballs, ui)
	for _, unknown := range found.Unknown {
		ui.Warn("%s: no helper of the catalogue has a tarball of this name; left in the package", unknown)
	}
	what := strings.Join(strings.Fields(found.Name+" "+found.Version), " ") // in one line
	ui.Say("\n%s contains %s. To rebuild it:\n\n    %s go tool mage package\n", file, what, found.Settings(c.Catalogue))
	return nil
}

// fetched shows the tarballs that are in HELPER_IMAGES now.
func fetched(tarballs []fetch.Tarball, ui *UI) {
	rows := [][]string{{"HELPER", "FILE", "SIZE", "SOURCE", ""}}
	for _, t := range tarballs {
		kept := ""
		if t.Kept {
			kept = "kept"
		}
		if t.Missing != "" {
			ui.Warn("%s: %s; pulled %s", t.Helper, t.Missing, t.Origin.Tag())
		}
		rows = append(rows, []string{t.Helper.String(), t.Path, text.Bytes(t.Origin.Size), t.Origin.Source, kept})
	}
	ui.Table(rows)
}
