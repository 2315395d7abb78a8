// Package oci decides which image of an OCI index is meant. Archives and
// registries use the same rule; where the documents come from is up to a Fetcher.
//
// The index may be nested. Entries are read as the descriptors describe them:
//
//   - An entry for another platform, an attestation, and an entry that is
//     neither an image nor an index are passed over and not read.
//   - An entry without a platform is read. The config of the image says what
//     platform it is for.
//   - A manifest whose config is not that of an image is an artifact. It is passed over.
//   - An entry that is absent or damaged is passed over, and named if no image fits.
//   - Images with the same config are one image: builders list it once for each
//     compression of its layers.
//
// Only what was read is verified, and each digest is read once.
package oci

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"pretag/build/internal/platform"
)

// MaxDocument is the largest manifest, index or config, in bytes. podman and
// skopeo take no larger ones (containers/image v5.24.0,
// internal/iolimits/iolimits.go, MaxManifestBodySize and MaxConfigBodySize).
const MaxDocument = 4 << 20

// MaxLayers is the largest number of layers of an image. Linux mounts at most
// 500 layers with overlayfs (v6.1, fs/overlayfs/super.c, OVL_MAX_STACK), so that
// only the vfs driver can use more.
const MaxLayers = 1000

// Bounds on indexes, all nested ones together. An index of GitLab Runner's
// release has some 20 entries.
const (
	maxDepth   = 4      // of indexes in indexes
	maxEntries = 10_000 // entries looked at
	maxReads   = 500    // documents read
	maxBytes   = 64 << 20
	maxNamed   = 20 // entries that an error names
)

// A Fetcher fetches documents: manifests, indexes and configs.
type Fetcher interface {
	// Fetch returns the document that d describes. It may return at most one
	// byte more than d.Size; the caller compares size and digest. The error wraps
	// fs.ErrNotExist if the document is absent. Any other error ends the search.
	Fetch(ctx context.Context, d v1.Descriptor) ([]byte, error)
}

// An Image is a chosen image. Manifest and config are verified, layers are not.
type Image struct {
	Descriptor  v1.Descriptor // of the manifest
	RawManifest []byte
	Manifest    v1.Manifest
	RawConfig   []byte
	Config      v1.ConfigFile
}

// Platform returns the platform that the image's config names.
func (i *Image) Platform() v1.Platform { return platform.Of(&i.Config) }

// Choose returns the image for the platform want in the document root, which is
// an index or the manifest of an image; body is its content. The digest and the
// media type of root may be left out.
//
// If root leads to a single image, Choose returns it even if it is for another
// platform: the caller knows best how to report that. With the zero platform
// there must be a single image.
func Choose(ctx context.Context, f Fetcher, root v1.Descriptor, body []byte, want v1.Platform) (*Image, error) {
	if len(body) > MaxDocument {
		return nil, fmt.Errorf("index of %d bytes, at most %d are allowed", len(body), MaxDocument)
	}
	w := &walk{ctx: ctx, fetcher: f, want: want, seen: map[v1.Hash]bool{}, foreign: map[v1.Hash]bool{}, cache: map[v1.Hash][]byte{}}
	index, err := isIndex(root.MediaType, body)
	if err != nil {
		return nil, err
	}
	if !index {
		if root.Digest == (v1.Hash{}) {
			root.Digest = v1.Hash{Algorithm: "sha256", Hex: fmt.Sprintf("%x", sha256.Sum256(body))}
		}
		root.Size = int64(len(body))
		return w.single(root, body)
	}
	w.queue = []document{{"index", body, 1}}
	for len(w.queue) > 0 {
		// Breadth first, so that an index is read where it is nested least.
		next := w.queue[0]
		w.queue = w.queue[1:]
		if err := w.index(next); err != nil {
			return nil, err
		}
	}
	return w.result()
}

// A document is an index that is still to be read.
type document struct {
	name  string
	body  []byte
	depth int
}

