package verify

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"

	"pretag/build/internal/contextio"
	"pretag/build/linuxpkg/pkgread"
	"pretag/build/provenance"
	"pretag/build/release"
	"pretag/build/sbom"
	"pretag/build/sign"
)

// provenance checks that provenance.json describes the files of SHA256SUMS.
func (d *delivery) provenance() error {
	data, err := os.ReadFile(filepath.Join(d.out, release.ProvenanceName))
	if err != nil {
		return err
	}
	statement, err := provenance.Parse(data)
	if err != nil {
		return err
	}
	outputs := maps.Clone(d.sums)
	for _, name := range []string{release.ManifestName, release.KeyName, release.ProvenanceName} { // these describe the others
		delete(outputs, name)
	}
	return statement.Check(outputs)
}

// sbom checks that an SBOM describes the archive.
func (d *delivery) sbom(ctx context.Context, name string, f release.Archive) error {
	d.decoder.Lock()
	defer d.decoder.Unlock()
	return sbom.Check(ctx, filepath.Join(d.out, name), f, &d.decoder.Decoders)
}

// sumsSignature checks the signature of SHA256SUMS.
func (d *delivery) sumsSignature(ctx context.Context) error {
	signature, err := os.ReadFile(filepath.Join(d.out, release.SignatureName))
	if err != nil {
		return err
	}
	sums, err := os.Open(filepath.Join(d.out, release.SumsName))
	if err != nil {
		return err
	}
	defer sums.Close()
	return d.signed(ctx, sums, signature)
}

// signatures checks every signature of a package.
func (d *delivery) signatures(ctx context.Context, p release.Package) error {
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
		if err := d.signed(ctx, s.Signed(), s.Data); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", s.Place, err))
		}
	}
	return errors.Join(errs...)
}

// signed checks a signature with the key in the delivery, which must be the manifest's.
// Whoever reads the report must compare the key's ID with the expected one.
func (d *delivery) signed(ctx context.Context, data io.Reader, signature []byte) error {
	file, err := os.Open(filepath.Join(d.out, release.KeyName))
	if err != nil {
		return err
	}
	defer file.Close()
	key, err := sign.ReadKey(file)
	if err != nil {
		return fmt.Errorf("%s: %w", release.KeyName, err)
	}
	got, err := key.Check(contextio.NewReader(ctx, data), signature)
	if err == nil && got != d.Signer {
		err = fmt.Errorf("signed by key %s, manifest.json says %s", got, d.Signer)
	}
	return err
}
