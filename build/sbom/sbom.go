// Package sbom lists what is in an image, from the image's own databases (apk,
// dpkg, rpm) and the build information of Go programs, and writes it as an
// SPDX 2.3 document. It does not guess what the databases do not say;
// docs/decisions/0007-accounted-for.md says what is left open.
package sbom

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/github/go-spdx/v2/spdxexp/spdxlicenses"
	"github.com/package-url/packageurl-go"
	"github.com/spdx/tools-golang/spdx/v2/common"
	spdx "github.com/spdx/tools-golang/spdx/v2/v2_3"

	"pretag/build/archive"
	"pretag/build/catalogue"
	"pretag/build/internal/atomicfile"
	"pretag/build/internal/decompress"
	"pretag/build/release"
)

// Suffix is the end of a document's file name.
const Suffix = ".spdx.json"

// Limits on a document.
const (
	MaxDocument = 64 << 20 // bytes
	maxPackages = 50_000
)

const (
	noAssertion = "NOASSERTION"
	documentID  = "DOCUMENT"
	imageID     = "Image"
	systemID    = "OperatingSystem"
	fileID      = "File-" // begins the ID of a program
)

// A Document is an SPDX document. It has none of the methods of spdx.Document,
// whose UnmarshalJSON takes a time that grows with the square of the length.
type Document spdx.Document

// Name returns the file name of the document for the archive of that name.
func Name(archive string) string { return strings.TrimSuffix(archive, catalogue.Suffix) + Suffix }

// JSON returns the content of the document's file.
func (d *Document) JSON() ([]byte, error) { return release.JSON(d) }

// Parse reads a document that JSON wrote.
func Parse(data []byte) (*Document, error) {
	var d Document
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&d); err != nil {
		return nil, err
	}
	if d.SPDXVersion != spdx.Version {
		return nil, fmt.Errorf("spdxVersion is %q, want %q", d.SPDXVersion, spdx.Version)
	}
	if slices.Contains(d.Packages, nil) || slices.Contains(d.Files, nil) || slices.Contains(d.Relationships, nil) || slices.Contains(d.OtherLicenses, nil) {
		return nil, errors.New("an element is null")
	}
	if len(d.Packages) == 0 || d.Packages[0].PackageSPDXIdentifier != imageID || len(d.Packages[0].PackageChecksums) != 1 {
		return nil, errors.New("the first package is not the image with its checksum")
	}
	return &d, nil
}

// purl returns the package URL; "" for the image and its operating system.
func purl(p *spdx.Package) string {
	if len(p.PackageExternalReferences) == 0 || p.PackageExternalReferences[0] == nil {
		return ""
	}
	return p.PackageExternalReferences[0].Locator
}

// Write writes the document for the archive at f.Path to path.
func Write(ctx context.Context, path string, f release.Archive) (*Document, error) {
	d, err := Of(ctx, f)
	if err != nil {
		return nil, err
	}
	data, err := d.JSON()
	if err != nil {
		return nil, err
	}
	return d, atomicfile.WriteBytes(path, data)
}

// Check compares the document at path with the content of the archive at f.Path.
// It names every package that only one of them has. Decoders keeps the memory for
// decompression from one archive to the next; nil keeps nothing.
func Check(ctx context.Context, path string, f release.Archive, decoders *decompress.Decoders) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	got, err := Parse(data)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	want, err := of(ctx, f, decoders)
	if err != nil {
		return err
	}
	body, err := want.JSON()
	if err != nil || bytes.Equal(data, body) {
		return err
	}
	var errs []error
	listed, held := got.purls(), want.purls()
	for _, purl := range listed {
		if _, ok := slices.BinarySearch(held, purl); !ok {
			errs = append(errs, fmt.Errorf("%s: lists %s, which is not in the image", path, purl))
		}
	}
	for _, purl := range held {
		if _, ok := slices.BinarySearch(listed, purl); !ok {
			errs = append(errs, fmt.Errorf("%s: lacks %s, which is in the image", path, purl))
		}
	}
	if errs == nil {
		errs = append(errs, fmt.Errorf("%s: sha256 is %x, want %x for this archive", path, sha256.Sum256(data), sha256.Sum256(body)))
	}
	return errors.Join(errs...)
}

