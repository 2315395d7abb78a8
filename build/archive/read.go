package archive

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"reflect"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"pretag/build/internal/contextio"
	"pretag/build/internal/decompress"
	"pretag/build/internal/oci"
	"pretag/build/internal/platform"
	"pretag/build/internal/stricttar"
	"pretag/build/release"
)

// Bounds on what a docker-archive may hold besides its layers.
const (
	maxDocuments = 8 * oci.MaxDocument // together, bytes
	maxMembers   = 10_000
)

// Contents is what was found in a docker-archive. All digests are computed from
// its bytes.
type Contents struct {
	Size         int64             // of the archive, bytes
	SHA256       string            // of the archive, hex
	Outer        decompress.Format // around the archive
	Inner        decompress.Format // around the layers; "" if there are none
	RepoTags     []string          // as manifest.json lists them
	RawConfig    []byte
	Config       v1.ConfigFile
	ImageID      string   // sha256:<hex> of RawConfig
	DiffIDs      []string // sha256:<hex> of each uncompressed layer, bottom up
	UnpackedSize int64    // sum of the uncompressed layers, bytes
	Platform     v1.Platform
	// Problems lists why an engine or GitLab Runner would not accept the archive
	// or would take it for something else. It is empty for a good archive.
	Problems []string
}

// Compression is how the archive is encoded, without a level.
func (c *Contents) Compression() string {
	if c.Outer == decompress.None && c.Inner != "" {
		return string(c.Inner)
	}
	return string(c.Outer)
}

// ReadOptions says how to read a docker-archive. The zero value is for archives
// that pretag wrote.
type ReadOptions struct {
	// Visit is called for each entry of the layers, in the order in which the
	// layers are in the file; nil for none. An error of Visit ends the reading.
	Visit Visitor
	// Exported is set for what an engine exports. Engines name the layers as they
	// like, link a layer to another one's file, compress layers, and add members
	// of their own. Layers are not looked into, and only differences between
	// manifest, config and layers are problems.
	Exported bool
	// Decoders keeps the memory for decompression from one archive to the next; nil
	// keeps nothing.
	Decoders *decompress.Decoders
}

// Read reads the docker-archive at path from its first byte to its last. It
// fails if the bytes cannot be read as one (truncated, damaged, not a tar file);
// what is readable but wrong is in Problems.
func Read(ctx context.Context, path string) (*Contents, error) {
	c, _, err := readFile(ctx, path, ReadOptions{})
	return c, err
}

func readFile(ctx context.Context, path string, opts ReadOptions) (*Contents, *Tree, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	c, tree, err := read(ctx, f, opts)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	return c, tree, nil
}

// ReadFrom is Read for an archive that is not a file, such as one in a package,
// and for other kinds of archives.
func ReadFrom(ctx context.Context, r io.Reader, opts ReadOptions) (*Contents, error) {
	c, _, err := read(ctx, r, opts)
	return c, err
}

func read(ctx context.Context, r io.Reader, opts ReadOptions) (*Contents, *Tree, error) {
	sum := sha256.New()
	counted := &countWriter{w: sum}
	input := io.TeeReader(contextio.NewReader(ctx, r), counted)
	var head [4]byte
	n, err := io.ReadFull(input, head[:])
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return nil, nil, err
	}
	plain, err := opts.Decoders.NewReader(io.MultiReader(bytes.NewReader(head[:n]), input))
	if err != nil {
		return nil, nil, err
	}
	defer plain.Close()
	m := newMembers(opts)
	if err := m.read(ctx, contextio.NewReader(ctx, plain)); err != nil {
		return nil, nil, err
	}
	if _, err := io.Copy(io.Discard, input); err != nil { // to the last byte, for the sum
		return nil, nil, err
	}
	c := &Contents{Size: counted.n, SHA256: hex.EncodeToString(sum.Sum(nil)), Outer: plain.Format}
	c.judge(m, opts)
	if !opts.Exported {
		c.judgeForm(m, head[:n])
	}
	return c, m.entries.tree, nil
}

func (c *Contents) problem(format string, args ...any) {
	c.Problems = append(c.Problems, fmt.Sprintf(format, args...))
}

// Walk calls visit, which may be nil, for each entry of the layers of the
// docker-archive at path, bottom up, and returns the tree of its files. It fails at
// visit's first error, when ctx ends, and if the archive is wrong in itself. See
// ReadOptions for decoders.
func Walk(ctx context.Context, path string, decoders *decompress.Decoders, visit Visitor) (*Tree, error) {
	c, tree, err := readFile(ctx, path, ReadOptions{Visit: visit, Decoders: decoders})
	if err != nil {
		return nil, err
	}
	if len(c.Problems) > 0 {
		return nil, fmt.Errorf("%s: %s", path, strings.Join(c.Problems, "; "))
	}
	return tree, nil
}

