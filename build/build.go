// Package build runs the line from helper tarballs to packages: Pull or Unpack,
// Archives, Package, Verify. It reads the configuration, calls the stages in their
// order, and reports to the user. Each stage does its work in a package of its own.
package build

import (
	"context"
	"errors"
	"path/filepath"
	"strings"

	"pretag/build/archive"
	"pretag/build/fetch"
	"pretag/build/linuxpkg"
	"pretag/build/release"
	"pretag/build/sbom"
	"pretag/build/sign"
	"pretag/build/verify"
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
	for _, t := range tarballs {
		if t.Missing != "" {
			ui.Warn("%s: %s; pulled %s", t.Helper, t.Missing, t.Origin.Tag())
		}
	}
	if len(tarballs) > 0 {
		ui.Table(tarballTable(tarballs))
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
	ui.Table(tarballTable(found.Tarballs))
	for _, unknown := range found.Unknown {
		ui.Warn("%s: no helper of the catalogue has a tarball of this name; left in the package", unknown)
	}
	what := strings.Join(strings.Fields(found.Name+" "+found.Version), " ") // in one line
	ui.Say("\n%s contains %s. To rebuild it:\n\n    %s go tool mage package\n", file, what, found.Settings(c.Catalogue))
	return nil
}

// Archives makes the archive of each selected helper from its tarball.
func Archives(ctx context.Context, c Config, ui *UI) ([]release.Archive, error) {
	unlock, err := c.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	return archives(ctx, c, ui)
}

// archives is Archives for a caller that holds the lock.
func archives(ctx context.Context, c Config, ui *UI) ([]release.Archive, error) {
	if err := cleanUp(c.Out); err != nil {
		return nil, err
	}
	progress := ui.Progress(len(c.Helpers))
	options := c.archiveOptions()
	options.Progress = progress.At
	options.Done = func(o archive.Outcome) { progress.Done(o.Helper.String(), outcome(o)) }
	result, err := archive.Build(ctx, options)
	progress.Close()
	for _, note := range result.Notes {
		ui.Say("%s", note)
	}
	for _, warning := range result.Warnings {
		ui.Warn("%s", warning)
	}
	if err != nil {
		return nil, err
	}
	ui.Table(archiveTable(result.Outcomes))
	return result.Archives(), nil
}

// Package makes the archives, their SBOMs and packages, and the files that
// describe all of these: provenance.json, manifest.json and SHA256SUMS. An archive
// that another machine made needs no tarball here, only its record. The rest gets its
// names in OUT when all of it is complete.
func Package(ctx context.Context, c Config, ui *UI) error {
	if c.DryRun {
		return c.list(ctx, ui)
	}
	unlock, err := c.lock()
	if err != nil {
		return err
	}
	defer unlock()
	owned, err := release.ReadOwned(ctx, c.Out)
	if err != nil {
		return err
	}
	// The names of files that others may have, too.
	if err := owned.Free(ctx, release.ManifestName, release.ProvenanceName, release.SumsName, release.SignatureName, release.KeyName); err != nil {
		return err
	}
	signer, err := c.signer(ctx, ui)
	if err != nil {
		return err
	}
	loaders, err := c.loadersAhead(ctx, c.hostArches()) // before the archives, which take time
	if err != nil {
		return err
	}
	archives, err := archives(ctx, c, ui)
	if err != nil {
		return err
	}
	var packages []release.Package
	var delivered []string
	owned, err = c.publish(ctx, func(stage string) (err error) {
		if loaders == nil {
			if loaders, err = c.buildLoaders(ctx, stage, c.hostArches(), ui); err != nil {
				return err
			}
		}
		packages, delivered, err = c.packages(ctx, stage, archives, loaders, signer, ui)
		return err
	})
	if err != nil {
		return err
	}
	ui.Table(packageTable(packages))
	return c.retire(ctx, owned, packages, delivered, ui)
}

// packages makes everything but the archives and loaders in the directory stage. It
// returns the packages and the names of the files that SHA256SUMS lists.
func (c Config) packages(ctx context.Context, stage string, archives []release.Archive, loaders map[string]string, signer *sign.Signer, ui *UI) ([]release.Package, []string, error) {
	bills, err := sbom.Build(ctx, filepath.Join(stage, release.SBOMDir), archives, c.Jobs)
	if err != nil {
		return nil, nil, err
	}
	documents := map[string][]linuxpkg.Document{}
	for i, f := range archives {
		for _, warning := range bills[i].Warnings {
			ui.Warn("%s: the SBOM may be incomplete: %s", f.Helper, warning)
		}
		documents[f.Name] = []linuxpkg.Document{{Kind: linuxpkg.SBOM, Path: bills[i].Document}, {Kind: linuxpkg.Licences, Path: bills[i].Licenses}}
	}
	options := c.packageOptions(stage, documents, signer)
	options.Loaders = loaders
	result, err := linuxpkg.Build(ctx, options, archives)
	for _, warning := range result.Warnings {
		ui.Warn("%s", warning)
	}
	if err != nil {
		return nil, nil, err
	}
	delivered, err := c.describe(ctx, stage, archives, result.Packages, signer)
	return result.Packages, delivered, err
}

// Verify checks everything that package wrote into OUT: on disk, in every engine,
// and with jobs of GitLab Runner. It writes its reports into OUT's directory verify.
func Verify(ctx context.Context, c Config, ui *UI) error {
	if err := c.packaged("verify"); err != nil {
		return err
	}
	unlock, err := lockOut(c.Out)
	if err != nil {
		return err
	}
	defer unlock()
	var report verify.Report
	var runErr error
	_, err = c.publish(context.WithoutCancel(ctx), func(stage string) error {
		report, runErr = verify.Run(ctx, verify.Options{
			Out: c.Out, Reports: stage, Engines: c.Engines, Runner: c.Runner, Progress: func(line string) { ui.Say("%s", line) },
		})
		return nil
	}, release.VerifyDir) // it may hold traces of jobs of a former run
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