func (d *Document) purls() []string {
	var purls []string
	for _, p := range d.Packages {
		purls = append(purls, purl(p))
	}
	slices.Sort(purls)
	return purls
}

// Of reads the archive at f.Path and describes what is in it. Equal archives with
// equal records have equal documents. What may be missing is in the document's
// comment, see Summary.Warnings.
func Of(ctx context.Context, f release.Archive) (*Document, error) {
	return of(ctx, f, &decompress.Decoders{})
}

func of(ctx context.Context, f release.Archive, decoders *decompress.Decoders) (*Document, error) {
	i, err := readImage(ctx, f.Path, decoders)
	if err != nil {
		return nil, err
	}
	b := newBuilder(i, f)
	if err := b.build(ctx); err != nil {
		return nil, fmt.Errorf("%s: %w", f.Path, err)
	}
	return b.document, nil
}

// A builder puts a document together.
type builder struct {
	document *Document
	image    *image
	release  map[string]string // of the image's os-release
	record   release.Archive
	licenses *licenses
	seen     map[string]bool          // SPDX identifiers of packages
	owners   map[*archive.File]string // packages that list a program
	size     int                      // of the document, bytes: a lower bound
}

func newBuilder(i *image, f release.Archive) *builder {
	list := strings.SplitN(spdxlicenses.LicenseListVersion(), ".", 3)
	return &builder{
		image: i, release: i.osRelease(), record: f, licenses: newLicenses(),
		seen: map[string]bool{}, owners: map[*archive.File]string{},
		document: &Document{
			SPDXVersion:    spdx.Version,
			DataLicense:    spdx.DataLicense,
			SPDXIdentifier: documentID,
			DocumentName:   strings.TrimSuffix(f.Name, catalogue.Suffix),
			CreationInfo: &spdx.CreationInfo{
				Created:            time.Unix(f.Created, 0).UTC().Format(time.RFC3339),
				Creators:           []common.Creator{{CreatorType: "Tool", Creator: cmp.Or(f.Tool, "pretag")}},
				LicenseListVersion: strings.Join(list[:min(2, len(list))], "."), // spdx-spec v2.3, 6.7: major.minor
			},
		},
	}
}

// build fills in the document.
func (b *builder) build(ctx context.Context) error {
	b.describe()
	for s, err := range b.image.installed(ctx, b.licenses) {
		if err != nil {
			return err
		}
		id := b.add(s)
		for name := range s.files {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if n := b.image.Lookup(name, false); n != nil && n.File != nil {
				b.owners[n.File] = id
			}
		}
		if err := b.check(); err != nil {
			return err
		}
	}
	for _, p := range b.image.programs {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		b.program(p)
		if err := b.check(); err != nil {
			return err
		}
	}
	if ctx.Err() != nil { // a list of files may have ended early
		return context.Cause(ctx)
	}
	d := b.document
	d.OtherLicenses, d.DocumentComment = b.licenses.extracted(), strings.Join(b.image.warnings, "\n")
	slices.SortFunc(d.Packages[1:], func(a, b *spdx.Package) int {
		return cmp.Or(cmp.Compare(a.PackageName, b.PackageName), cmp.Compare(a.PackageSPDXIdentifier, b.PackageSPDXIdentifier))
	})
	slices.SortFunc(d.Relationships, func(a, b *spdx.Relationship) int {
		return cmp.Or(cmp.Compare(a.RefA.ElementRefID, b.RefA.ElementRefID), cmp.Compare(a.Relationship, b.Relationship), cmp.Compare(a.RefB.ElementRefID, b.RefB.ElementRefID))
	})
	// The namespace has the digest of the rest: it is unique, and equal for equal documents.
	body, err := d.JSON()
	if err == nil && len(body) > MaxDocument {
		err = fmt.Errorf("SBOM of %d bytes, at most %d are allowed", len(body), MaxDocument)
	}
	d.DocumentNamespace = fmt.Sprintf("https://spdx.org/spdxdocs/%s-%x", d.DocumentName, sha256.Sum256(body))
	return err
}