// members is what is in the tar file of a docker-archive.
type members struct {
	opts      ReadOptions
	entries   *entryCheck
	layers    map[string]layer
	order     []string // names of the layers
	documents map[string][]byte
	links     map[string]string // symbolic links, to members
	strange   []string          // members that are neither files nor directories
	size      int               // of the documents, bytes
}

type layer struct {
	diffID string
	size   int64 // uncompressed, bytes
	inner  decompress.Format
}

func newMembers(opts ReadOptions) *members {
	m := &members{opts: opts, entries: newEntryCheck(false, ""), layers: map[string]layer{}, documents: map[string][]byte{}, links: map[string]string{}}
	if m.entries.visit = opts.Visit; m.entries.visit == nil {
		// Programs were checked when the archive was written.
		m.entries.visit = func(int, *tar.Header, io.Reader) error { return nil }
	}
	return m
}

func (m *members) read(ctx context.Context, r io.Reader) error {
	seen := map[string]bool{}
	tr := stricttar.NewReader(r)
	for n := 1; ; n++ {
		header, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil && n > maxMembers {
			err = fmt.Errorf("more than %d members", maxMembers)
		}
		if err != nil {
			return fmt.Errorf("member %d: %w", n, err)
		}
		if header.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		member, err := inside(header.Name)
		switch mode := header.FileInfo().Mode(); {
		case err != nil:
		case mode.IsDir():
			continue
		case seen[member]:
			err = errors.New("is in the archive twice")
		case header.Typeflag == tar.TypeSymlink:
			m.links[member] = path.Join(path.Dir(member), header.Linkname)
			m.strange = append(m.strange, member)
		case header.Typeflag != tar.TypeReg:
			m.strange = append(m.strange, member)
		default:
			err = m.file(ctx, member, tr)
		}
		if err != nil {
			return fmt.Errorf("member %.200q: %w", header.Name, err)
		}
		seen[member] = true
	}
}

// file reads a member, which is a layer or a document. Of an exported archive the
// content decides, because each engine names members in its own way: documents are JSON.
func (m *members) file(ctx context.Context, member string, r io.Reader) (err error) {
	isLayer := path.Ext(member) == ".tar"
	if m.opts.Exported {
		var head [1]byte
		n, err := io.ReadFull(r, head[:])
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		isLayer = n == 0 || head[0] != '{' && head[0] != '['
		r = io.MultiReader(bytes.NewReader(head[:n]), r)
	}
	if isLayer {
		m.order = append(m.order, member)
		m.layers[member], err = m.layer(ctx, r)
		return err
	}
	body, err := io.ReadAll(io.LimitReader(r, oci.MaxDocument+1))
	switch m.size += len(body); {
	case err != nil:
		return err
	case len(body) > oci.MaxDocument:
		return fmt.Errorf("more than %d bytes", oci.MaxDocument)
	case m.size > maxDocuments:
		return fmt.Errorf("more than %d bytes together with those before it", maxDocuments)
	}
	m.documents[member] = body
	return nil
}

func (m *members) layer(ctx context.Context, r io.Reader) (layer, error) {
	plain, err := m.opts.Decoders.NewReader(r)
	if err != nil {
		return layer{}, err
	}
	defer plain.Close()
	sum := sha256.New()
	var size int64
	if m.opts.Exported {
		size, err = copyLayer(ctx, sum, plain)
	} else {
		size, err = pass(ctx, plain, sum, m.entries)
	}
	return layer{"sha256:" + hex.EncodeToString(sum.Sum(nil)), size, plain.Format}, err
}

// find returns the layer that manifest.json names.
func (m *members) find(name string) (layer, bool) {
	name = path.Clean(name)
	if target, ok := m.links[name]; ok && m.opts.Exported {
		name = target
	}
	l, ok := m.layers[name]
	return l, ok
}

// judge compares the members with each other and fills in c.
func (c *Contents) judge(m *members, opts ReadOptions) {
	body, ok := m.documents[manifestName]
	if !ok {
		c.problem("has no %s", manifestName)
		return
	}
	image, err := oci.ParseDockerManifest(body)
	if err != nil {
		c.problem("%s: %v", manifestName, err)
		return
	}
	c.RepoTags = image.RepoTags
	for _, member := range image.Layers {
		l, ok := m.find(member)
		if !ok {
			c.problem("%s names layer %.200q, which is missing", manifestName, member)
			continue
		}
		c.DiffIDs = append(c.DiffIDs, l.diffID)
		c.UnpackedSize += l.size
		c.Inner = l.inner
	}
	c.judgeConfig(image.Config, m.documents)
	if opts.Exported {
		return
	}
	if len(c.Problems) == 0 && !slices.Equal(image.Layers, m.order) {
		c.problem("the layers are in the order %.1000q, %s lists them as %.1000q", m.order, manifestName, image.Layers)
	}
	named := append([]string{image.Config, manifestName}, image.Layers...)
	for _, member := range slices.Concat(slices.Sorted(maps.Keys(m.documents)), slices.Sorted(maps.Keys(m.layers))) {
		if !slices.Contains(named, member) && !slices.Contains(ociMembers, member) {
			c.problem("%s does not name member %.200q", manifestName, member)
		}
	}
}

