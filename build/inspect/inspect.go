// Package inspect reports what an archive, a helper tarball, an rpm or a deb
// holds, and what is wrong with it. Relations, scripts and file lists of packages
// are left to rpm -qip and dpkg -I.
package inspect

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"pretag/build/archive"
	"pretag/build/catalogue"
	"pretag/build/internal/oci"
	"pretag/build/internal/platform"
	"pretag/build/internal/text"
	"pretag/build/linuxpkg/pkgread"
	"pretag/build/release"
	"pretag/build/sbom"
	"pretag/build/sign"
	"pretag/build/tarball"
)

// Findings are what a file holds, and its problems.
type Findings struct {
	File        string        `json:"file"`
	Helper      string        `json:"helper,omitempty"` // by the file's name
	Layout      string        `json:"layout"`           // rootfs, oci-archive, docker-archive, rpm, deb
	Size        int64         `json:"size"`             // bytes
	SHA256      string        `json:"sha256"`
	Compression string        `json:"compression,omitempty"`
	RepoTags    []string      `json:"repoTags,omitempty"`
	Platform    string        `json:"platform,omitempty"`
	ImageID     string        `json:"imageID,omitempty"`
	Digest      string        `json:"digest,omitempty"` // of the manifest of an oci-archive
	Base        string        `json:"base,omitempty"`   // the base image, if the image or its config names it
	Source      string        `json:"source,omitempty"` // where the tarball came from, by its record
	DiffIDs     []string      `json:"diffIDs,omitempty"`
	Unpacked    int64         `json:"unpackedSize,omitempty"` // sum of the uncompressed layers, bytes
	Config      *v1.Config    `json:"config,omitempty"`
	Package     *Package      `json:"package,omitempty"`  // if the file is an rpm or a deb
	Contents    *sbom.Summary `json:"contents,omitempty"` // of the image
	Warnings    []string      `json:"warnings,omitempty"` // what is odd but accepted by engines
	Problems    []string      `json:"problems"`

	// What the helper program says about itself, if it says anything.
	RunnerVersion  string `json:"runnerVersion,omitempty"`
	RunnerRevision string `json:"runnerRevision,omitempty"`
}

// A Package is what an rpm or a deb is, and the archives in it.
type Package struct {
	Name       string      `json:"name"`
	Version    string      `json:"version"` // version-release
	Arch       string      `json:"arch"`
	Signatures []Signature `json:"signatures,omitempty"`
	Archives   []*Findings `json:"archives"`
}

// A Signature is a signature in a package. It has not been checked.
type Signature struct {
	Place string `json:"place"` // rpm: header, header and payload; deb: _gpgorigin, ...
	KeyID string `json:"keyID"` // as the signature says
}

// File reads the file to its end. If its name is that of a helper's tarball or
// archive, the content must fit the helper. strict is set for the built-in
// catalogue, whose helpers must have their programs (archive.Spec.Strict).
func File(ctx context.Context, file string, c *catalogue.Catalogue, strict bool) (*Findings, error) {
	if info, err := os.Stat(file); err == nil && info.IsDir() {
		return nil, fmt.Errorf("inspect %s: is a directory, want a file", file)
	}
	p, err := pkgread.Open(ctx, file)
	if err == nil {
		defer p.Close()
		return inspectPackage(ctx, c, file, p)
	}
	if !errors.Is(err, pkgread.ErrFormat) {
		return nil, err
	}
	found, h := newFindings(c, file)
	img, err := tarball.Open(ctx, file, h.Platform, os.TempDir(), nil)
	if err != nil {
		return nil, err
	}
	defer img.Close()
	found.Layout, found.Compression = string(img.Layout), string(img.Compression)
	found.RepoTags, found.Digest = img.RepoTags, img.Digest
	if img.Layout == tarball.DockerArchive && built(file) {
		return found, found.readArchive(ctx, h)
	}
	if err := found.readTarball(ctx, img, h, strict); err != nil {
		found.problem(err)
	}
	if found.Size, found.SHA256, err = img.Sum(); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	found.Source, err = release.SourceOf(file, release.Input{SHA256: found.SHA256, Digest: found.Digest})
	found.problem(err)
	return found, nil
}

