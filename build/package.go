package build

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"pretag/build/catalogue"
	"pretag/build/internal/atomicfile"
	"pretag/build/linuxpkg"
	"pretag/build/provenance"
	"pretag/build/release"
	"pretag/build/sbom"
	"pretag/build/sign"
	"pretag/packaging"
)

// Package makes the archives, a bill of materials of each, their packages, and
// what tells of all of it: provenance.json, manifest.json and SHA256SUMS.
// Archives of which OUT has the record need no tarball: other machines may
// have made them.
func Package(ctx context.Context, c Config, ui *UI) error {
	unlock, err := c.lock()
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
	documents, err := c.documents(ctx, archives)
	if err != nil {
		return err
	}
	packages, err := c.packages(ctx, archives, documents, signer, ui)
	if err != nil {
		return err
	}
	m := release.Manifest{
		Version:  c.Version.String(),
		Revision: c.Version.Revision(),
		Release:  c.Release,
		Created:  c.Time.Unix(),
		Tools:    c.tools(),
		Archives: archives,
		Packages: packages,
	}
	delivered, err := c.writeManifest(m, documents, signer)
	if err != nil {
		return err
	}
	ui.Packages(packages)
	return c.warnOfOthers(delivered, ui)
}

// warnOfOthers names the files in OUT that earlier builds delivered and this one does not.
func (c Config) warnOfOthers(delivered []string, ui *UI) error {
	var others []string
	for _, folder := range []string{release.ArchivesDir, release.RPM, release.Deb, release.SBOMDir} {
		entries, err := os.ReadDir(filepath.Join(c.Out, folder))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		for _, entry := range entries {
			if name := path.Join(folder, entry.Name()); !slices.Contains(delivered, name) {
				others = append(others, name)
			}
		}
	}
	if len(others) > 0 {
		ui.Warn("left by another build: %s (%d files in all); verify reports them, so remove them, or run clean first", filepath.Join(c.Out, others[0]), len(others))
	}
	return nil
}

