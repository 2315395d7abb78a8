package archive

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
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
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"pretag/build/internal/decompress"
	"pretag/build/internal/platform"
	"pretag/build/internal/stricttar"
	"pretag/build/release"
)

// Bounds of what a docker-archive may hold beside its layers.
const (
	maxJSON    = 8 << 20 // a config or a manifest.json, bytes
	maxSmall   = 4 * maxJSON
	maxMembers = 10_000
)

// Contents is what a docker-archive was found to hold. All digests are computed
// from its bytes, none is taken from its words.
type Contents struct {
	Size         int64    // of the archive, bytes
	SHA256       string   // of the archive, hex
	Outer        string   // compression around the archive: zstd, none, ...
	Inner        string   // compression around the layers: none, gzip, ...
	RepoTags     []string // as manifest.json gives them
	RawConfig    []byte
	Config       v1.ConfigFile
	ImageID      string   // sha256:<hex> of RawConfig
	DiffIDs      []string // sha256:<hex> of each layer's plain bytes, bottom up
	UnpackedSize int64    // sum of the plain layers, bytes
	Platform     v1.Platform
	// Problems says why an engine or GitLab Runner would not take the archive
	// for what it says it is. Empty for a good one.
	Problems []string
}

// Compression is how the archive is encoded, without a level.
func (c *Contents) Compression() string {
	if c.Outer == string(decompress.None) && c.Inner != "" {
		return c.Inner
	}
	return c.Outer
}

// Read reads the docker-archive at path from its first byte to its last. It
// fails where the bytes cannot be read as one (truncated, damaged, no tar file);
// what can be read but is not as it should be stands in Problems.
func Read(path string) (*Contents, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	c, err := ReadFrom(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

// ReadFrom is Read for an archive that is no file of its own, such as one in a package.
func ReadFrom(r io.Reader) (*Contents, error) {
	sum := sha256.New()
	counted := &countWriter{w: sum}
	input := io.TeeReader(r, counted)
	var head [4]byte
	n, err := io.ReadFull(input, head[:])
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return nil, err
	}
	plain, err := decompress.NewReader(io.MultiReader(bytes.NewReader(head[:n]), input))
	if err != nil {
		return nil, err
	}
	defer plain.Close()
	m, err := readMembers(plain)
	if err != nil {
		return nil, err
	}
	if _, err := io.Copy(io.Discard, input); err != nil { // to the last byte, for the sum
		return nil, err
	}
	c := &Contents{Size: counted.n, SHA256: hex.EncodeToString(sum.Sum(nil)), Outer: string(plain.Format)}
	if plain.Format == decompress.Zstd && decompress.Detect(head[:]) == decompress.Zstd && head[0]&0xf0 == 0x50 {
		c.problem("begins with a skippable zstd frame, which podman does not take")
	}
	if plain.Format != decompress.Zstd && plain.Format != decompress.None {
		c.problem("%s around the archive: podman 4 loses data; want zstd or none", plain.Format)
	}
	c.judge(m)
	return c, nil
}

func (c *Contents) problem(format string, args ...any) {
	c.Problems = append(c.Problems, fmt.Sprintf(format, args...))
}

// members is what a docker-archive's tar file holds.
type members struct {
	entries *entryCheck
	layers  map[string]layer
	small   map[string][]byte
	strange []string // neither files nor folders
	read    int      // bytes of small
}

type layer struct {
	diffID string
	size   int64 // plain, bytes
	inner  decompress.Format
}

func readMembers(r io.Reader) (*members, error) {
	m := &members{entries: newEntryCheck(false, ""), layers: map[string]layer{}, small: map[string][]byte{}}
	seen := map[string]bool{}
	tr := stricttar.NewReader(r)
	for n := 1; ; n++ {
		header, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return m, nil
		}
		if err == nil && n > maxMembers {
			err = fmt.Errorf("more than %d members", maxMembers)
		}
		if err != nil {
			return nil, fmt.Errorf("member %d: %w", n, err)
		}
		member := path.Clean(header.Name)
		switch mode := header.FileInfo().Mode(); {
		case mode.IsDir():
			continue
		case seen[member]:
			err = errors.New("stands twice")
		case !mode.IsRegular():
			m.strange = append(m.strange, member)
		case path.Ext(member) == ".tar":
			m.layers[member], err = m.layer(tr)
		default:
			m.small[member], err = m.readSmall(tr)
		}
		if err != nil {
			return nil, fmt.Errorf("member %.200q: %w", member, err)
		}
		seen[member] = true
	}
}

