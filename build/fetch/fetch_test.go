package fetch

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/compression"
	"github.com/google/go-containerregistry/pkg/name"
	memory "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"pretag/build/catalogue"
)

// A server is a registry in memory.
type server struct {
	*httptest.Server
	handler http.Handler // the registry itself

	mu sync.Mutex
	// instead, if set, may answer in the registry's place: it reports whether it did.
	instead func(w http.ResponseWriter, r *http.Request) bool
	seen    []string // the paths asked for
}

func newServer(tb testing.TB) *server {
	tb.Helper()
	s := &server{handler: memory.New(memory.Logger(log.New(io.Discard, "", 0)))}
	s.Server = httptest.NewServer(s)
	tb.Cleanup(s.Close)
	return s
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.seen = append(s.seen, r.URL.Path)
	instead := s.instead
	s.mu.Unlock()
	if instead == nil || !instead(w, r) {
		s.handler.ServeHTTP(w, r)
	}
}

func (s *server) host() string { return s.Listener.Addr().String() }

// become replaces what answers in the registry's place.
func (s *server) become(instead func(http.ResponseWriter, *http.Request) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.instead = instead
}

// blobs returns the digests of the blobs asked for so far, and forgets them.
func (s *server) blobs() (digests []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, path := range s.seen {
		if _, digest, ok := strings.Cut(path, "/blobs/"); ok {
			digests = append(digests, digest)
		}
	}
	s.seen = nil
	return digests
}

// answer returns what the registry itself answers.
func (s *server) answer(r *http.Request) (http.Header, []byte) {
	w := httptest.NewRecorder()
	s.handler.ServeHTTP(w, r)
	return w.Header(), w.Body.Bytes()
}

// push puts an image or an index into the repository "helper".
func (s *server) push(tb testing.TB, tag string, what remote.Taggable) {
	tb.Helper()
	push(tb, s.host(), tag, what)
}

func push(tb testing.TB, host, tag string, what remote.Taggable, options ...remote.Option) {
	tb.Helper()
	ref, err := name.NewTag(host + "/helper:" + tag)
	if err != nil {
		tb.Fatal(err)
	}
	switch what := what.(type) {
	case v1.Image:
		err = remote.Write(ref, what, options...)
	case v1.ImageIndex:
		err = remote.WriteIndex(ref, what, options...)
	default:
		err = remote.Put(ref, what, options...)
	}
	if err != nil {
		tb.Fatal(err)
	}
}

// layer returns a layer with one file of size random bytes.
func layer(tb testing.TB, seed uint64, size int, with compression.Compression, mediaType types.MediaType) v1.Layer {
	tb.Helper()
	content := make([]byte, size)
	random := rand.New(rand.NewPCG(seed, 0))
	for i := range content {
		content[i] = byte(random.Uint32())
	}
	var text bytes.Buffer
	w := tar.NewWriter(&text)
	if err := w.WriteHeader(&tar.Header{Name: "file", Mode: 0o644, Size: int64(size)}); err != nil {
		tb.Fatal(err)
	}
	w.Write(content)
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	opener := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(text.Bytes())), nil }
	l, err := tarball.LayerFromOpener(opener, tarball.WithCompression(with),
		tarball.WithCompressionLevel(gzip.BestSpeed), tarball.WithMediaType(mediaType))
	if err != nil {
		tb.Fatal(err)
	}
	return l
}

// build returns an image for the platform, in Docker's media types.
func build(tb testing.TB, platform string, layers ...v1.Layer) v1.Image {
	tb.Helper()
	p, err := v1.ParsePlatform(platform)
	if err != nil {
		tb.Fatal(err)
	}
	image, err := mutate.AppendLayers(empty.Image, layers...)
	if err != nil {
		tb.Fatal(err)
	}
	config, err := image.ConfigFile()
	if err != nil {
		tb.Fatal(err)
	}
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Variant = p.OS, p.Architecture, p.Variant
	config.Config.Entrypoint = []string{"/usr/bin/dumb-init", "/entrypoint"}
	if image, err = mutate.ConfigFile(image, config); err != nil {
		tb.Fatal(err)
	}
	return image
}

// small returns an image of two gzip layers.
func small(tb testing.TB, platform string, seed uint64) v1.Image {
	return build(tb, platform,
		layer(tb, seed, 100_000, compression.GZip, types.DockerLayer), layer(tb, seed+1000, 1000, compression.GZip, types.DockerLayer))
}

// inOCI gives an image OCI's media types.
func inOCI(image v1.Image) v1.Image {
	return mutate.ConfigMediaType(mutate.MediaType(image, types.OCIManifestSchema1), types.OCIConfigJSON)
}

func digest(tb testing.TB, of partial.Describable) string {
	tb.Helper()
	d, err := partial.Descriptor(of)
	if err != nil {
		tb.Fatal(err)
	}
	return d.Digest.String()
}

// layers returns the layers in the manifest of an image.
func layers(tb testing.TB, image v1.Image) []v1.Descriptor {
	tb.Helper()
	manifest, err := image.Manifest()
	if err != nil {
		tb.Fatal(err)
	}
	return manifest.Layers
}

// helpers returns helpers of custom flavors, each called flavor-arch.
func helpers(tb testing.TB, names ...string) []catalogue.Helper {
	tb.Helper()
	if len(names) == 0 {
		return nil
	}
	text := "arches: {x86_64: {platform: linux/amd64}, arm: {platform: linux/arm/v7}, arm64: {platform: linux/arm64}}\nflavors:\n"
	for _, name := range names {
		i := strings.LastIndex(name, "-")
		text += fmt.Sprintf("  - {name: %s, arches: [%s]}\n", name[:i], name[i+1:])
	}
	c, err := catalogue.Parse("c.yaml", []byte(text))
	if err != nil {
		tb.Fatal(err)
	}
	return c.Helpers()
}

func version(tb testing.TB, text string) catalogue.Version {
	tb.Helper()
	v, err := catalogue.ParseVersion(text, "")
	if err != nil {
		tb.Fatal(err)
	}
	return v
}

// tag is the tag of a helper in tests.
func tag(helper string) string { return helper + "-v19.3.0" }

// wantError compares the lines of an error with what each must contain. "..."
// stands for anything.
func wantError(tb testing.TB, err error, lines ...string) {
	tb.Helper()
	if err == nil {
		tb.Fatalf("no error, want %q", lines)
	}
	got := strings.Split(err.Error(), "\n")
	if len(got) != len(lines) {
		tb.Fatalf("got %d lines, want %d:\n%v", len(got), len(lines), err)
	}
	for i := range lines {
		rest := got[i]
		for part := range strings.SplitSeq(lines[i], "...") {
			_, after, found := strings.Cut(rest, part)
			if !found {
				tb.Errorf("got  %s\nwant %s", got[i], lines[i])
				break
			}
			rest = after
		}
	}
}

// names lists the files below dir, without directories.
func names(tb testing.TB, dir string) []string {
	tb.Helper()
	files := []string{}
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) || err == nil && entry.IsDir() {
			return nil
		}
		files = append(files, strings.TrimPrefix(path, dir+"/"))
		return err
	})
	if err != nil {
		tb.Fatal(err)
	}
	slices.Sort(files)
	return files
}

func write(tb testing.TB, file string, data []byte) {
	tb.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, data, 0o644)); err != nil {
		tb.Fatal(err)
	}
}

func read(tb testing.TB, file string) []byte {
	tb.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		tb.Fatal(err)
	}
	return data
}
