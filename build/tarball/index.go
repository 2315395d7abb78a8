package tarball

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"pretag/build/internal/oci"
	"pretag/build/internal/stricttar"
)

// Index files of the layouts.
const (
	ociLayout      = "oci-layout"
	ociIndex       = "index.json"
	dockerManifest = "manifest.json"
)

// Bounds on what an archive may hold.
const (
	maxEntries = 1 << 18  // of a tarball; a root filesystem has some 10,000
	maxNames   = 64 << 20 // their names, bytes
)

// members locates the members of an uncompressed tarball.
type members struct {
	r   io.ReaderAt
	at  map[string]extent
	bad error // the first member that no image archive may have

	system bool // it has usr, etc or bin, as root filesystems do
}

// An extent is where the body of a member is. Its size is -1 if the member is
// in the archive twice.
type extent struct {
	offset, size int64
	link         string // of a symbolic link, as docker save wrote them up to version 24: its target
}

// index reads the headers of an uncompressed tarball. The tarball may be a root
// filesystem, so what is wrong only in an image archive is reported later.
func index(ctx context.Context, r *io.SectionReader) (*members, error) {
	m := &members{r: r, at: map[string]extent{}}
	tr := stricttar.NewReader(r)
	names := 0
	for n := 1; ; n++ {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		header, err := tr.Next()
		if errors.Is(err, io.EOF) {
			if n == 1 {
				return nil, errors.New("no entries")
			}
			return m, nil
		}
		if err != nil {
			if n == 1 {
				return nil, foreign(r, err)
			}
			return nil, fmt.Errorf("entry %d: %w", n, err)
		}
		if names += len(header.Name) + len(header.Linkname); n > maxEntries || names > maxNames {
			return nil, fmt.Errorf("entry %d: more than %d entries, or %d bytes of names", n, maxEntries, maxNames)
		}
		offset, err := r.Seek(0, io.SeekCurrent)
		if err != nil {
			return nil, err
		}
		if err := m.add(header, offset); err != nil && m.bad == nil {
			m.bad = fmt.Errorf("member %.200q: %w", header.Name, err)
		}
	}
}

// add records a member whose body is at offset.
func (m *members) add(header *tar.Header, offset int64) error {
	at := extent{offset: offset, size: header.Size}
	name := path.Clean(header.Name)
	switch top, _, _ := strings.Cut(name, "/"); top {
	case "usr", "etc", "bin":
		m.system = true
	}
	switch header.Typeflag {
	case tar.TypeXGlobalHeader:
		return nil
	case tar.TypeSymlink:
		at.link = path.Join(path.Dir(name), header.Linkname)
	case tar.TypeReg, tar.TypeDir:
	default:
		return fmt.Errorf("type %q, want a file, a directory or a symbolic link", header.Typeflag)
	}
	if path.IsAbs(name) && name != "/" {
		return errors.New("absolute path")
	}
	if slices.Contains(strings.Split(header.Name, "/"), "..") {
		return errors.New(`path contains ".."`)
	}
	if strings.Count(name, "/") > 2 { // deeper than blobs/sha256/<hex>
		return nil
	}
	if _, twice := m.at[name]; twice {
		at = extent{size: -1}
	}
	m.at[name] = at
	return nil
}

func (m *members) has(name string) bool {
	_, ok := m.at[name]
	return ok
}

// isImage reports whether the tarball is an image archive. A root filesystem may
// have files of the same names.
func (m *members) isImage() bool {
	return (m.has(ociLayout) || m.has(dockerManifest)) && !m.system
}

// find returns the stream of a member. The error wraps fs.ErrNotExist if there is none.
func (m *members) find(name string) (*io.SectionReader, error) {
	at, ok := m.at[path.Clean(name)]
	if at.link != "" {
		at, ok = m.at[at.link]
	}
	switch {
	case !ok, at.link != "":
		return nil, fmt.Errorf("%.200q is not in the archive: %w", name, fs.ErrNotExist)
	case at.size < 0:
		return nil, fmt.Errorf("%.200q is in the archive twice", name)
	}
	return io.NewSectionReader(m.r, at.offset, at.size), nil
}

