package build

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"pretag/build/archive"
	"pretag/build/catalogue"
	"pretag/build/internal/contextio"
	"pretag/build/internal/platform"
	"pretag/build/linuxpkg/pkgread"
	"pretag/build/provenance"
	"pretag/build/release"
	"pretag/build/sbom"
	"pretag/build/sign"
	"pretag/build/tarball"
)

// An Inspection is what a file was found to hold.
type Inspection struct {
	File        string                `json:"file"`
	Helper      string                `json:"helper,omitempty"` // by the file's name
	Layout      string                `json:"layout"`           // rootfs, oci-archive, docker-archive, rpm, deb
	Size        int64                 `json:"size"`             // bytes
	SHA256      string                `json:"sha256"`
	Compression string                `json:"compression,omitempty"`
	RepoTags    []string              `json:"repoTags,omitempty"`
	Platform    string                `json:"platform,omitempty"`
	ImageID     string                `json:"imageID,omitempty"`
	Digest      string                `json:"digest,omitempty"` // of the manifest of an oci-archive
	Base        string                `json:"base,omitempty"`   // the image that it was built on, where image or config say it
	Source      string                `json:"source,omitempty"` // where the tarball came from, as its side file or record says
	DiffIDs     []string              `json:"diffIDs,omitempty"`
	Unpacked    int64                 `json:"unpackedSize,omitempty"` // sum of the plain layers, bytes
	Config      *v1.Config            `json:"config,omitempty"`
	Package     *Contained            `json:"package,omitempty"`    // of an rpm or deb
	Contents    *sbom.Summary         `json:"contents,omitempty"`   // of the image
	Provenance  *provenance.Statement `json:"provenance,omitempty"` // that names this file, from the folder above
	Problems    []string              `json:"problems"`
}

// Contained is what an rpm or a deb says and holds.
type Contained struct {
	pkgread.Metadata
	Contents []pkgread.Entry `json:"contents"`
	Archives []*Inspection   `json:"archives"` // the docker-archives among the contents
}

// Inspect prints what an archive, a helper tarball, an rpm or a deb holds, as
// text or as JSON. A file in which something is wrong is an error.
func Inspect(ctx context.Context, c Config, file string, asJSON bool, ui *UI) error {
	if strings.HasPrefix(file, "-") {
		return fmt.Errorf("inspect %s: the file comes first: inspect FILE -json", file)
	}
	if info, err := os.Stat(file); err == nil && info.IsDir() {
		return fmt.Errorf("inspect %s: a folder, want a file", file)
	}
	found, err := inspect(ctx, c.Catalogue, file)
	if err != nil {
		return err
	}
	found.Provenance, err = provenanceOf(file, found.SHA256)
	found.problem(err)
	if asJSON {
		err = found.writeJSON(ui.Out)
	} else {
		err = found.writeText(ui.Out)
	}
	if err == nil && len(found.Problems) > 0 {
		err = fmt.Errorf("inspect %s: %d problems", file, len(found.Problems))
	}
	return err
}

// inspect reads the file to its end. Where its name is that of a helper's
// tarball or archive, it is held against the helper.
func inspect(ctx context.Context, c *catalogue.Catalogue, file string) (*Inspection, error) {
	p, err := pkgread.Open(ctx, file)
	if err == nil {
		defer p.Close()
		return inspectPackage(ctx, c, file, p)
	}
	if !errors.Is(err, pkgread.ErrFormat) {
		return nil, err
	}
	h, known := named(c, filepath.Base(file))
	img, err := tarball.Open(file, h.Platform, os.TempDir(), nil)
	if err != nil {
		return nil, err
	}
	defer img.Close()
	found := &Inspection{
		File: file, Layout: string(img.Layout), Compression: string(img.Compression),
		RepoTags: img.RepoTags, Digest: img.Digest, Problems: []string{},
	}
	if known {
		found.Helper = h.String()
	}
	if img.Layout == tarball.DockerArchive && built(file) {
		return found, found.dockerArchive(ctx, h, known)
	}
	if err := found.tarball(ctx, img, h, known); err != nil {
		found.problem(err)
	}
	if found.Size, found.SHA256, err = img.Sum(); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	found.Source, err = inputSource(file, release.Input{SHA256: found.SHA256, Digest: found.Digest})
	found.problem(err)
	return found, nil
}