// A walk is the search through an index.
type walk struct {
	ctx     context.Context
	fetcher Fetcher
	want    v1.Platform

	queue   []document
	seen    map[v1.Hash]bool   // digests of entries that were read
	foreign map[v1.Hash]bool   // digests of entries for another platform
	cache   map[v1.Hash][]byte // documents read
	entries int
	reads   int
	bytes   int64

	fit     []*Image
	others  []v1.Descriptor // of images for other platforms, which they name
	unread  bool            // an entry that might fit could not be read
	passed  []string        // the first entries passed over, and why
	skipped int             // how many entries were passed over
}

func (w *walk) pass(entry string, reason any) {
	if w.skipped++; w.skipped <= maxNamed {
		w.passed = append(w.passed, printable(fmt.Sprintf("%s (%v)", entry, reason)))
	}
}

// index looks at each entry of an index.
func (w *walk) index(doc document) error {
	var index struct {
		Manifests []json.RawMessage `json:"manifests"`
	}
	if err := json.Unmarshal(doc.body, &index); err != nil {
		w.unread = true
		w.pass(doc.name, err)
		return nil
	}
	if w.entries += len(index.Manifests); w.entries > maxEntries {
		return fmt.Errorf("%s: more than %d entries in all indexes together", doc.name, maxEntries)
	}
	for n, raw := range index.Manifests {
		if w.ctx.Err() != nil {
			return context.Cause(w.ctx)
		}
		// Entry by entry, so that an unreadable entry does not hide the others.
		var d v1.Descriptor
		if err := json.Unmarshal(raw, &d); err != nil {
			w.unread = true
			w.pass(fmt.Sprintf("entry %d of %s", n+1, doc.name), err)
			continue
		}
		if err := w.entry(d, doc.depth); err != nil {
			return err
		}
	}
	return nil
}

// entry looks at one entry of an index. It fails if the search cannot go on.
func (w *walk) entry(d v1.Descriptor, depth int) error {
	name := d.Digest.String()
	switch {
	case platform.IsAttestation(d):
		w.pass(name, "an attestation")
		return nil
	case d.MediaType != "" && !d.MediaType.IsImage() && !d.MediaType.IsIndex():
		w.pass(name, "neither an image nor an index but "+quote(string(d.MediaType)))
		return nil
	case d.ArtifactType != "" && !types.MediaType(d.ArtifactType).IsConfig():
		w.pass(name, "an artifact of type "+quote(d.ArtifactType))
		return nil
	case d.Platform != nil && w.want.OS != "" && !platform.Same(*d.Platform, w.want):
		if d.MediaType.IsIndex() {
			w.pass(name, d.Platform)
		} else if !w.foreign[d.Digest] {
			w.foreign[d.Digest] = true
			w.others = append(w.others, d)
		}
		return nil
	case w.seen[d.Digest]:
		return nil
	}
	w.seen[d.Digest] = true
	body, err := w.read(d)
	if err == nil {
		err = w.candidate(d, body, depth)
	}
	var rejected rejection
	if errors.As(err, &rejected) {
		w.unread = w.unread || !rejected.artifact
		w.pass(label(d), rejected)
		return nil
	}
	return err
}

// candidate looks at an entry that may fit.
func (w *walk) candidate(d v1.Descriptor, body []byte, depth int) error {
	index, err := isIndex(d.MediaType, body)
	if err != nil {
		return rejection{error: err}
	}
	if index {
		if depth == maxDepth {
			return rejection{error: fmt.Errorf("more than %d indexes in each other", maxDepth)}
		}
		w.queue = append(w.queue, document{"index " + d.Digest.String(), body, depth + 1})
		return nil
	}
	image, err := w.image(d, body)
	if err != nil {
		return err
	}
	if got := image.Platform(); w.want.OS != "" && d.Platform == nil && !platform.Same(got, w.want) {
		d.Platform = &got
		w.others = append(w.others, d)
		return nil
	}
	// The same image with layers in another compression has the same config.
	if !slices.ContainsFunc(w.fit, func(i *Image) bool { return i.Manifest.Config.Digest == image.Manifest.Config.Digest }) {
		w.fit = append(w.fit, image)
	}
	return nil
}