func (c *Contents) judgeConfig(member string, documents map[string][]byte) {
	body, ok := documents[path.Clean(member)]
	if !ok {
		c.problem("%s names config %.200q, which is missing", manifestName, member)
		return
	}
	c.RawConfig, c.ImageID = body, fmt.Sprintf("sha256:%x", sha256.Sum256(body))
	config, err := oci.DecodeConfig(body)
	if err != nil {
		c.problem("%v", err)
		return
	}
	c.Config = *config
	c.Platform = platform.Of(&c.Config)
	want := make([]string, len(c.Config.RootFS.DiffIDs))
	for i, diffID := range c.Config.RootFS.DiffIDs {
		want[i] = diffID.String()
	}
	if len(want) == 0 {
		c.problem("the config lists no diff IDs")
	}
	if !slices.Equal(c.DiffIDs, want) {
		c.problem("layers have diff IDs %v, the config says %v", c.DiffIDs, want)
	}
}

// ociMembers make podman and containerd take the tag from annotations instead of
// from RepoTags.
var ociMembers = []string{"oci-layout", "index.json"}

// judgeForm checks what engines and GitLab Runner need besides consistency.
// head is how the archive begins.
func (c *Contents) judgeForm(m *members, head []byte) {
	if c.Outer == decompress.Zstd && head[0]&0xf0 == 0x50 {
		c.problem("begins with a skippable zstd frame, which podman does not accept")
	}
	if c.Outer != decompress.Zstd && c.Outer != decompress.None {
		c.problem("%s around the archive: podman 4 loses data; want zstd or none", c.Outer)
	}
	if c.Outer != decompress.None && c.Inner != "" && c.Inner != decompress.None {
		c.problem("layers are %s inside %s", c.Inner, c.Outer)
	}
	for _, member := range ociMembers {
		if _, ok := m.documents[member]; ok {
			c.problem("has %s, so that podman and containerd take no tag from its RepoTags", member)
		}
	}
	for _, member := range m.strange {
		c.problem("member %.200q is not a regular file", member)
	}
	if _, ok := m.documents[manifestName]; !ok {
		return
	}
	if len(c.RepoTags) != 1 {
		c.problem("has %d RepoTags, want 1: %.1000q", len(c.RepoTags), c.RepoTags)
	}
	for _, tag := range c.RepoTags {
		if _, err := name.NewTag(tag, name.StrictValidation); err != nil {
			c.problem("RepoTag %.200q: %v", tag, err)
		}
	}
	if c.RawConfig == nil {
		return
	}
	if want := strings.TrimPrefix(c.ImageID, "sha256:") + ".json"; m.documents[want] == nil {
		c.problem("the config is not named by its digest: want %s", want)
	}
	if c.Config.OS == "" || c.Config.Architecture == "" {
		c.problem("the config names no platform")
	}
}

// Check reads the archive at f.Path and compares it with its record. Every
// problem and every difference is reported, with both sides.
func Check(ctx context.Context, f release.Archive) error {
	c, err := Read(ctx, f.Path)
	if err != nil {
		return err
	}
	var errs []error
	for _, problem := range c.Problems {
		errs = append(errs, errors.New(problem))
	}
	errs = append(errs, differences(c, f)...)
	for i, err := range errs {
		errs[i] = fmt.Errorf("%s: %w", f.Path, err)
	}
	return errors.Join(errs...)
}

// Compare reports each difference between what an archive holds and its record.
func Compare(c *Contents, f release.Archive) error { return errors.Join(differences(c, f)...) }

func differences(c *Contents, f release.Archive) (errs []error) {
	differs := func(what string, got, want any) {
		if !reflect.DeepEqual(got, want) {
			errs = append(errs, fmt.Errorf("%s is %v, its record says %v", what, got, want))
		}
	}
	method, _, _ := strings.Cut(f.Compression, ":")
	differs("size", c.Size, f.Size)
	differs("sha256", c.SHA256, f.SHA256)
	differs("compression", c.Compression(), method)
	differs("RepoTags", c.RepoTags, []string{f.RepoTag})
	differs("image ID", c.ImageID, f.ImageID)
	differs("diff IDs", c.DiffIDs, f.DiffIDs)
	differs("unpacked size", c.UnpackedSize, f.UnpackedSize)
	differs("platform", c.Platform.String(), f.Platform)
	return errs
}