// built reports whether a docker-archive is one that a build left, by its name:
// one with a side file that has its origin is an input.
func built(file string) bool {
	o, _ := release.ReadOrigin(file) // a record that cannot be read is reported as one
	return strings.HasSuffix(file, catalogue.Suffix) && o.Source == ""
}

// named finds the helper that a file of that name belongs to.
func named(c *catalogue.Catalogue, base string) (catalogue.Helper, bool) {
	for _, h := range c.Helpers() {
		if slices.Contains(h.Inputs(), base) {
			return h, true
		}
	}
	return catalogue.Helper{}, false
}

func (i *Inspection) problem(err error) {
	if err == nil {
		return
	}
	for _, err := range unjoin(err) {
		i.Problems = append(i.Problems, strings.TrimPrefix(err.Error(), i.File+": "))
	}
}

// provenanceOf is the statement in the folder above the file's, as a build leaves
// it, if it names the file by this sha256; else nil.
func provenanceOf(file, sum string) (*provenance.Statement, error) {
	path := filepath.Join(filepath.Dir(file), "..", release.ProvenanceName)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	statement, err := provenance.Parse(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	for _, subject := range statement.Subject {
		if subject.Digest["sha256"] == sum {
			return &statement, nil
		}
	}
	return nil, nil
}

// tarball reads the layers of an input.
func (i *Inspection) tarball(ctx context.Context, img *tarball.Image, h catalogue.Helper, known bool) error {
	spec := archive.Spec{Rootfs: img.Layout == tarball.Rootfs, GoArch: h.GoArch()}
	for _, layer := range img.Layers {
		spec.Layers = append(spec.Layers, archive.Opener(layer))
	}
	diffIDs, size, err := archive.Examine(ctx, spec)
	if err != nil {
		return err
	}
	i.Unpacked = size
	for _, diffID := range diffIDs {
		i.DiffIDs = append(i.DiffIDs, diffID.String())
	}
	if img.Config == nil {
		return nil
	}
	var config v1.ConfigFile
	if err := json.Unmarshal(img.Config, &config); err != nil {
		return fmt.Errorf("config: %w", err)
	}
	i.Config, i.ImageID = &config.Config, tarball.ID(img.Config)
	i.Base = cmp.Or(base(img.Annotations), base(config.Config.Labels))
	i.Platform = platform.Of(&config).String()
	if !known {
		return nil
	}
	_, err = tarball.Keep(img.Config, h, diffIDs)
	return err
}

// base spells what annotations or labels say of the base image
// (image-spec v1.1.1, annotations.md).
func base(annotations map[string]string) string {
	const prefix = "org.opencontainers.image.base."
	name, digest := annotations[prefix+"name"], annotations[prefix+"digest"]
	if name != "" && digest != "" {
		return name + "@" + digest
	}
	return name + digest
}

// dockerArchive reads a docker-archive that a build made as engines do, and
// doubts it.
func (i *Inspection) dockerArchive(ctx context.Context, h catalogue.Helper, known bool) error {
	c, err := archive.Read(i.File)
	if err != nil {
		return err
	}
	i.archive(c, h, known)
	f, err := readRecord(i.File)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		i.problem(err)
		return nil
	}
	i.problem(archive.Compare(c, f))
	i.Source = f.Input.Source
	document, err := sbom.Of(ctx, f)
	if err != nil {
		i.problem(err)
		return nil
	}
	summary := document.Summary()
	i.Contents = &summary
	return nil
}