// newFindings returns empty findings, and the helper whose tarball or archive has
// the file's base name, or the zero Helper.
func newFindings(c *catalogue.Catalogue, file string) (*Findings, catalogue.Helper) {
	found := &Findings{File: file, Problems: []string{}}
	for _, h := range c.Helpers() {
		if slices.Contains(h.Inputs(), filepath.Base(file)) {
			found.Helper = h.String()
			return found, h
		}
	}
	return found, catalogue.Helper{}
}

// built reports whether a docker-archive was written by a build. One with a record
// of its origin is an input.
func built(file string) bool {
	o, _ := release.ReadOrigin(file) // an unreadable record is reported later
	return strings.HasSuffix(file, catalogue.Suffix) && o.Source == ""
}

func (f *Findings) problem(err error) {
	if err == nil {
		return
	}
	for _, err := range text.Errors(err) {
		f.Problems = append(f.Problems, strings.TrimPrefix(err.Error(), f.File+": "))
	}
}

// readTarball reads the layers and the config of an input.
func (f *Findings) readTarball(ctx context.Context, img *tarball.Image, h catalogue.Helper, strict bool) error {
	spec := archive.Spec{Layers: img.Layers, Rootfs: img.Layout == tarball.Rootfs, GoArch: h.GoArch(), Strict: strict && f.Helper != ""}
	if img.Config != nil || f.Helper != "" {
		spec.Config = func(diffIDs []v1.Hash) ([]byte, error) {
			switch {
			case img.Config == nil:
				return tarball.FromRootfs(h, diffIDs, time.Time{})
			case f.Helper == "":
				return img.Config, nil
			}
			return tarball.Keep(img.Config, h, diffIDs)
		}
	}
	examined, err := archive.Examine(ctx, spec)
	f.Unpacked, f.Warnings = examined.Size, examined.Warnings
	f.RunnerVersion, f.RunnerRevision = examined.Runner.Version, examined.Runner.Revision
	for _, diffID := range examined.DiffIDs {
		f.DiffIDs = append(f.DiffIDs, diffID.String())
	}
	if img.Config == nil {
		return err
	}
	config, configErr := oci.DecodeConfig(img.Config)
	if configErr != nil {
		return cmp.Or(err, configErr)
	}
	f.Config, f.ImageID = &config.Config, tarball.ID(img.Config)
	f.Base = cmp.Or(base(img.Annotations), base(config.Config.Labels))
	f.Platform = platform.Of(config).String()
	return err
}

// base returns the base image that annotations or labels name
// (image-spec v1.1.1, annotations.md).
func base(annotations map[string]string) string {
	const prefix = "org.opencontainers.image.base."
	return strings.Trim(annotations[prefix+"name"]+"@"+annotations[prefix+"digest"], "@")
}

// readArchive reads a docker-archive that a build wrote as engines do, and
// compares it with its record.
func (f *Findings) readArchive(ctx context.Context, h catalogue.Helper) error {
	c, err := archive.Read(ctx, f.File)
	if err != nil {
		return err
	}
	f.setArchive(c, h)
	record, err := release.ReadArchive(f.File)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		f.Source = record.Input.Source
		f.problem(archive.Compare(c, record))
		var document *sbom.Document
		if document, err = sbom.Of(ctx, record); err == nil {
			f.Contents = summary(document)
		}
	}
	f.problem(err)
	return nil
}

// setArchive fills f from what was read of a docker-archive. h is the zero Helper
// if the file's name is not that of a helper.
func (f *Findings) setArchive(c *archive.Contents, h catalogue.Helper) {
	f.Size, f.SHA256, f.Compression = c.Size, c.SHA256, c.Compression()
	f.RepoTags, f.ImageID, f.DiffIDs, f.Unpacked = c.RepoTags, c.ImageID, c.DiffIDs, c.UnpackedSize
	f.Platform, f.Config, f.Base = c.Platform.String(), &c.Config.Config, base(c.Config.Config.Labels)
	f.Problems = append(f.Problems, c.Problems...)
	if f.Helper != "" && f.ImageID != "" && !platform.Same(c.Platform, h.Platform) {
		f.problem(fmt.Errorf("image is for %s, want %s", c.Platform, h.Platform))
	}
}

