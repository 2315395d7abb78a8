// Package sbom tells what is in an image, from what the image's own databases
// say: those of apk, dpkg and rpm, and the build information of Go programs. It
// writes that as an SPDX 2.3 document. What the databases do not say it does
// not guess; docs/decisions/0008-accounted-for.md says what is left open.
package sbom

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/github/go-spdx/v2/spdxexp/spdxlicenses"
	"github.com/package-url/packageurl-go"

	"pretag/build/catalogue"
	"pretag/build/internal/atomicfile"
	"pretag/build/release"
)

// Folder is where documents stand below OUT.
const Folder = "sbom"

// Name is the file name of the document for the archive of that name.
func Name(archive string) string { return strings.TrimSuffix(archive, catalogue.Suffix) + Suffix }

// Suffix ends the file name of a document.
const Suffix = ".spdx.json"

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

// Check compares the document at path with what the archive at f.Path holds.
// Every package that only one of them has is named.
func Check(ctx context.Context, path string, f release.Archive) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	got, err := Parse(data)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	want, err := Of(ctx, f)
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
			errs = append(errs, fmt.Errorf("%s: lists %s, which the image does not hold", path, purl))
		}
	}
	for _, purl := range held {
		if _, ok := slices.BinarySearch(listed, purl); !ok {
			errs = append(errs, fmt.Errorf("%s: lacks %s, which the image holds", path, purl))
		}
	}
	if errs == nil {
		errs = append(errs, fmt.Errorf("%s: sha256 is %x, want %x as the archive makes it", path, sha256.Sum256(data), sha256.Sum256(body)))
	}
	return errors.Join(errs...)
}

func (d *Document) purls() []string {
	var purls []string
	for _, p := range d.Packages {
		purls = append(purls, p.purl())
	}
	slices.Sort(purls)
	return purls
}

// Of reads the archive at f.Path once and describes what it holds. Equal
// archives, with equal records, have equal documents.
func Of(ctx context.Context, f release.Archive) (*Document, error) {
	i, err := readImage(ctx, f.Path)
	if err != nil {
		return nil, err
	}
	l := &licences{words: map[string]string{}}
	installed, err := i.installed(l)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Path, err)
	}
	list := strings.SplitN(spdxlicenses.LicenseListVersion(), ".", 3)
	d := &Document{
		SPDXVersion: version,
		DataLicense: "CC0-1.0",
		ID:          documentID,
		Name:        strings.TrimSuffix(f.Name, catalogue.Suffix),
		CreationInfo: CreationInfo{
			Created:            time.Unix(f.Created, 0).UTC().Format(time.RFC3339),
			Creators:           []string{"Tool: " + cmp.Or(f.Tool, "pretag")},
			LicenseListVersion: strings.Join(list[:min(2, len(list))], "."), // spdx-spec v2.3, 6.7: major.minor
		},
	}
	b := builder{document: d, image: i, release: i.osRelease(), record: f}
	b.describe()
	for _, s := range installed {
		b.add(s)
	}
	for _, name := range slices.Sorted(maps.Keys(i.programs)) {
		b.program(name)
	}
	d.ExtractedLicenses = l.extracted()
	return d, d.finish()
}

// finish sorts the document and names it by its own digest: no other document
// has the namespace, and no chance is in it.
func (d *Document) finish() error {
	slices.SortFunc(d.Packages[1:], func(a, b Package) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID)) })
	slices.SortFunc(d.Relationships, func(a, b Relationship) int {
		return cmp.Or(cmp.Compare(a.From, b.From), cmp.Compare(a.Type, b.Type), cmp.Compare(a.To, b.To))
	})
	body, err := d.JSON()
	d.Namespace = fmt.Sprintf("https://spdx.org/spdxdocs/%s-%x", d.Name, sha256.Sum256(body))
	return err
}

// A builder puts a document together.
type builder struct {
	document *Document
	image    *image
	release  map[string]string
	record   release.Archive
	seen     map[string]bool   // SPDX identifiers of packages
	owners   map[string]string // of files: the package that lists them
}