// archive takes over what was read of a docker-archive, and doubts it.
func (i *Inspection) archive(c *archive.Contents, h catalogue.Helper, known bool) {
	i.Size, i.SHA256, i.Compression = c.Size, c.SHA256, c.Compression()
	i.RepoTags, i.ImageID, i.DiffIDs, i.Unpacked = c.RepoTags, c.ImageID, c.DiffIDs, c.UnpackedSize
	i.Platform, i.Config, i.Base = c.Platform.String(), &c.Config.Config, base(c.Config.Config.Labels)
	i.Problems = append(i.Problems, c.Problems...)
	if known && i.ImageID != "" && !platform.Same(c.Platform, h.Platform) {
		i.problem(fmt.Errorf("image is for %s, want %s", c.Platform, h.Platform))
	}
}

// inspectPackage reads an rpm or a deb, and the archives in it.
func inspectPackage(ctx context.Context, c *catalogue.Catalogue, file string, p *pkgread.Reader) (*Inspection, error) {
	found := &Inspection{File: file, Layout: p.Format, Compression: p.Compression, Problems: []string{}}
	var err error
	if found.Size, found.SHA256, err = p.Sum(); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	found.Package = &Contained{Metadata: p.Metadata}
	records := map[string]*release.Archive{} // by the archive's path; nil where one cannot be read
	documents := map[string]*sbom.Summary{}
	read := map[string]*archive.Contents{}
	for entry, err := range p.Contents() {
		if err == nil {
			err = context.Cause(ctx)
		}
		if err != nil {
			found.problem(err)
			break
		}
		found.Package.Contents = append(found.Package.Contents, entry)
		if !entry.Mode.IsRegular() || entry.Hard {
			continue
		}
		switch base := filepath.Base(entry.Path); {
		case strings.HasSuffix(base, catalogue.Suffix):
			contents, err := archive.ReadFrom(contextio.NewReader(ctx, entry.Body))
			if err != nil {
				found.problem(fmt.Errorf("%s: %w", entry.Path, err))
				continue
			}
			h, known := named(c, base)
			inner := &Inspection{File: entry.Path, Layout: string(tarball.DockerArchive), Problems: []string{}}
			if known {
				inner.Helper = h.String()
			}
			inner.archive(contents, h, known)
			read[entry.Path] = contents
			found.Package.Archives = append(found.Package.Archives, inner)
		case strings.HasSuffix(base, catalogue.Suffix+release.InfoSuffix):
			record := strings.TrimSuffix(entry.Path, release.InfoSuffix)
			records[record] = nil
			f, err := release.ParseInfo(entry.Body)
			if err != nil {
				found.problem(fmt.Errorf("%s: %w", entry.Path, err))
				continue
			}
			records[record] = &f
		case strings.HasSuffix(base, sbom.Suffix):
			summary, err := summarize(entry)
			if err != nil {
				found.problem(fmt.Errorf("%s: %w", entry.Path, err))
				continue
			}
			documents[base] = summary
		}
	}
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	for _, inner := range found.Package.Archives {
		inner.Contents = documents[sbom.Name(filepath.Base(inner.File))]
		if f, ok := records[inner.File]; !ok {
			inner.problem(errors.New("has no record beside it"))
		} else if f != nil {
			inner.problem(archive.Compare(read[inner.File], *f))
		}
		for _, problem := range inner.Problems {
			found.problem(fmt.Errorf("%s: %s", inner.File, problem))
		}
	}
	return found, nil
}

// maxDocument is the largest bill of materials, in bytes, that is read.
const maxDocument = 16 << 20

// summarize reads a bill of materials in a package.
func summarize(entry pkgread.Entry) (*sbom.Summary, error) {
	if entry.Size > maxDocument {
		return nil, fmt.Errorf("%d bytes, at most %d", entry.Size, maxDocument)
	}
	data, err := io.ReadAll(entry.Body)
	if err != nil {
		return nil, err
	}
	document, err := sbom.Parse(data)
	if err != nil {
		return nil, err
	}
	summary := document.Summary()
	return &summary, nil
}