func (m *members) layer(r io.Reader) (layer, error) {
	plain, err := decompress.NewReader(r)
	if err != nil {
		return layer{}, err
	}
	defer plain.Close()
	sum := sha256.New()
	size, err := pass(context.Background(), plain, sum, m.entries)
	return layer{"sha256:" + hex.EncodeToString(sum.Sum(nil)), size, plain.Format}, err
}

func (m *members) readSmall(r io.Reader) ([]byte, error) {
	body, err := readSmall(r)
	if m.read += len(body); err == nil && m.read > maxSmall {
		err = fmt.Errorf("more than %d bytes together with those before it", maxSmall)
	}
	return body, err
}

func readSmall(r io.Reader) ([]byte, error) {
	body, err := io.ReadAll(io.LimitReader(r, maxJSON+1))
	if err == nil && len(body) > maxJSON {
		err = fmt.Errorf("more than %d bytes", maxJSON)
	}
	return body, err
}

// judge fills in what the members say, and doubts it.
func (c *Contents) judge(m *members) {
	for _, foreign := range []string{"oci-layout", "index.json"} {
		if _, ok := m.small[foreign]; ok {
			c.problem("has %s, so that podman and containerd take no tag from its RepoTags", foreign)
			delete(m.small, foreign)
		}
	}
	for _, member := range m.strange {
		c.problem("member %s is no plain file", member)
	}
	body, ok := m.small[manifestName]
	if !ok {
		c.problem("has no %s", manifestName)
		return
	}
	delete(m.small, manifestName)
	var manifest tarball.Manifest
	if err := json.Unmarshal(body, &manifest); err != nil {
		c.problem("%s: %v", manifestName, err)
		return
	}
	if len(manifest) != 1 {
		c.problem("has %d images, want 1", len(manifest))
		return
	}
	image := manifest[0]
	c.RepoTags = image.RepoTags
	if len(image.RepoTags) != 1 {
		c.problem("has %d RepoTags, want 1: %q", len(image.RepoTags), image.RepoTags)
	}
	for _, tag := range image.RepoTags {
		if _, err := name.NewTag(tag, name.StrictValidation); err != nil {
			c.problem("RepoTag %q: %v", tag, err)
		}
	}
	for _, member := range image.Layers {
		l, ok := m.layers[path.Clean(member)]
		if !ok {
			c.problem("%s names layer %q, which is not there", manifestName, member)
			continue
		}
		c.DiffIDs = append(c.DiffIDs, l.diffID)
		c.UnpackedSize += l.size
		c.Inner = string(l.inner)
	}
	if none := string(decompress.None); c.Outer != none && c.Inner != none {
		c.problem("layers are %s inside %s", c.Inner, c.Outer)
	}
	c.judgeConfig(image.Config, m.small)
	named := append([]string{image.Config}, image.Layers...)
	for _, member := range slices.Concat(slices.Sorted(maps.Keys(m.small)), slices.Sorted(maps.Keys(m.layers))) {
		if !slices.Contains(named, member) {
			c.problem("%s does not name member %s", manifestName, member)
		}
	}
}

func (c *Contents) judgeConfig(member string, small map[string][]byte) {
	body, ok := small[path.Clean(member)]
	if !ok {
		c.problem("%s names config %q, which is not there", manifestName, member)
		return
	}
	sum := sha256.Sum256(body)
	digest := hex.EncodeToString(sum[:])
	c.RawConfig, c.ImageID = body, "sha256:"+digest
	if member != digest+".json" {
		c.problem("config %s is not named by its digest %s", member, digest)
	}
	if err := json.Unmarshal(body, &c.Config); err != nil {
		c.problem("config: %v", err)
		return
	}
	c.Platform = platform.Of(&c.Config)
	if c.Config.OS == "" || c.Config.Architecture == "" {
		c.problem("config names no platform")
	}
	want := make([]string, len(c.Config.RootFS.DiffIDs))
	for i, diffID := range c.Config.RootFS.DiffIDs {
		want[i] = diffID.String()
	}
	if len(want) == 0 {
		c.problem("config lists no diff IDs")
	}
	if !slices.Equal(c.DiffIDs, want) {
		c.problem("layers have diff IDs %v, config says %v", c.DiffIDs, want)
	}
}

// Check reads the archive at f.Path and compares it with its record. Every
// problem and every difference is reported, with both sides.
func Check(f release.Archive) error {
	c, err := Read(f.Path)
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