// check reports a limit that was exceeded.
func (b *builder) check() error {
	if len(b.seen) > maxPackages {
		return fmt.Errorf("more than %d packages", maxPackages)
	}
	if b.size > MaxDocument {
		return fmt.Errorf("SBOM of more than %d bytes", MaxDocument)
	}
	return errors.Join(b.image.Err(), b.licenses.check())
}

// describe adds the image and its operating system.
func (b *builder) describe() {
	f := b.record
	repository, tag := f.RepoTag, ""
	if at := strings.LastIndexByte(f.RepoTag, ':'); at > strings.LastIndexByte(f.RepoTag, '/') {
		repository, tag = f.RepoTag[:at], f.RepoTag[at+1:]
	}
	b.addPackage(&spdx.Package{
		PackageSPDXIdentifier: imageID, PackageName: repository, PackageVersion: tag, PackageFileName: f.Name, PrimaryPackagePurpose: "CONTAINER",
		PackageChecksums:  []common.Checksum{{Algorithm: common.SHA256, Value: f.SHA256}},
		PackageSourceInfo: fmt.Sprintf("made of %s (sha256 %s)", f.Input.Name, f.Input.SHA256),
		PackageComment:    fmt.Sprintf("image ID %s, platform %s", f.ImageID, f.Platform),
	})
	b.relate(documentID, common.TypeRelationshipDescribe, imageID)
	if id := b.release["ID"]; id != "" {
		b.addPackage(&spdx.Package{
			PackageSPDXIdentifier: systemID, PackageName: id, PackageVersion: b.release["VERSION_ID"], PrimaryPackagePurpose: "OPERATING-SYSTEM",
			PackageSourceInfo: "from os-release in the image", PackageComment: b.release["PRETTY_NAME"],
		})
		b.relate(imageID, common.TypeRelationshipContains, systemID)
	}
}

// addPackage adds a package, with the fields that are the same for all.
func (b *builder) addPackage(p *spdx.Package) {
	p.PackageDownloadLocation, p.PackageLicenseConcluded, p.PackageCopyrightText = noAssertion, noAssertion, noAssertion
	p.PackageLicenseDeclared = cmp.Or(p.PackageLicenseDeclared, noAssertion)
	b.size += 400 + len(p.PackageSPDXIdentifier) + len(p.PackageName) + len(p.PackageVersion) + len(p.PackageHomePage) +
		len(p.PackageSourceInfo) + len(p.PackageLicenseDeclared) + len(purl(p))
	b.document.Packages = append(b.document.Packages, p)
}

func (b *builder) relate(from, how, to string) {
	b.size += 100 + len(from) + len(to)
	b.document.Relationships = append(b.document.Relationships, &spdx.Relationship{
		RefA: common.MakeDocElementID("", from), Relationship: how, RefB: common.MakeDocElementID("", to),
	})
}

// add adds a package unless it is there already, and returns its identifier.
func (b *builder) add(s software) string {
	purl := b.purl(s)
	id := s.kind + "-" + identifier(s.name, purl)
	if b.seen[id] {
		return id
	}
	b.seen[id] = true
	p := &spdx.Package{
		PackageSPDXIdentifier: common.ElementID(id), PackageName: s.name, PackageVersion: s.version, PackageLicenseDeclared: s.license,
		PackageSourceInfo: "listed in /" + s.database,
		PackageExternalReferences: []*spdx.PackageExternalReference{
			{Category: common.CategoryPackageManager, RefType: common.TypePackageManagerPURL, Locator: purl},
		},
	}
	if s.epoch != "" {
		p.PackageVersion = s.epoch + ":" + p.PackageVersion
	}
	if s.supplier != "" {
		p.PackageSupplier = &common.Supplier{SupplierType: "Organization", Supplier: s.supplier}
	}
	if strings.Contains(s.homepage, "://") {
		p.PackageHomePage = s.homepage
	}
	if s.source != "" {
		p.PackageSourceInfo += ", built from " + s.source
	}
	b.addPackage(p)
	if s.kind != packageurl.TypeGolang {
		b.relate(imageID, common.TypeRelationshipContains, id)
	}
	return id
}

