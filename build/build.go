// Package build runs the line from helper tarballs to packages: fetch, archives,
// packages, verify. It reads the configuration, calls the stages in their order,
// and reports to the user. Each stage does its work in a package of its own.
package build

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sync/errgroup"

	"pretag/build/archive"
	"pretag/build/catalogue"
	"pretag/build/internal/atomicfile"
	"pretag/build/linuxpkg"
	"pretag/build/release"
	"pretag/build/sbom"
	"pretag/build/sign"
)

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
	owned, err := c.owned(ctx)
	if err != nil {
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
	_, err = c.publish(ctx, owned, func(stage string) (err error) {
		if loaders == nil {
			if loaders, err = c.buildLoaders(ctx, stage, c.hostArches(), ui); err != nil {
				return err
			}
		}
		packages, delivered, err = c.packages(ctx, stage, archives, loaders, signer, ui)
		return errors.Join(err, c.unsign(owned, delivered))
	})
	if err != nil {
		return err
	}
	ui.Table(packageTable(packages))
	return c.retire(ctx, owned, packages, delivered, ui)
}

// packages makes everything but the archives and loaders in the directory stage. It returns the
// packages and the names of all delivered files.
func (c Config) packages(ctx context.Context, stage string, archives []release.Archive, loaders map[string]string, signer *sign.Signer, ui *UI) ([]release.Package, []string, error) {
	documents, err := c.sboms(ctx, archives, filepath.Join(stage, release.SBOMDir), ui)
	if err != nil {
		return nil, nil, err
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
	delivered, err := c.describe(ctx, stage, archives, result.Packages, documents, signer)
	return result.Packages, delivered, err
}

// sboms writes the SBOM and the license texts of each archive, JOBS at a time, and warns
// of SBOMs that may lack packages.
func (c Config) sboms(ctx context.Context, archives []release.Archive, dir string, ui *UI) (map[string][]linuxpkg.Document, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	warnings := make([][]string, len(archives))
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(c.Jobs)
	documents := map[string][]linuxpkg.Document{}
	for i, f := range archives {
		bill := filepath.Join(dir, sbom.Name(f.Name))
		licenses := filepath.Join(dir, strings.TrimSuffix(f.Name, catalogue.Suffix)+".licences.txt")
		documents[f.Name] = []linuxpkg.Document{{Kind: linuxpkg.SBOM, Path: bill}, {Kind: linuxpkg.Licences, Path: licenses}}
		group.Go(func() error {
			document, err := sbom.Write(groupCtx, bill, f)
			if err != nil {
				return fmt.Errorf("%s: %w", f.Helper, err)
			}
			warnings[i] = document.Summary().Warnings
			return atomicfile.WriteBytes(licenses, document.Licenses())
		})
	}
	err := group.Wait()
	for i, f := range archives {
		for _, warning := range warnings[i] {
			ui.Warn("%s: the SBOM may be incomplete: %s", f.Helper, warning)
		}
	}
	return documents, err
}
