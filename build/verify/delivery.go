package verify

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"

	"pretag/build/linuxpkg/pkgread"
	"pretag/build/provenance"
	"pretag/build/release"
	"pretag/build/sbom"
	"pretag/build/sign"
)

// Options say what is verified and how.
type Options struct {
	Out      string   // the directory that package wrote
	Reports  string   // the directory that the reports are written into
	Engines  []string // that must be there; nil for every one found
	Runner   string   // a gitlab-runner program; empty for the one in PATH
	Progress Progress
}

// Run checks everything in o.Out on disk, then in every engine what was right on
// disk, and writes the reports. An error says that the checks could not be made;
// what they found is in the report, and [Report.Err] is its verdict.
func Run(ctx context.Context, o Options) (Report, error) {
	report, err := OnDisk(ctx, o.Out)
	if err != nil {
		return report, err
	}
	runner, why, err := FindRunner(ctx, o.Runner, report.Sound())
	if err != nil {
		return report, err
	}
	report.Job.NotChecked = why
	if runner != nil {
		report.Job.Version = runner.program.Version
	}
	report.Engines, err = Engines(ctx, o.Engines, report.Sound(), runner, o.Progress)
	return report, errors.Join(err, report.Write(o.Reports))
}

// OnDisk is the part of Run that needs no engine. It writes no report.
func OnDisk(ctx context.Context, out string) (Report, error) {
	m, err := release.ReadManifest(out)
	if err != nil {
		return Report{}, err
	}
	sums, err := release.ReadSums(out)
	if err != nil {
		return Report{}, err
	}
	owned, err := release.ReadOwned(ctx, out)
	if err != nil {
		return Report{}, err
	}
	former, err := owned.Former(ctx, slices.Collect(maps.Keys(sums)), release.DeliveryDirs()...)
	if err != nil {
		return Report{}, err
	}
	delivery := Delivery{Dir: out, Archives: m.Archives, Packages: m.Packages, Former: former, Sums: sums, Read: readPackage(ctx), More: append(signatures(ctx, out, m), accounts(ctx, out, m, sums)...)}
	report := Report{Schema: reportSchema, Version: m.Version, Archives: m.Archives, Packages: m.Packages}
	report.Disk, err = Disk(ctx, delivery)
	return report, err
}

// readPackage returns a function that passes each regular file of an rpm or deb to visit.
func readPackage(ctx context.Context) ReadPackage {
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

// accounts checks that SBOMs and provenance describe these files.
func accounts(ctx context.Context, out string, m release.Manifest, sums map[string]string) []Check {
	checks := []Check{{Subject: release.ProvenanceName, Name: "provenance", Do: func() error {
		data, err := os.ReadFile(filepath.Join(out, release.ProvenanceName))
		if err != nil {
			return err
		}
		statement, err := provenance.Parse(data)
		if err != nil {
			return err
		}
		outputs := maps.Clone(sums)
		for _, name := range []string{release.ManifestName, release.KeyName, release.ProvenanceName} { // these describe the others
			delete(outputs, name)
		}
		return statement.Check(outputs)
	}}}
	for _, f := range m.Archives {
		name := path.Join(release.SBOMDir, sbom.Name(f.Name))
		checks = append(checks, Check{Subject: name, Name: "sbom", Do: func() error {
			return sbom.Check(ctx, filepath.Join(out, name), f)
		}})
	}
	return checks
}

// signatures checks each signature of a signed delivery with the key that came
// with it. The report's reader has to compare the key's ID with the expected one.
func signatures(ctx context.Context, out string, m release.Manifest) []Check {
	if m.Signer == "" {
		return nil
	}
	checks := []Check{{Subject: release.SumsName, Name: "signature", Do: func() error {
		signature, err := os.ReadFile(filepath.Join(out, release.SignatureName))
		if err != nil {
			return err
		}
		sums, err := os.Open(filepath.Join(out, release.SumsName))
		if err != nil {
			return err
		}
		defer sums.Close()
		return signedBy(out, m.Signer, sums, signature)
	}}}
	for _, p := range m.Packages {
		checks = append(checks, Check{Subject: path.Join(p.Format, p.File), Name: "signature", Do: func() error {
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
				if err := signedBy(out, m.Signer, s.Signed(), s.Data); err != nil {
					errs = append(errs, fmt.Errorf("%s: %w", s.Place, err))
				}
			}
			return errors.Join(errs...)
		}})
	}
	return checks
}

// signedBy checks a signature with the delivery's key, whose ID must be want.
func signedBy(out, want string, data io.Reader, signature []byte) error {
	file, err := os.Open(filepath.Join(out, release.KeyName))
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
