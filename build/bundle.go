package build

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"pretag/build/internal/text"
	"pretag/build/linuxpkg/bundle"
	"pretag/build/release"
)

// Bundle writes, for each format and host architecture, a tar file with the packages
// that such a host needs. It takes what package wrote into OUT.
func Bundle(ctx context.Context, c Config, ui *UI) error {
	if err := c.packaged("bundle"); err != nil {
		return err
	}
	unlock, err := lockOut(c.Out)
	if err != nil {
		return err
	}
	defer unlock()
	m, err := release.ReadManifest(c.Out)
	if err != nil {
		return err
	}
	bundles := bundle.Of(m)
	if len(bundles) == 0 {
		return fmt.Errorf("bundle %s: there is no package for a host architecture; select default helpers with HELPERS, or build loaders", c.Out)
	}
	created := time.Unix(m.Created, 0).UTC()
	c.Time = created
	signer, err := c.signer(ctx, ui)
	if err != nil {
		return err
	}
	options := bundle.Options{}
	if signer != nil {
		options.Sign = signer.Armored
		if options.Key, err = signer.Public(); err != nil {
			return err
		}
	}
	if signer != nil && signer.KeyID() != m.Signer {
		ui.Warn("the packages are signed by key %q, the sums of the bundles by %s", m.Signer, signer.KeyID())
	}
	_, err = c.publish(ctx, func(stage string) error {
		options.Out = stage
		for _, b := range bundles {
			if err := b.Write(ctx, options, created); err != nil {
				return err
			}
		}
		return nil
	}, bundle.Dir)
	if err != nil {
		return err
	}
	rows := [][]string{{"SIZE", "PACKAGES", "BUNDLE"}}
	for _, b := range bundles {
		path := filepath.Join(c.Out, bundle.Dir, b.Name)
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		rows = append(rows, []string{text.Bytes(info.Size()), fmt.Sprint(len(b.Packages)), path})
	}
	ui.Table(rows)
	return nil
}
