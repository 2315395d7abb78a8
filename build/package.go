package build

import (
	"context"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"time"

	"pretag/build/archive"
	"pretag/build/linuxpkg"
	"pretag/build/manifest"
	"pretag/build/sign"
	"pretag/packaging"
)

// Package makes the archives and their packages, manifest.json and SHA256SUMS.
// Archives of which OUT has the record need no tarball: other machines may
// have made them.
func Package(ctx context.Context, c Config, ui *UI) error {
	unlock, err := lockOut(c.Out)
	if err != nil {
		return err
	}
	defer unlock()
	signer, err := c.signer(ui)
	if err != nil {
		return err
	}
	archives, err := c.archives(ctx, ui)
	if err != nil {
		return err
	}
	packages, err := c.packages(ctx, archives, signer, ui)
	if err != nil {
		return err
	}
	m := manifest.Manifest{
		Version:  c.Version.String(),
		Revision: c.Version.Revision(),
		Release:  c.Release,
		Created:  c.Time.Unix(),
		Tools:    tools(),
		Archives: archives,
		Packages: packages,
	}
	if err := manifest.Write(c.Out, m, signer, nil); err != nil {
		return err
	}
	ui.Packages(packages)
	return nil
}

// signer is nil where no key is given.
func (c Config) signer(ui *UI) (*sign.Signer, error) {
	if c.Key == "" {
		ui.Say("unsigned: GPG_KEY_PATH is not set")
		return nil, nil
	}
	// The clock is asked for an expired key only.
	signer, err := sign.Load(c.Key, c.Passphrase, c.Time, time.Now())
	if err == nil {
		ui.Say("signed by key %s", signer.KeyID())
	}
	return signer, err
}

func (c Config) packages(ctx context.Context, archives []archive.File, signer *sign.Signer, ui *UI) ([]linuxpkg.Package, error) {
	options := linuxpkg.Options{
		Files:      packaging.Files,
		Formats:    c.Formats,
		Layout:     c.Layout,
		Version:    c.Version,
		Release:    c.Release,
		MTime:      c.Time,
		Out:        c.Out,
		Helpers:    c.Helpers,
		Maintainer: c.Maintainer,
		Vendor:     c.Vendor,
		Homepage:   c.Homepage,
	}
	if signer != nil {
		options.Sign = signer.Sign
	}
	result, err := linuxpkg.Build(ctx, options, archives)
	for _, warning := range result.Warnings {
		ui.Warn("%s", warning)
	}
	return result.Packages, err
}

// tools lists the versions of what decides the bytes of archives and packages:
// Go and the modules that are built in.
func tools() map[string]string {
	tools := map[string]string{"go": runtime.Version(), "pretag": strconv.Itoa(format)}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, module := range info.Deps {
			tools[module.Path] = module.Version
		}
	}
	return tools
}

// Packages prints the table of packages.
func (ui *UI) Packages(packages []linuxpkg.Package) {
	rows := [][]string{{"SIZE", "PACKAGE"}}
	for _, p := range packages {
		rows = append(rows, []string{Bytes(p.Size), filepath.Join(p.Format, p.File)})
	}
	ui.Table(rows)
}