// result picks the image from what was found.
func (w *walk) result() (*Image, error) {
	fit := w.fit
	if len(fit) == 0 && !w.unread && len(w.others) == 1 {
		d := w.others[0]
		body, err := w.read(d)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", printable(label(d)), err)
		}
		return w.single(d, body)
	}
	switch {
	case len(fit) == 1:
		return fit[0], nil
	case len(fit) > 1:
		var names []string
		for _, image := range fit[:min(len(fit), maxNamed)] {
			names = append(names, printable(fmt.Sprintf("%s (%s)", image.Descriptor.Digest, image.Platform())))
		}
		return nil, fmt.Errorf("%d images%s, want 1: %s", len(fit), forPlatform(w.want), list(names, len(fit)))
	}
	for _, d := range w.others {
		w.pass(d.Digest.String(), d.Platform)
	}
	if len(w.passed) == 0 {
		return nil, fmt.Errorf("no image%s: the index is empty", forPlatform(w.want))
	}
	return nil, fmt.Errorf("no image%s; passed over: %s", forPlatform(w.want), list(w.passed, w.skipped))
}

// single reads the only image that there is.
func (w *walk) single(d v1.Descriptor, body []byte) (*Image, error) {
	index, err := isIndex(d.MediaType, body)
	if err == nil && index {
		err = errors.New("an index, its descriptor says that it is an image")
	}
	var image *Image
	if err == nil {
		image, err = w.image(d, body)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", printable(label(d)), err)
	}
	return image, nil
}

func forPlatform(p v1.Platform) string {
	if p.OS == "" {
		return ""
	}
	return " for " + p.String()
}

// list joins names, which are the first of all.
func list(names []string, all int) string {
	text := strings.Join(names, ", ")
	if more := all - len(names); more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// label names an entry with its platform, if it has one.
func label(d v1.Descriptor) string {
	if d.Platform == nil {
		return d.Digest.String()
	}
	return fmt.Sprintf("%s for %s", d.Digest, d.Platform)
}

// quote bounds what a foreign document puts into an error.
func quote(s string) string { return fmt.Sprintf("%.100q", s) }

// printable does the same for a text that is not a single word of the document.
func printable(s string) string {
	quoted := fmt.Sprintf("%.500q", s)
	return strings.ReplaceAll(quoted[1:len(quoted)-1], `\"`, `"`)
}

// A rejection says why one document is not used. The search goes on.
type rejection struct {
	error
	artifact bool // the document is sound, but it is not an image
}

func (r rejection) Unwrap() error { return r.error }

func reject(format string, args ...any) error { return rejection{error: fmt.Errorf(format, args...)} }

// read fetches a document and compares its size and digest with its descriptor.
func (w *walk) read(d v1.Descriptor) ([]byte, error) {
	if err := CheckDigest(d.Digest); err != nil {
		return nil, rejection{error: err}
	}
	if d.Size < 0 || d.Size > MaxDocument {
		return nil, reject("%d bytes, at most %d are allowed", d.Size, MaxDocument)
	}
	if body, ok := w.cache[d.Digest]; ok && int64(len(body)) == d.Size {
		return body, nil
	}
	if w.reads++; w.reads > maxReads {
		return nil, fmt.Errorf("more than %d manifests and configs have to be read", maxReads)
	}
	if w.bytes += d.Size; w.bytes > maxBytes {
		return nil, fmt.Errorf("more than %d bytes of manifests and configs have to be read", maxBytes)
	}
	if w.ctx.Err() != nil {
		return nil, context.Cause(w.ctx)
	}
	body, err := w.fetcher.Fetch(w.ctx, d)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, reject("it is absent")
	case err != nil:
		return nil, fmt.Errorf("%s: %w", d.Digest, err)
	case int64(len(body)) > d.Size:
		return nil, reject("more than the %d bytes of its descriptor", d.Size)
	case int64(len(body)) < d.Size:
		return nil, reject("%d bytes, its descriptor says %d", len(body), d.Size)
	}
	if got := fmt.Sprintf("%x", sha256.Sum256(body)); got != d.Digest.Hex {
		return nil, reject("digest is sha256:%s", got)
	}
	w.cache[d.Digest] = body
	return body, nil
}