func (m *members) read(name string) ([]byte, error) {
	r, err := m.find(name)
	if err != nil {
		return nil, err
	}
	if r.Size() > oci.MaxDocument {
		return nil, fmt.Errorf("%.200q: %d bytes, at most %d are allowed", name, r.Size(), oci.MaxDocument)
	}
	return io.ReadAll(r)
}

// Fetch reads a manifest, an index or a config of an OCI layout (oci.Fetcher).
func (m *members) Fetch(_ context.Context, d v1.Descriptor) ([]byte, error) {
	r, err := m.find(blobName(d.Digest))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(r, d.Size+1))
}

// index sets img up from an archive that has index files.
func (img *Image) index(platform v1.Platform, temp string) error {
	plain, err := img.plainFile(temp)
	if err != nil {
		return err
	}
	m, err := index(img.ctx, plain)
	if err != nil {
		return err
	}
	switch {
	case !m.isImage(): // a root filesystem after all, whose first entry has an image's name
		img.isRootfs()
		return nil
	case m.bad != nil:
		return m.bad
	case m.has(ociLayout):
		img.Layout = OCIArchive
		return img.fromOCI(m, platform)
	}
	img.Layout = DockerArchive
	return img.fromDocker(m)
}

func (img *Image) fromDocker(m *members) error {
	body, err := m.read(dockerManifest)
	if err != nil {
		return err
	}
	manifest, err := oci.ParseDockerManifest(body)
	if err != nil {
		return fmt.Errorf("%s: %w", dockerManifest, err)
	}
	if img.Config, err = m.read(manifest.Config); err != nil {
		return err
	}
	img.RepoTags = manifest.RepoTags
	for _, name := range manifest.Layers {
		r, err := m.find(name)
		if err != nil {
			return err
		}
		img.Layers = append(img.Layers, img.layer(r, name, nil))
	}
	_, err = oci.ParseConfig(img.Config, len(img.Layers))
	return err
}

func (img *Image) fromOCI(m *members, platform v1.Platform) error {
	body, err := m.read(ociLayout)
	if err != nil {
		return err
	}
	var layout struct {
		Version string `json:"imageLayoutVersion"`
	}
	if err := json.Unmarshal(body, &layout); err != nil {
		return fmt.Errorf("%s: %w", ociLayout, err)
	}
	if layout.Version != "1.0.0" {
		return fmt.Errorf("%s: version %.100q, want 1.0.0", ociLayout, layout.Version)
	}
	if body, err = m.read(ociIndex); err != nil {
		return err
	}
	image, err := oci.Choose(img.ctx, m, v1.Descriptor{}, body, platform)
	if err != nil {
		return fmt.Errorf("%s: %w", ociIndex, err)
	}
	img.Digest, img.Config, img.Annotations = image.Descriptor.Digest.String(), image.RawConfig, image.Manifest.Annotations
	for _, descriptor := range image.Manifest.Layers {
		name := blobName(descriptor.Digest)
		r, err := m.find(name)
		if err != nil {
			return err
		}
		if r.Size() != descriptor.Size {
			return fmt.Errorf("%s: %d bytes, its descriptor says %d", name, r.Size(), descriptor.Size)
		}
		img.Layers = append(img.Layers, img.layer(r, name, &descriptor.Digest))
	}
	return nil
}

// blobName is where an OCI layout keeps a blob (image-spec v1.1, image-layout.md).
func blobName(digest v1.Hash) string { return path.Join("blobs", digest.Algorithm, digest.Hex) }

// layer returns the layer in a member, which may be compressed. A digest is checked at
// its end.
func (img *Image) layer(r *io.SectionReader, name string, digest *v1.Hash) Layer {
	return func() (io.ReadCloser, error) {
		return img.stream(io.NewSectionReader(r, 0, r.Size()), name, func(sum string) error {
			if digest != nil && sum != digest.Hex {
				return fmt.Errorf("digest is sha256:%s, want sha256:%s", sum, digest.Hex)
			}
			return nil
		})
	}
}