// describe adds the image and its operating system.
func (b *builder) describe() {
	b.seen, b.owners = map[string]bool{}, map[string]string{}
	f := b.record
	repository, tag := f.RepoTag, ""
	if at := strings.LastIndexByte(f.RepoTag, ':'); at > strings.LastIndexByte(f.RepoTag, '/') {
		repository, tag = f.RepoTag[:at], f.RepoTag[at+1:]
	}
	b.addPackage(Package{
		ID: imageID, Name: repository, Version: tag, FileName: f.Name, Purpose: "CONTAINER",
		Checksums:  []Checksum{{"SHA256", f.SHA256}},
		SourceInfo: fmt.Sprintf("made of %s (sha256 %s)", f.Input.Name, f.Input.SHA256),
		Comment:    fmt.Sprintf("image ID %s, platform %s", f.ImageID, f.Platform),
	})
	b.relate(documentID, "DESCRIBES", imageID)
	if id := b.release["ID"]; id != "" {
		b.addPackage(Package{
			ID: "SPDXRef-OperatingSystem", Name: id, Version: b.release["VERSION_ID"], Purpose: "OPERATING-SYSTEM",
			SourceInfo: "from os-release in the image", Comment: b.release["PRETTY_NAME"],
		})
		b.relate(imageID, "CONTAINS", "SPDXRef-OperatingSystem")
	}
}

// addPackage adds a package with what is alike for all.
func (b *builder) addPackage(p Package) {
	p.DownloadLocation, p.LicenseConcluded, p.Copyright = noAssertion, noAssertion, noAssertion
	p.LicenseDeclared = cmp.Or(p.LicenseDeclared, noAssertion)
	b.document.Packages = append(b.document.Packages, p)
}

func (b *builder) relate(from, how, to string) {
	b.document.Relationships = append(b.document.Relationships, Relationship{from, how, to})
}

// add adds a package and returns its identifier; one that is there already is
// not added twice.
func (b *builder) add(s software) string {
	purl := b.purl(s)
	id := "SPDXRef-" + s.kind + "-" + identifier(s.name, purl)
	if b.seen[id] {
		return id
	}
	b.seen[id] = true
	p := Package{
		ID: id, Name: s.name, Version: s.version, LicenseDeclared: s.license,
		ExternalRefs: []ExternalRef{{"PACKAGE-MANAGER", "purl", purl}},
	}
	if s.epoch != "" {
		p.Version = s.epoch + ":" + p.Version
	}
	if s.supplier != "" {
		p.Supplier = "Organization: " + s.supplier
	}
	if strings.Contains(s.homepage, "://") {
		p.Homepage = s.homepage
	}
	p.SourceInfo = "listed in /" + s.database
	if s.source != "" {
		p.SourceInfo += ", built from " + s.source
	}
	b.addPackage(p)
	if s.kind != packageurl.TypeGolang {
		b.relate(imageID, "CONTAINS", id)
	}
	for _, file := range s.files {
		b.owners[b.image.resolve(file)] = id
	}
	return id
}

// purl names a package for other tools (purl-spec, types apk, deb, rpm and
// golang). The namespace is the distribution's, Red Hat's own for rhel.
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

// program adds a program that is Go's or that no package lists.
func (b *builder) program(name string) {
	p := b.image.programs[name]
	owner, owned := b.owners[name]
	if owned && p.info == nil {
		return
	}
	file := File{
		ID: "SPDXRef-File-" + identifier(path.Base(name), name), Name: "./" + name, Types: []string{p.kind},
		Checksums: []Checksum{{"SHA1", p.sha1}, {"SHA256", p.sha256}}, Concluded: noAssertion, Copyright: noAssertion,
	}
	file.Comment = fmt.Sprintf("from layer %d of the image", b.image.layers[name]+1)
	if !owned {
		owner = imageID
		file.Comment += ", in no package database"
	}
	b.document.Files = append(b.document.Files, file)
	b.relate(owner, "CONTAINS", file.ID)
	if p.info != nil {
		b.modules(name, file.ID, p.info)
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
		b.relate(file, "GENERATED_FROM", module(main.Path, version))
	}
	goVersion, _, _ := strings.Cut(strings.TrimPrefix(info.GoVersion, "go"), " ")
	b.relate(file, "STATIC_LINK", module("stdlib", goVersion))
	for _, dep := range info.Deps {
		path, version := dep.Path, dep.Version
		if replace := dep.Replace; replace != nil {
			if version = replace.Version; version != "" { // else a folder of the one who built it
				path = replace.Path
			}
		}
		b.relate(file, "STATIC_LINK", module(path, version))
	}
}
