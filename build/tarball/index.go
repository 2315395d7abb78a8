package tarball

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	dockertar "github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"pretag/build/internal/decompress"
	"pretag/build/internal/platform"
	"pretag/build/internal/stricttar"
)

// Index files of the layouts.
const (
	ociLayout      = "oci-layout"
	ociIndex       = "index.json"
	dockerManifest = "manifest.json"
)

// Bounds of what an archive may claim.
const (
	maxJSON    = 8 << 20  // a config, a manifest, an index, bytes
	maxMembers = 10_000   // manifests of an index
	maxEntries = 1 << 18  // of a tarball; a root filesystem has some 10,000
	maxNames   = 64 << 20 // their names, bytes
	maxDepth   = 4        // indexes in indexes
)

// members locates the members of a plain tarball.
type members struct {
	r  io.ReaderAt
	at map[string]extent
}

// An extent is where a member's body stands. One of size -1 stands twice.
type extent struct {
	offset, size int64
	link         string // of a symbolic link, which docker save wrote up to 24: its target
}

// index reads the headers of a plain tarball. Of a root filesystem too, so it
// minds neither kinds nor repetitions; find does.
func index(r *io.SectionReader) (*members, error) {
	m := &members{r: r, at: map[string]extent{}}
	tr := stricttar.NewReader(r)
	names := 0
	for n := 1; ; n++ {
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
		name := path.Clean(header.Name)
		if strings.Count(name, "/") > 2 { // deeper than blobs/sha256/<hex>
			continue
		}
		at := extent{offset: offset, size: header.Size}
		switch header.Typeflag {
		case tar.TypeSymlink:
			at.link = path.Join(path.Dir(name), header.Linkname)
		case tar.TypeReg, tar.TypeDir:
		default:
			continue
		}
		if _, twice := m.at[name]; twice {
			at = extent{size: -1}
		}
		m.at[name] = at
	}
}

func (m *members) has(name string) bool {
	_, ok := m.at[name]
	return ok
}

// find gives the stream of a member.
func (m *members) find(name string) (*io.SectionReader, error) {
	at, ok := m.at[path.Clean(name)]
	if at.link != "" {
		at, ok = m.at[at.link]
	}
	switch {
	case !ok, at.link != "":
		return nil, fmt.Errorf("%s: not in the archive", name)
	case at.size < 0:
		return nil, fmt.Errorf("%s: stands twice in the archive", name)
	}
	return io.NewSectionReader(m.r, at.offset, at.size), nil
}

func (m *members) read(name string) ([]byte, error) {
	r, err := m.find(name)
	if err != nil {
		return nil, err
	}
	if r.Size() > maxJSON {
		return nil, fmt.Errorf("%s: %d bytes, at most %d", name, r.Size(), maxJSON)
	}
	return io.ReadAll(r)
}