// writeManifest writes the files that describe the rest: the provenance,
// manifest.json, SHA256SUMS and, if there is a signer, the signature and the
// public key. It returns the names of all files that are delivered, except for
// the sums and their signature.
func (c Config) writeManifest(m release.Manifest, documents map[string][]linuxpkg.Document, signer *sign.Signer) ([]string, error) {
	described := m.Outputs() // by the provenance
	for _, f := range m.Archives {
		for _, document := range documents[f.Name] {
			described = append(described, path.Join(release.SBOMDir, filepath.Base(document.Path)))
		}
	}
	outputs := map[string]string{}
	for _, file := range described {
		sum, err := release.SHA256File(filepath.Join(c.Out, file))
		if err != nil {
			return nil, err
		}
		outputs[file] = sum
	}
	statement, err := provenance.Build{Outputs: outputs, Archives: m.Archives, Parameters: c.parameters(), Tools: m.Tools}.Statement().JSON()
	if err != nil {
		return nil, err
	}
	if err := c.writeOut(release.ProvenanceName, statement); err != nil {
		return nil, err
	}
	delivered := append(described, release.ProvenanceName, release.ManifestName)

	for _, stale := range []string{release.SignatureName, release.KeyName} {
		if err := os.Remove(filepath.Join(c.Out, stale)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	if signer != nil {
		m.Signer = signer.KeyID()
		key, err := signer.Public()
		if err != nil {
			return nil, err
		}
		if err := c.writeOut(release.KeyName, key); err != nil {
			return nil, err
		}
		delivered = append(delivered, release.KeyName)
	}
	body, err := release.JSON(m)
	if err != nil {
		return nil, err
	}
	if err := c.writeOut(release.ManifestName, body); err != nil {
		return nil, err
	}
	sums, err := release.Sums(c.Out, delivered)
	if err != nil {
		return nil, err
	}
	if err := c.writeOut(release.SumsName, sums); err != nil || signer == nil {
		return delivered, err
	}
	signature, err := signer.Armored(bytes.NewReader(sums))
	if err != nil {
		return nil, err
	}
	return delivered, c.writeOut(release.SignatureName, signature)
}

// writeOut writes a file below OUT.
func (c Config) writeOut(name string, data []byte) error {
	return atomicfile.WriteBytes(filepath.Join(c.Out, name), data)
}

// parameters are the variables that decide what is made, but for paths: a
// catalogue has its digest.
func (c Config) parameters() map[string]string {
	var helpers []string
	for _, h := range c.Helpers {
		helpers = append(helpers, h.String())
	}
	parameters := map[string]string{
		"RUNNER_VERSION":      c.Version.String(),
		"PACKAGES_ITERATION":  strconv.Itoa(c.Release),
		"HELPERS":             strings.Join(helpers, ","),
		"IMAGE_REPOSITORY":    c.Repository,
		"ARCHIVE_COMPRESSION": c.Compression.String(),
		"FORMATS":             strings.Join(c.Formats, ","),
		"PACKAGE_LAYOUT":      c.Layout,
		"PACKAGE_MAINTAINER":  c.Maintainer,
		"PACKAGE_VENDOR":      c.Vendor,
		"PACKAGE_HOMEPAGE":    c.Homepage,
		"SOURCE_DATE_EPOCH":   strconv.FormatInt(c.Time.Unix(), 10),
	}
	if revision := c.Version.Revision(); revision != "" {
		parameters["RUNNER_REVISION"] = revision
	}
	if c.OwnCatalogue != "" {
		parameters["CATALOGUE"] = "sha256:" + c.OwnCatalogue
	}
	return parameters
}

// documents writes what is known of the contents of each archive.
func (c Config) documents(ctx context.Context, archives []release.Archive) (map[string][]linuxpkg.Document, error) {
	dir := filepath.Join(c.Out, release.SBOMDir)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	documents := map[string][]linuxpkg.Document{}
	for _, f := range archives {
		bill := filepath.Join(dir, sbom.Name(f.Name))
		document, err := sbom.Write(ctx, bill, f)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.Helper, err)
		}
		licences := filepath.Join(dir, strings.TrimSuffix(f.Name, catalogue.Suffix)+".licences.txt")
		if err := atomicfile.WriteBytes(licences, document.Licences()); err != nil {
			return nil, err
		}
		documents[f.Name] = []linuxpkg.Document{{Kind: linuxpkg.SBOM, Path: bill}, {Kind: linuxpkg.Licences, Path: licences}}
	}
	return documents, nil
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

func (c Config) packages(ctx context.Context, archives []release.Archive, documents map[string][]linuxpkg.Document, signer *sign.Signer, ui *UI) ([]release.Package, error) {
	options := linuxpkg.Options{
		Files:      packaging.Files,
		Formats:    c.Formats,
		Layout:     c.Layout,
		Version:    c.Version,
		Release:    c.Release,
		MTime:      c.Time,
		Out:        c.Out,
		Temp:       c.Out, // where the next run removes what a killed one left
		Helpers:    c.Helpers,
		Maintainer: c.Maintainer,
		Vendor:     c.Vendor,
		Homepage:   c.Homepage,
		Documents:  documents,
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
// Go, the modules that are built in, and the zstd program where that encodes.
func (c Config) tools() map[string]string {
	tools := map[string]string{"go": runtime.Version(), "pretag": strconv.Itoa(format)}
	if name, version, ok := strings.Cut(c.Compression.Program(), "/"); ok {
		tools[name] = version
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, module := range info.Deps {
			tools[module.Path] = module.Version
		}
	}
	return tools
}

// Packages prints the table of packages.
func (ui *UI) Packages(packages []release.Package) {
	rows := [][]string{{"SIZE", "PACKAGE"}}
	for _, p := range packages {
		rows = append(rows, []string{Bytes(p.Size), filepath.Join(p.Format, p.File)})
	}
	ui.Table(rows)
}
