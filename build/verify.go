package build

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"path/filepath"

	"pretag/build/linuxpkg"
	"pretag/build/manifest"
	"pretag/build/verify"
)

// Verify checks everything in OUT on disk, then in every engine, and writes
// what it found into OUT's folder verify.
func Verify(ctx context.Context, c Config, ui *UI) error {
	unlock, err := lockOut(c.Out)
	if err != nil {
		return err
	}
	defer unlock()
	return c.verify(ctx, ui)
}

func (c Config) verify(ctx context.Context, ui *UI) error {
	m, err := manifest.Read(c.Out)
	if errors.Is(err, fs.ErrNotExist) {
		return errors.Join(err, errors.New("there is nothing to verify: run the package target first"))
	}
	if err != nil {
		return err
	}
	sums, err := manifest.ReadSums(c.Out)
	if err != nil {
		return err
	}
	delivery := verify.Delivery{Dir: c.Out, Archives: m.Archives, Sums: sums, Read: readPackage}
	for _, p := range m.Packages {
		delivery.Packages = append(delivery.Packages, verify.Package(p))
	}
	report := verify.Report{Version: m.Version, Archives: m.Archives, Packages: delivery.Packages}
	if report.Disk, err = verify.Disk(ctx, delivery); err != nil {
		return err
	}
	report.Engines, err = verify.Engines(ctx, c.Engines, m.Archives, func(line string) { ui.Say("%s", line) })
	written, writeErr := report.Write(c.Out)
	if err := errors.Join(err, writeErr, report.WriteTable(ui.Out)); err != nil {
		return err
	}
	for _, path := range written {
		if filepath.Ext(path) == ".html" {
			ui.Say("report: %s", path)
		}
	}
	return report.Err()
}

// readPackage hands over the regular files of an rpm or deb.
func readPackage(path string, visit func(name string, content io.Reader) error) error {
	p, err := linuxpkg.Open(path)
	if err != nil {
		return err
	}
	defer p.Close()
	for entry, err := range p.Contents() {
		if err != nil {
			return err
		}
		if entry.Mode.IsRegular() && !entry.Hard {
			if err := visit(entry.Path, entry.Body); err != nil {
				return err
			}
		}
	}
	return nil
}