func (m *members) decode(name string, v any) error {
	body, err := m.read(name)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(body, v); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// index sets img up from an archive that has index files.
func (img *Image) index(platform v1.Platform, temp string) error {
	plain, err := img.plainFile(temp)
	if err != nil {
		return err
	}
	m, err := index(plain)
	if err != nil {
		return err
	}
	switch {
	case m.has(ociLayout):
		img.Layout = OCIArchive
		return img.fromOCI(m, platform)
	case m.has(dockerManifest):
		img.Layout = DockerArchive
		return img.fromDocker(m)
	}
	// A root filesystem after all, whose first entry has an image's name.
	img.isRootfs()
	return nil
}

func (img *Image) fromDocker(m *members) error {
	var manifest dockertar.Manifest
	if err := m.decode(dockerManifest, &manifest); err != nil {
		return err
	}
	if len(manifest) != 1 {
		var tags []string
		for _, image := range manifest {
			tags = append(tags, image.RepoTags...)
		}
		return fmt.Errorf("%s: %d images, want 1: %q", dockerManifest, len(manifest), tags)
	}
	var err error
	if img.Config, err = m.read(manifest[0].Config); err != nil {
		return err
	}
	img.RepoTags = manifest[0].RepoTags
	for _, name := range manifest[0].Layers {
		r, err := m.find(name)
		if err != nil {
			return err
		}
		img.Layers = append(img.Layers, img.layer(r, name, nil))
	}
	return img.consistent()
}

func (img *Image) fromOCI(m *members, platform v1.Platform) error {
	var layout struct {
		Version string `json:"imageLayoutVersion"`
	}
	if err := m.decode(ociLayout, &layout); err != nil {
		return err
	}
	if layout.Version != "1.0.0" {
		return fmt.Errorf("%s: version %q, want 1.0.0", ociLayout, layout.Version)
	}
	body, err := m.read(ociIndex)
	if err != nil {
		return err
	}
	found, err := m.manifests(ociIndex, body, 0)
	if err != nil {
		return err
	}
	one, err := choose(found, platform)
	if err != nil {
		return err
	}
	img.Digest, img.Config, img.Annotations = one.digest.String(), one.config, one.manifest.Annotations
	for i, descriptor := range one.manifest.Layers {
		if !descriptor.MediaType.IsLayer() || !descriptor.MediaType.IsDistributable() {
			return fmt.Errorf("layer %d: media type %s", i+1, descriptor.MediaType)
		}
		r, err := m.blob(descriptor)
		if err != nil {
			return err
		}
		img.Layers = append(img.Layers, img.layer(r, blobName(descriptor.Digest), &descriptor.Digest))
	}
	return img.consistent()
}

// consistent compares the number of layers with the config's.
func (img *Image) consistent() error {
	var config v1.ConfigFile
	if err := json.Unmarshal(img.Config, &config); err != nil {
		return fmt.Errorf("config: %w", err)
	}
	if got, want := len(img.Layers), len(config.RootFS.DiffIDs); got != want || got == 0 {
		return fmt.Errorf("%d layers, config has %d diff IDs", got, want)
	}
	return nil
}

// A candidate is an image of an OCI layout.
type candidate struct {
	digest   v1.Hash
	manifest v1.Manifest
	config   []byte
	platform v1.Platform
}

// manifests gathers the images of an index, nested indexes included.
// Attestations, which buildx adds as manifests, are none.
func (m *members) manifests(name string, body []byte, depth int) ([]candidate, error) {
	if depth == maxDepth {
		return nil, fmt.Errorf("%s: more than %d indexes in each other", name, maxDepth)
	}
	var index v1.IndexManifest
	if err := json.Unmarshal(body, &index); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if len(index.Manifests) > maxMembers {
		return nil, fmt.Errorf("%s: %d manifests, at most %d", name, len(index.Manifests), maxMembers)
	}
	var found []candidate
	for _, descriptor := range index.Manifests {
		if platform.IsAttestation(descriptor) {
			continue
		}
		body, err := m.verified(descriptor)
		if err != nil {
			return nil, err
		}
		blob := blobName(descriptor.Digest)
		if isIndex(descriptor.MediaType, body) {
			nested, err := m.manifests(blob, body, depth+1)
			if err != nil {
				return nil, err
			}
			found = append(found, nested...)
			continue
		}
		c := candidate{digest: descriptor.Digest}
		if err := json.Unmarshal(body, &c.manifest); err != nil {
			return nil, fmt.Errorf("%s: %w", blob, err)
		}
		if !c.manifest.Config.MediaType.IsConfig() {
			continue // an artifact, no image
		}
		if c.config, err = m.verified(c.manifest.Config); err != nil {
			return nil, err
		}
		var config v1.ConfigFile
		if err := json.Unmarshal(c.config, &config); err != nil {
			return nil, fmt.Errorf("%s: %w", blobName(c.manifest.Config.Digest), err)
		}
		c.platform = platform.Of(&config)
		if !slices.ContainsFunc(found, func(other candidate) bool { return other.digest == c.digest }) {
			found = append(found, c)
		}
	}
	return found, nil
}

func isIndex(mediaType types.MediaType, body []byte) bool {
	return mediaType.IsIndex() || mediaType == "" && bytes.Contains(body, []byte(`"manifests"`))
}

// choose picks the image for the platform. A single image is taken whatever its
// platform; whether it fits is for the caller to say. Without a platform there
// must be a single image.
func choose(found []candidate, want v1.Platform) (candidate, error) {
	if len(found) == 1 {
		return found[0], nil
	}
	var fit []candidate
	var all []string
	for _, c := range found {
		all = append(all, c.platform.String())
		if platform.Same(c.platform, want) {
			fit = append(fit, c)
		}
	}
	switch {
	case len(fit) == 1:
		return fit[0], nil
	case want.OS == "":
		return candidate{}, fmt.Errorf("%d images, want 1: %s", len(found), strings.Join(all, ", "))
	case len(fit) == 0:
		return candidate{}, fmt.Errorf("no image for %s; there are %d: %s", want, len(found), strings.Join(all, ", "))
	}
	return candidate{}, fmt.Errorf("%d images for %s, want 1", len(fit), want)
}

// blobName is where an OCI layout keeps a blob (image-spec v1.1, image-layout.md).
func blobName(digest v1.Hash) string { return path.Join("blobs", digest.Algorithm, digest.Hex) }

// blob finds the blob of a descriptor and compares the sizes.
func (m *members) blob(d v1.Descriptor) (*io.SectionReader, error) {
	if d.Digest.Algorithm != "sha256" || len(d.Digest.Hex) != 64 || strings.Trim(d.Digest.Hex, "0123456789abcdef") != "" {
		return nil, fmt.Errorf("digest %q: want sha256:<64 hex digits>", d.Digest)
	}
	r, err := m.find(blobName(d.Digest))
	if err == nil && r.Size() != d.Size {
		err = fmt.Errorf("%s: %d bytes, its descriptor says %d", blobName(d.Digest), r.Size(), d.Size)
	}
	return r, err
}

// verified reads a small blob and checks its digest.
func (m *members) verified(d v1.Descriptor) ([]byte, error) {
	r, err := m.blob(d)
	if err != nil {
		return nil, err
	}
	if d.Size > maxJSON {
		return nil, fmt.Errorf("%s: %d bytes, at most %d", blobName(d.Digest), d.Size, maxJSON)
	}
	checked := newDigestReader(r, d.Digest)
	body, err := io.ReadAll(checked)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", blobName(d.Digest), err)
	}
	return body, nil
}

// layer makes a layer of a member, which may be compressed.
func (img *Image) layer(r *io.SectionReader, name string, digest *v1.Hash) Layer {
	return func() (io.ReadCloser, error) {
		input := img.counted(io.NewSectionReader(r, 0, r.Size()))
		if digest != nil {
			input = newDigestReader(input, *digest)
		}
		plain, err := img.decoders.NewReader(input)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		return &member{plain, input, name}, nil
	}
}

// member is a member's plain stream. Its end is the end of the member as well,
// so that the digest has been checked.
type member struct {
	plain *decompress.Reader
	input io.Reader
	name  string
}

func (m *member) Read(p []byte) (int, error) {
	n, err := m.plain.Read(p)
	if errors.Is(err, io.EOF) {
		rest, restErr := io.Copy(io.Discard, m.input)
		switch {
		case restErr != nil:
			err = restErr
		case rest > 0:
			err = fmt.Errorf("%d bytes after the end of the %s stream", rest, m.plain.Format)
		default:
			return n, io.EOF
		}
	}
	if err != nil {
		err = fmt.Errorf("%s: %w", m.name, err)
	}
	return n, err
}

func (m *member) Close() error { return m.plain.Close() }