// inspectPackage reads an rpm or a deb, and the archives in it.
func inspectPackage(ctx context.Context, c *catalogue.Catalogue, file string, p *pkgread.Reader) (*Findings, error) {
	found := &Findings{File: file, Layout: p.Format, Compression: p.Compression, Problems: []string{}}
	var err error
	if found.Size, found.SHA256, err = p.Sum(); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	found.Package = &Package{Name: p.Name, Version: strings.TrimSuffix(p.Version+"-"+p.Release, "-"), Arch: p.Arch, Archives: []*Findings{}}
	for _, signature := range p.Signatures {
		keyID, err := sign.Issuer(signature.Data)
		found.problem(err)
		found.Package.Signatures = append(found.Package.Signatures, Signature{signature.Place, keyID})
	}
	contents := packageContents{archives: map[string]*archive.Contents{}, records: map[string]*release.Archive{}, documents: map[string]*sbom.Summary{}}
	for entry, err := range p.Contents() {
		if err == nil {
			err = context.Cause(ctx)
		}
		if err != nil {
			found.problem(err)
			break
		}
		if !entry.Mode.IsRegular() || entry.Hard {
			continue
		}
		if err := contents.add(ctx, entry); err != nil {
			found.problem(fmt.Errorf("%s: %w", entry.Path, err))
		}
	}
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	for _, path := range slices.Sorted(maps.Keys(contents.archives)) {
		inner := contents.findings(c, path)
		for _, problem := range inner.Problems {
			found.problem(fmt.Errorf("%s: %s", path, problem))
		}
		found.Package.Archives = append(found.Package.Archives, inner)
	}
	return found, nil
}

// packageContents is what a package holds of archives.
type packageContents struct {
	archives  map[string]*archive.Contents // by path
	records   map[string]*release.Archive  // by the archive's path; nil if one cannot be read
	documents map[string]*sbom.Summary     // by base name
}

// add reads one file of a package, if it is an archive or describes one.
func (p *packageContents) add(ctx context.Context, entry pkgread.Entry) error {
	switch base := filepath.Base(entry.Path); {
	case strings.HasSuffix(base, catalogue.Suffix):
		contents, err := archive.ReadFrom(ctx, entry.Body, archive.ReadOptions{})
		if err != nil {
			return err
		}
		p.archives[entry.Path] = contents
	case strings.HasSuffix(base, catalogue.Suffix+release.InfoSuffix):
		path := strings.TrimSuffix(entry.Path, release.InfoSuffix)
		p.records[path] = nil
		f, err := release.ParseInfo(entry.Body)
		if err != nil {
			return err
		}
		p.records[path] = &f
	case strings.HasSuffix(base, sbom.Suffix):
		if entry.Size > sbom.MaxDocument {
			return fmt.Errorf("%d bytes, at most %d", entry.Size, sbom.MaxDocument)
		}
		data, err := io.ReadAll(entry.Body)
		if err != nil {
			return err
		}
		document, err := sbom.Parse(data)
		if err != nil {
			return err
		}
		p.documents[base] = summary(document)
	}
	return nil
}

// findings compares the archive at path with its record in the package.
func (p *packageContents) findings(c *catalogue.Catalogue, path string) *Findings {
	found, h := newFindings(c, path)
	found.Layout = string(tarball.DockerArchive)
	found.setArchive(p.archives[path], h)
	found.Contents = p.documents[sbom.Name(filepath.Base(path))]
	if record, exists := p.records[path]; !exists {
		found.problem(errors.New("has no record next to it"))
	} else if record != nil {
		found.problem(archive.Compare(p.archives[path], *record))
	}
	return found
}

func summary(document *sbom.Document) *sbom.Summary {
	s := document.Summary()
	return &s
}
