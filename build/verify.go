package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"

	"pretag/build/linuxpkg/pkgread"
	"pretag/build/provenance"
	"pretag/build/release"
	"pretag/build/sbom"
	"pretag/build/sign"
	"pretag/build/verify"
)

// Verify checks everything in OUT on disk, then what is sound in every engine, and writes
// what it found into OUT's folder verify.
func Verify(ctx context.Context, c Config, ui *UI) error {
	if _, err := os.Stat(filepath.Join(c.Out, release.ManifestName)); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("verify %s: there is no %s; run the package target first", c.Out, release.ManifestName)
	}
	unlock, err := lockOut(c.Out)
	if err != nil {
		return err
	}
	defer unlock()
	return c.verify(ctx, ui)
}

func (c Config) verify(ctx context.Context, ui *UI) error {
	report, err := c.onDisk(ctx)
	if err != nil {
		return err
	}
	report.Engines, err = verify.Engines(ctx, c.Engines, report.Sound(), func(line string) { ui.Say("%s", line) })
	written, writeErr := report.Write(c.Out)
	_, tableErr := io.WriteString(ui.Out, visible(report.Table()))
	if err := errors.Join(err, writeErr, tableErr); err != nil {
		return err
	}
	for _, path := range written {
		if filepath.Ext(path) == ".html" {
			ui.Say("report: %s", path)
		}
	}
	return report.Err()
}

// onDisk is the part of verify that needs no engine.
func (c Config) onDisk(ctx context.Context) (verify.Report, error) {
	m, err := release.ReadManifest(c.Out)
	if err != nil {
		return verify.Report{}, err
	}
	sums, err := release.ReadSums(c.Out)
	if err != nil {
		return verify.Report{}, err
	}
	delivery := verify.Delivery{Dir: c.Out, Archives: m.Archives, Packages: m.Packages, Sums: sums, Read: readPackage(ctx), More: append(c.signatures(ctx, m), c.accounts(ctx, m, sums)...)}
	report := verify.Report{Version: m.Version, Archives: m.Archives, Packages: delivery.Packages}
	report.Disk, err = verify.Disk(ctx, delivery)
	return report, err
}

// readPackage returns a function that passes the regular files of an rpm or deb to visit.
func readPackage(ctx context.Context) func(path string, visit func(name string, content io.Reader) error) error {
	return func(path string, visit func(name string, content io.Reader) error) error {
		p, err := pkgread.Open(ctx, path)
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
}

// accounts checks that bills of materials and provenance tell of these files.
func (c Config) accounts(ctx context.Context, m release.Manifest, sums map[string]string) []verify.Check {
	checks := []verify.Check{{Subject: release.ProvenanceName, Name: "provenance", Do: func() error {
		data, err := os.ReadFile(filepath.Join(c.Out, release.ProvenanceName))
		if err != nil {
			return err
		}
		statement, err := provenance.Parse(data)
		if err != nil {
			return err
		}
		outputs := maps.Clone(sums)
		for _, name := range []string{release.ManifestName, release.KeyName, release.ProvenanceName} { // these tell of the others
			delete(outputs, name)
		}
		return statement.Check(outputs)
	}}}
	for _, f := range m.Archives {
		name := path.Join(release.SBOMDir, sbom.Name(f.Name))
		checks = append(checks, verify.Check{Subject: name, Name: "sbom", Do: func() error {
			return sbom.Check(ctx, filepath.Join(c.Out, name), f)
		}})
	}
	return checks
}

// signatures checks each signature of a signed delivery by the key that came
// with it. Whether that key is the right one, its ID tells.
func (c Config) signatures(ctx context.Context, m release.Manifest) []verify.Check {
	if m.Signer == "" {
		return nil
	}
	checks := []verify.Check{{Subject: release.SumsName, Name: "signature", Do: func() error {
		signature, err := os.ReadFile(filepath.Join(c.Out, release.SignatureName))
		if err != nil {
			return err
		}
		sums, err := os.Open(filepath.Join(c.Out, release.SumsName))
		if err != nil {
			return err
		}
		defer sums.Close()
		return c.signedBy(m.Signer, sums, signature)
	}}}
	for _, p := range m.Packages {
		checks = append(checks, verify.Check{Subject: path.Join(p.Format, p.File), Name: "signature", Do: func() error {
			r, err := pkgread.Open(ctx, p.Path)
			if err != nil {
				return err
			}
			defer r.Close()
			if len(r.Signatures) == 0 {
				return errors.New("is not signed")
			}
			var errs []error
			for _, s := range r.Signatures {
				if err := c.signedBy(m.Signer, s.Signed(), s.Data); err != nil {
					errs = append(errs, fmt.Errorf("%s: %w", s.Place, err))
				}
			}
			return errors.Join(errs...)
		}})
	}
	return checks
}

// signedBy checks a signature by the delivery's key, which must be the wanted one.
func (c Config) signedBy(want string, data io.Reader, signature []byte) error {
	file, err := os.Open(filepath.Join(c.Out, release.KeyName))
	if err != nil {
		return err
	}
	defer file.Close()
	key, err := sign.ReadKey(file)
	if err != nil {
		return fmt.Errorf("%s: %w", release.KeyName, err)
	}
	got, err := key.Check(data, signature)
	if err == nil && got != want {
		err = fmt.Errorf("signed by key %s, manifest.json says %s", got, want)
	}
	return err
}