func (i *Inspection) writeJSON(w io.Writer) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	return encoder.Encode(i)
}

func (i *Inspection) writeText(w io.Writer) error {
	var b bytes.Buffer
	line := func(key string, values ...string) {
		for _, value := range values {
			if value != "" {
				fmt.Fprintf(&b, "%-12s %s\n", key, value)
				key = ""
			}
		}
	}
	line("file", i.File)
	line("helper", i.Helper)
	line("layout", strings.TrimSuffix(i.Layout+", "+i.Compression, ", none"))
	line("size", Bytes(i.Size))
	line("sha256", i.SHA256)
	line("RepoTag", i.RepoTags...)
	line("platform", i.Platform)
	line("image ID", i.ImageID)
	line("digest", i.Digest)
	line("base", i.Base)
	line("source", i.Source)
	line("diff IDs", i.DiffIDs...)
	if i.Unpacked > 0 {
		line("unpacked", Bytes(i.Unpacked))
	}
	if i.Config != nil {
		line("entrypoint", words(i.Config.Entrypoint))
		line("cmd", words(i.Config.Cmd))
		line("env", i.Config.Env...)
		line("user", i.Config.User)
		line("workdir", i.Config.WorkingDir)
		for _, key := range slices.Sorted(maps.Keys(i.Config.Labels)) {
			line("label", key+"="+i.Config.Labels[key])
		}
	}
	if i.Package != nil {
		i.Package.write(line)
	}
	if i.Contents != nil {
		line("contents", i.Contents.String())
	}
	if i.Provenance != nil {
		build := i.Provenance.Predicate
		line("provenance", fmt.Sprintf("%s of %d inputs, by %s", release.ProvenanceName, len(build.BuildDefinition.ResolvedDependencies), build.RunDetails.Builder.ID))
	}
	line("PROBLEM", i.Problems...)
	_, err := io.WriteString(w, visible(b.String()))
	return err
}

// write tells of a package, by lines.
func (p *Contained) write(line func(key string, values ...string)) {
	line("name", p.Name)
	line("version", strings.TrimSuffix(p.Version+"-"+p.Release, "-"))
	line("arch", p.Arch)
	line("summary", p.Summary)
	line("license", p.License)
	line("section", p.Section)
	line("maintainer", p.Maintainer)
	line("vendor", p.Vendor)
	line("homepage", p.Homepage)
	for _, kind := range slices.Sorted(maps.Keys(p.Relations)) {
		line(kind, p.Relations[kind]...)
	}
	line("scripts", strings.Join(slices.Sorted(maps.Keys(p.Scripts)), ", "))
	for _, signature := range p.Signatures {
		keyID, err := sign.Issuer(signature.Data)
		if err != nil {
			keyID = err.Error()
		}
		line("signature", signature.Place+", by key "+keyID+", not checked")
	}
	var contents []string
	for _, e := range p.Contents {
		text := fmt.Sprintf("%s %s/%s %10s  %s", e.Mode, e.Owner, e.Group, Bytes(e.Size), e.Path)
		if e.Link != "" {
			text += " -> " + e.Link
		}
		contents = append(contents, text)
	}
	line("contents", contents...)
	for _, a := range p.Archives {
		line("archive", a.File)
		line("  RepoTag", a.RepoTags...)
		line("  platform", a.Platform)
		line("  image ID", a.ImageID)
		line("  diff IDs", a.DiffIDs...)
		if a.Contents != nil {
			line("  contents", a.Contents.String())
		}
	}
}

// words spells an argument list as JSON does, as Dockerfiles have it.
func words(args []string) string {
	if len(args) == 0 {
		return ""
	}
	quoted := make([]string, len(args))
	for i, arg := range args {
		quoted[i] = strconv.Quote(arg)
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}