// purl returns the package URL (purl-spec, types apk, deb, rpm and golang). The namespace is the ID of the distribution, but "redhat" for rhel.
func (b *builder) purl(s software) string {
	if s.kind == packageurl.TypeGolang {
		namespace, name := path.Split(s.name)
		return packageurl.NewPackageURL(s.kind, strings.TrimSuffix(namespace, "/"), name, s.version, nil, "").ToString()
	}
	qualifiers := map[string]string{}
	source, _, _ := strings.Cut(s.source, " ") // dpkg: name (version)
	for key, value := range map[string]string{"arch": s.arch, "epoch": s.epoch, "upstream": source} {
		if value != "" && !(key == "upstream" && value == s.name) {
			qualifiers[key] = value
		}
	}
	namespace := b.release["ID"]
	if version := b.release["VERSION_ID"]; version != "" {
		qualifiers["distro"] = namespace + "-" + version
	}
	if namespace == "rhel" {
		namespace = "redhat"
	}
	return packageurl.NewPackageURL(s.kind, namespace, s.name, s.version, packageurl.QualifiersFromMap(qualifiers), "").ToString()
}

// program adds a program that Go built or that no package lists.
func (b *builder) program(p program) {
	owner, owned := b.owners[p.file]
	if owned && p.info == nil {
		return
	}
	id := fileID + identifier(path.Base(p.name), p.name)
	comment := fmt.Sprintf("from layer %d of the image", p.layer+1)
	if !owned {
		owner = imageID
		comment += ", in no package database"
	}
	b.size += 500 + len(p.name) + len(id)
	b.document.Files = append(b.document.Files, &spdx.File{
		FileSPDXIdentifier: common.ElementID(id), FileName: "./" + p.name, FileTypes: []string{p.kind},
		Checksums:        []common.Checksum{{Algorithm: common.SHA1, Value: p.sha1}, {Algorithm: common.SHA256, Value: p.sha256}},
		LicenseConcluded: noAssertion, FileCopyrightText: noAssertion, FileComment: comment,
	})
	b.relate(owner, common.TypeRelationshipContains, id)
	if p.info != nil {
		b.modules(p.name, id, p.info)
	}
}

// modules adds what a Go program was linked from.
func (b *builder) modules(name, file string, info *debug.BuildInfo) {
	module := func(path, version string) string {
		return b.add(software{kind: packageurl.TypeGolang, name: path, version: version, database: name, license: noAssertion})
	}
	if main := info.Main; main.Path != "" {
		version := main.Version
		if version == "(devel)" { // built in a checkout: the commit is what is known
			version = ""
			for _, setting := range info.Settings {
				if setting.Key == "vcs.revision" {
					version = setting.Value
				}
			}
		}
		b.relate(file, common.TypeRelationshipGeneratedFrom, module(main.Path, version))
	}
	b.relate(file, common.TypeRelationshipStaticLink, module("stdlib", goVersion(info.GoVersion)))
	for _, dep := range info.Deps {
		path, version := dep.Path, dep.Version
		if replace := dep.Replace; replace != nil {
			if version = replace.Version; version != "" { // else a directory of the person who built it
				path = replace.Path
			}
		}
		b.relate(file, common.TypeRelationshipStaticLink, module(path, version))
		if b.check() != nil { // build fails
			return
		}
	}
}

// goVersion returns the version of a Go toolchain: 1.26.0 of "go1.26.0 X:foo",
// 1.24-2f3ca0a of "devel go1.24-2f3ca0a Mon ...", devel+2f3ca0a of the older
// "devel +2f3ca0a Mon ...".
func goVersion(s string) string {
	words := strings.Fields(s)
	switch {
	case len(words) == 0:
		return ""
	case len(words) > 1 && words[0] == "devel" && strings.HasPrefix(words[1], "go"):
		return strings.TrimPrefix(words[1], "go")
	case len(words) > 1 && words[0] == "devel":
		return "devel" + words[1]
	}
	return strings.TrimPrefix(words[0], "go")
}
