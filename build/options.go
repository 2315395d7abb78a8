package build

import (
	"context"
	"slices"
	"time"

	"pretag/build/archive"
	"pretag/build/linuxpkg"
	"pretag/build/release"
	"pretag/build/sign"
	"pretag/packaging"
)

// archiveOptions returns the settings of the archives stage.
func (c Config) archiveOptions() archive.Options {
	return archive.Options{
		Helpers:     c.Helpers,
		Catalogue:   c.Catalogue,
		Version:     c.Version,
		Inputs:      c.Inputs,
		Out:         c.Out,
		Repository:  c.Repository,
		Compression: c.Compression,
		Time:        c.Time,
		Jobs:        c.Jobs,
		Strict:      c.CatalogueSum == "",
	}
}

// packageOptions returns the settings of the packages stage, which writes into the
// directory stage. signer may be nil.
func (c Config) packageOptions(stage string, documents map[string][]linuxpkg.Document, signer *sign.Signer) linuxpkg.Options {
	options := linuxpkg.Options{
		Files:      packaging.Files,
		Formats:    c.Formats,
		Layout:     c.Layout,
		Version:    c.Version,
		Release:    c.Release,
		MTime:      c.Time,
		Out:        stage,
		Temp:       stage,
		Helpers:    c.Helpers,
		Maintainer: c.Maintainer,
		Vendor:     c.Vendor,
		Homepage:   c.Homepage,
		Documents:  documents,
	}
	if signer != nil {
		options.Sign = signer.Sign
	}
	return options
}

// hostArches returns the architectures, in Go's words, that loaders are built for.
func (c Config) hostArches() []string {
	arches := linuxpkg.Hosts(c.Version, c.Helpers)
	if c.LoaderArches == nil {
		return arches
	}
	return slices.DeleteFunc(arches, func(goarch string) bool { return !slices.Contains(c.LoaderArches, goarch) })
}

// signer returns what signs the packages and sums, or nil if no key is given.
func (c Config) signer(ctx context.Context, ui *UI) (*sign.Signer, error) {
	if c.Key == "" {
		ui.Say("unsigned: GPG_KEY_PATH is not set")
		return nil, nil
	}
	// The clock decides only whether the key has expired.
	signer, err := sign.Load(ctx, c.Key, c.Passphrase, c.Time, time.Now())
	if err != nil {
		return nil, err
	}
	ui.Say("signed by key %s", signer.KeyID())
	if warning := signer.RPMWarning(); warning != "" && slices.Contains(c.Formats, release.RPM) {
		ui.Warn("%s", warning)
	}
	return signer, nil
}
