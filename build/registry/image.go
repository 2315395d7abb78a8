package registry

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"pretag/build/internal/atomicfile"
	"pretag/build/internal/contextio"
	"pretag/build/internal/decompress"
	"pretag/build/internal/ociarchive"
	"pretag/build/internal/platform"
	"pretag/build/release"
)

const (
	// maxConfig bounds what is read into memory: registries take manifests up
	// to 4 MiB (OCI distribution-spec v1.1, Pushing Manifests), and a config is smaller.
	maxConfig = 4 << 20
	// maxDepth bounds indexes within indexes.
	maxDepth = 4
)

// An image is what a tag names, for one platform.
type image struct {
	named      v1.Hash       // of what the tag names: an index, or the manifest itself
	descriptor v1.Descriptor // of the manifest
	raw        []byte        // the manifest
	manifest   *v1.Manifest
	platform   v1.Platform
}

// blobs lists what the manifest refers to, each blob once, the config first.
func (i *image) blobs() []v1.Descriptor {
	var blobs []v1.Descriptor
	seen := map[v1.Hash]bool{}
	for _, blob := range append([]v1.Descriptor{i.manifest.Config}, i.manifest.Layers...) {
		if !seen[blob.Digest] {
			blobs = append(blobs, blob)
		}
		seen[blob.Digest] = true
	}
	return blobs
}

// resolve finds the image of a tag for a platform.
func (c *client) resolve(ctx context.Context, tag string, platform v1.Platform) (*image, error) {
	d, err := c.manifest(ctx, tag)
	if err != nil {
		return nil, err
	}
	i := &image{named: d.Digest, platform: platform}
	if d, err = c.choose(ctx, d, platform, maxDepth); err != nil {
		return nil, err
	}
	i.raw = d.Manifest
	i.descriptor = v1.Descriptor{MediaType: d.MediaType, Size: d.Size, Digest: d.Digest}
	i.manifest, err = v1.ParseManifest(bytes.NewReader(i.raw))
	if err != nil {
		return nil, fmt.Errorf("manifest %s: %w", d.Digest, err)
	}
	return i, i.doubt()
}

// doubt looks for what makes the manifest none of an image of layers. Digests
// of other kinds than sha256 are refused: nobody pushes them, and package source
// reads none.
func (i *image) doubt() error {
	reject := func(format string, args ...any) error {
		return fmt.Errorf("manifest %s: %w", i.descriptor.Digest, fmt.Errorf(format, args...))
	}
	m := i.manifest
	if m.MediaType != "" && m.MediaType != i.descriptor.MediaType {
		return reject("served as %s, calls itself %s", i.descriptor.MediaType, m.MediaType)
	}
	if !m.Config.MediaType.IsConfig() {
		return reject("not an image: its config is %s", m.Config.MediaType)
	}
	if m.Config.Size > maxConfig {
		return reject("a config of %d bytes, want at most %d", m.Config.Size, maxConfig)
	}
	for _, layer := range m.Layers {
		if !layer.MediaType.IsLayer() || !layer.MediaType.IsDistributable() {
			return reject("layer %s: media type %s", layer.Digest, layer.MediaType)
		}
	}
	for _, blob := range append(i.blobs(), i.descriptor) {
		if blob.Digest.Algorithm != "sha256" {
			return reject("digest %s: want sha256", blob.Digest)
		}
		if blob.Size < 0 {
			return reject("blob %s: size %d", blob.Digest, blob.Size)
		}
	}
	return nil
}

// choose goes down from an index to the manifest for a platform.
func (c *client) choose(ctx context.Context, d *remote.Descriptor, want v1.Platform, depth int) (*remote.Descriptor, error) {
	switch {
	case d.MediaType.IsImage():
		return d, nil
	case !d.MediaType.IsIndex():
		return nil, fmt.Errorf("%s: neither an image nor an index but %s", d.Digest, d.MediaType)
	case depth == 0:
		return nil, fmt.Errorf("index %s: more than %d indexes deep", d.Digest, maxDepth)
	}
	index, err := v1.ParseIndexManifest(bytes.NewReader(d.Manifest))
	if err != nil {
		return nil, fmt.Errorf("index %s: %w", d.Digest, err)
	}
	var offers []string
	for _, entry := range index.Manifests {
		inner := entry.MediaType.IsIndex()
		if !inner && !entry.MediaType.IsImage() || platform.IsAttestation(entry) {
			continue
		}
		if entry.Platform != nil {
			if !platform.Same(*entry.Platform, want) {
				offers = append(offers, entry.Platform.String())
				continue
			}
		} else if !inner {
			continue
		}
		found, err := c.manifest(ctx, entry.Digest.String())
		if err != nil {
			return nil, fmt.Errorf("%s: %w", entry.Digest, err)
		}
		found, err = c.choose(ctx, found, want, depth-1)
		if missing := (noPlatform{}); errors.As(err, &missing) {
			offers = append(offers, missing.offers...)
			continue
		}
		return found, err
	}
	return nil, noPlatform{want, offers}
}

// noPlatform is an index without the platform that is wanted.
type noPlatform struct {
	want   v1.Platform
	offers []string
}

func (e noPlatform) Error() string {
	if len(e.offers) == 0 {
		return fmt.Sprintf("no image for %s", e.want)
	}
	return fmt.Sprintf("no image for %s; there are %s", e.want, strings.Join(e.offers, ", "))
}

