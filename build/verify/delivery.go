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
	"runtime/debug"
	"slices"
	"sync"

	"pretag/build/internal/contextio"
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

// Run checks everything in o.Out on disk and, in every engine, the archives that
// are right on disk. It writes the reports. An error says that the checks could
// not be made; what they found is in the report, and [Report.Err] is its verdict.
func Run(ctx context.Context, o Options) (Report, error) {
	// Nearly all memory is one decoder's window of 128 MiB, which costs the garbage
	// collector no time. By default it would wait for as much garbage again.
	defer debug.SetGCPercent(debug.SetGCPercent(20))
	report, disk, err := begin(ctx, o.Out)
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
	// The other checks on disk use the processor while an engine waits for its disk.
	var images []expected
	for _, f := range report.Sound() {
		images = append(images, expect(f, disk.configs[f.Path]))
	}
	var others []Result
	var diskErr error
	var all sync.WaitGroup
	all.Go(func() { others, diskErr = disk.checkOthers(ctx) })
	report.Engines, err = checkEngines(ctx, o.Engines, images, disk.decoder, runner, o.Progress)
	all.Wait()
	report.Disk = append(report.Disk, others...)
	return report, errors.Join(err, diskErr, report.Write(o.Reports))
}

// OnDisk is the part of Run that needs no engine. It writes no report.
func OnDisk(ctx context.Context, out string) (Report, error) {
	report, disk, err := begin(ctx, out)
	if err != nil {
		return report, err
	}
	others, err := disk.checkOthers(ctx)
	report.Disk = append(report.Disk, others...)
	return report, err
}

// begin reads what out says of itself, and checks its archives.
func begin(ctx context.Context, out string) (Report, *diskRun, error) {
	m, err := release.ReadManifest(out)
	if err != nil {
		return Report{}, nil, err
	}
	sums, err := release.ReadSums(out)
	if err != nil {
		return Report{}, nil, err
	}
	owned, err := release.ReadOwned(ctx, out)
	if err != nil {
		return Report{}, nil, err
	}
	former, err := owned.Former(ctx, slices.Collect(maps.Keys(sums)), release.DeliveryDirs()...)
	if err != nil {
		return Report{}, nil, err
	}
	disk := &diskRun{signer: m.Signer, decoder: &decoder{}, Delivery: Delivery{
		Dir: out, Archives: m.Archives, Packages: m.Packages, Former: former, Sums: sums, Read: readPackage,
	}}
	disk.More = append(signatures(out, m), disk.accounts(out, m)...)
	report := Report{Schema: reportSchema, Version: m.Version, Archives: m.Archives, Packages: m.Packages}
	report.Disk, err = disk.checkArchives(ctx)
	return report, disk, err
}

// readPackage passes each regular file of an rpm or deb to visit.
func readPackage(ctx context.Context, path string, visit func(name string, content io.Reader) error) error {
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

// accounts checks that SBOMs and provenance describe these files.
func (d *diskRun) accounts(out string, m release.Manifest) []Check {
	checks := []Check{{Subject: release.ProvenanceName, Name: "provenance", Do: func(context.Context) error {
		data, err := os.ReadFile(filepath.Join(out, release.ProvenanceName))
		if err != nil {
			return err
		}
		statement, err := provenance.Parse(data)
		if err != nil {
			return err
		}
		outputs := maps.Clone(d.Sums)
		for _, name := range []string{release.ManifestName, release.KeyName, release.ProvenanceName} { // these describe the others
			delete(outputs, name)
		}
		return statement.Check(outputs)
	}}}
	for _, f := range m.Archives {
		name := path.Join(release.SBOMDir, sbom.Name(f.Name))
		checks = append(checks, Check{Subject: name, Name: "sbom", Do: func(ctx context.Context) error {
			d.decoder.Lock()
			defer d.decoder.Unlock()
			return sbom.Check(ctx, filepath.Join(out, name), f, &d.decoder.Decoders)
		}})
	}
	return checks
}

// signatures checks each signature of a signed delivery with the key in the
// delivery. Whoever reads the report must compare the key's ID with the expected one.
func signatures(out string, m release.Manifest) []Check {
	if m.Signer == "" {
		return nil
	}
	checks := []Check{{Subject: release.SumsName, Name: "signature", Do: func(ctx context.Context) error {
		signature, err := os.ReadFile(filepath.Join(out, release.SignatureName))
		if err != nil {
			return err
		}
		sums, err := os.Open(filepath.Join(out, release.SumsName))
		if err != nil {
			return err
		}
		defer sums.Close()
		return signedBy(ctx, out, m.Signer, sums, signature)
	}}}
	for _, p := range m.Packages {
		checks = append(checks, Check{Subject: path.Join(p.Format, p.File), Name: "signature", Do: func(ctx context.Context) error {
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
				if err := signedBy(ctx, out, m.Signer, s.Signed(), s.Data); err != nil {
					errs = append(errs, fmt.Errorf("%s: %w", s.Place, err))
				}
			}
			return errors.Join(errs...)
		}})
	}
	return checks
}

// signedBy checks a signature with the delivery's key, whose ID must be want.
func signedBy(ctx context.Context, out, want string, data io.Reader, signature []byte) error {
	file, err := os.Open(filepath.Join(out, release.KeyName))
	if err != nil {
		return err
	}
	defer file.Close()
	key, err := sign.ReadKey(file)
	if err != nil {
		return fmt.Errorf("%s: %w", release.KeyName, err)
	}
	got, err := key.Check(contextio.NewReader(ctx, data), signature)
	if err == nil && got != want {
		err = fmt.Errorf("signed by key %s, manifest.json says %s", got, want)
	}
	return err
}