// image reads the config of the image with the manifest body, and checks both.
func (w *walk) image(d v1.Descriptor, body []byte) (*Image, error) {
	i := &Image{Descriptor: d, RawManifest: body}
	m := &i.Manifest
	if err := json.Unmarshal(body, m); err != nil {
		return nil, reject("manifest: %w", err)
	}
	if !m.Config.MediaType.IsConfig() {
		return nil, rejection{fmt.Errorf("an artifact: its config is of type %s", quote(string(m.Config.MediaType))), true}
	}
	if err := checkLayers(len(m.Layers)); err != nil {
		return nil, rejection{error: err}
	}
	for n, layer := range m.Layers {
		if err := checkLayer(layer); err != nil {
			return nil, reject("layer %d: %w", n+1, err)
		}
	}
	config, err := w.read(m.Config)
	if err != nil {
		rejected := rejection{}
		if errors.As(err, &rejected) {
			return nil, reject("config %s: %w", m.Config.Digest, rejected.error)
		}
		return nil, err
	}
	i.RawConfig = config
	parsed, err := ParseConfig(config, len(m.Layers))
	if err != nil {
		return nil, rejection{error: err}
	}
	i.Config = *parsed
	return i, nil
}

// CheckDigest reports a digest that is not a sha256: no builder pushes another one.
func CheckDigest(digest v1.Hash) error {
	if digest.Algorithm != "sha256" || len(digest.Hex) != sha256.Size*2 || strings.Trim(digest.Hex, "0123456789abcdef") != "" {
		return fmt.Errorf("digest %s: want sha256:<64 hex digits>", quote(digest.String()))
	}
	return nil
}

// layerTypes are the media types of layers whose bytes are with the image:
// OCI image-spec v1.1 layer.md, Docker's manifest v2.2, and BuildKit's name for
// zstd in Docker's form (moby/buildkit v0.13, util/compression). The content, not
// the suffix, decides how a layer is decompressed.
var layerTypes = regexp.MustCompile(`^application/vnd\.(oci\.image\.layer\.v1\.tar(\+(gzip|zstd|bzip2|xz))?|docker\.image\.rootfs\.diff\.tar(\.(gzip|zstd|bzip2|xz))?)$`)

func checkLayer(d v1.Descriptor) error {
	switch mediaType := string(d.MediaType); {
	case !d.MediaType.IsDistributable():
		return fmt.Errorf("media type %s: the layer is not part of the image but has to be downloaded", quote(mediaType))
	case strings.HasSuffix(mediaType, "+encrypted"):
		return fmt.Errorf("media type %s: the layer is encrypted", quote(mediaType))
	case !layerTypes.MatchString(mediaType):
		return fmt.Errorf("media type %s is not that of a layer", quote(mediaType))
	case d.Size < 0:
		return fmt.Errorf("size is %d", d.Size)
	}
	return CheckDigest(d.Digest)
}

// isIndex reports whether a document is an index; otherwise it is a manifest.
// A document that could be taken for either is refused, because registries and
// engines would disagree on it (CVE-2021-41190).
func isIndex(mediaType types.MediaType, body []byte) (bool, error) {
	var fields struct { // encoding/json ignores the case of names, as the engines do
		MediaType types.MediaType `json:"mediaType"`
		Manifests json.RawMessage `json:"manifests"`
		Config    json.RawMessage `json:"config"`
		Layers    json.RawMessage `json:"layers"`
		FSLayers  json.RawMessage `json:"fsLayers"`
		History   json.RawMessage `json:"history"`
	}
	if err := json.Unmarshal(body, &fields); err != nil {
		return false, err
	}
	if mediaType == "" {
		mediaType = fields.MediaType
	} else if fields.MediaType != "" && fields.MediaType != mediaType {
		return false, fmt.Errorf("media type is %s, its descriptor says %s", quote(string(fields.MediaType)), quote(string(mediaType)))
	}
	manifest := fields.Config != nil || fields.Layers != nil
	index := fields.Manifests != nil
	switch {
	case fields.FSLayers != nil || fields.History != nil:
		return false, errors.New("has fields of Docker's old manifest version 1")
	case manifest && index:
		return false, errors.New("has the fields of a manifest and of an index")
	case mediaType == "":
		return index, nil
	case mediaType.IsIndex() && !manifest:
		return true, nil
	case mediaType.IsImage() && !index:
		return false, nil
	}
	return false, fmt.Errorf("media type is %s, but the fields are not", quote(string(mediaType)))
}