// write writes the oci-archive at path of the blobs in folder, and its side
// file, once every digest has been checked. Equal images make equal bytes.
func (i *image) write(ctx context.Context, path, folder, tag, source string) (o release.Origin, err error) {
	if err := i.verify(ctx, folder); err != nil {
		return o, err
	}
	img, err := partial.CompressedToImage(&stored{ctx, i, folder})
	if err != nil {
		return o, err
	}
	err = atomicfile.Write(path, func(f *os.File) error {
		hash := sha256.New()
		w := bufio.NewWriterSize(io.MultiWriter(f, hash), 1<<20)
		if err := errors.Join(ociarchive.Write(w, img, tag, time.Unix(0, 0)), w.Flush()); err != nil {
			return err
		}
		info, err := f.Stat()
		if err != nil {
			return err
		}
		o = release.Origin{
			Source: source, Digest: i.descriptor.Digest.String(), Size: info.Size(), SHA256: hex.EncodeToString(hash.Sum(nil)),
		}
		return o.Write(path)
	})
	return o, err
}

// verify checks the blobs in folder: their digests, the platform, and the
// layers' diff IDs against the config.
func (i *image) verify(ctx context.Context, folder string) error {
	diffIDs := map[v1.Hash]v1.Hash{}
	for _, blob := range i.blobs() {
		diffID, err := verifyBlob(ctx, filepath.Join(folder, blob.Digest.Hex), blob.Digest)
		if err != nil {
			return fmt.Errorf("blob %s: %w", blob.Digest, err)
		}
		diffIDs[blob.Digest] = diffID
	}
	config, err := i.config(folder)
	if err != nil {
		return err
	}
	for n, layer := range i.manifest.Layers {
		if got, want := diffIDs[layer.Digest], config.RootFS.DiffIDs[n]; got != want {
			return fmt.Errorf("layer %s: got diff ID %s, the config says %s", layer.Digest, got, want)
		}
	}
	return nil
}

// config reads the image's config from folder and holds it against the manifest
// and the platform that is wanted.
func (i *image) config(folder string) (*v1.ConfigFile, error) {
	digest := i.manifest.Config.Digest
	data, err := os.ReadFile(filepath.Join(folder, digest.Hex))
	if err != nil {
		return nil, err
	}
	config, err := v1.ParseConfigFile(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("config %s: %w", digest, err)
	}
	if got, want := len(config.RootFS.DiffIDs), len(i.manifest.Layers); got != want {
		return nil, fmt.Errorf("config %s: %d diff IDs, the manifest has %d layers", digest, got, want)
	}
	if got := platform.Of(config); !platform.Same(got, i.platform) {
		return nil, fmt.Errorf("image is for %s, want %s", got, i.platform)
	}
	return config, nil
}

// verifyBlob checks the digest of the blob at path, and returns that of what it
// holds uncompressed: a layer's diff ID.
func verifyBlob(ctx context.Context, path string, want v1.Hash) (diffID v1.Hash, err error) {
	f, err := os.Open(path)
	if err != nil {
		return diffID, err
	}
	defer f.Close()
	digest, unpacked := sha256.New(), sha256.New()
	blob := io.TeeReader(contextio.NewReader(ctx, f), digest)
	plain, err := decompress.NewReader(blob)
	if err != nil {
		return diffID, err
	}
	defer plain.Close()
	if _, err := io.Copy(unpacked, plain); err != nil {
		return diffID, err
	}
	if _, err := io.Copy(io.Discard, blob); err != nil {
		return diffID, err
	}
	if got := hex.EncodeToString(digest.Sum(nil)); got != want.Hex {
		return diffID, fmt.Errorf("got digest sha256:%s", got)
	}
	return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(unpacked.Sum(nil))}, nil
}

// A stored image is one whose blobs are in folder (partial.CompressedImageCore).
type stored struct {
	ctx context.Context
	*image
	folder string
}

func (s *stored) MediaType() (types.MediaType, error) { return s.descriptor.MediaType, nil }
func (s *stored) RawManifest() ([]byte, error)        { return s.raw, nil }
func (s *stored) RawConfigFile() ([]byte, error) {
	return os.ReadFile(filepath.Join(s.folder, s.manifest.Config.Digest.Hex))
}

func (s *stored) LayerByDigest(digest v1.Hash) (partial.CompressedLayer, error) {
	for _, layer := range s.manifest.Layers {
		if layer.Digest == digest {
			return &storedLayer{s.ctx, layer, filepath.Join(s.folder, digest.Hex)}, nil
		}
	}
	return nil, fmt.Errorf("no layer %s", digest)
}

type storedLayer struct {
	ctx        context.Context
	descriptor v1.Descriptor
	path       string
}

func (l *storedLayer) Digest() (v1.Hash, error)            { return l.descriptor.Digest, nil }
func (l *storedLayer) Size() (int64, error)                { return l.descriptor.Size, nil }
func (l *storedLayer) MediaType() (types.MediaType, error) { return l.descriptor.MediaType, nil }
func (l *storedLayer) Compressed() (io.ReadCloser, error) {
	f, err := os.Open(l.path)
	if err != nil {
		return nil, err
	}
	return struct {
		io.Reader
		io.Closer
	}{contextio.NewReader(l.ctx, f), f}, nil
}
