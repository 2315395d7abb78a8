package fetch

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/compression"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"pretag/build/testutil"
)

func pullOptions(tb testing.TB, host, dir string, names ...string) PullOptions {
	tb.Helper()
	return PullOptions{
		Dir: dir, Helpers: helpers(tb, names...), Version: version(tb, "19.3.0"), Repository: host + "/helper", Jobs: 2, Wait: time.Millisecond,
	}
}

// pushed is an image and what its tag names.
type pushed struct {
	helper string
	what   interface {
		remote.Taggable
		partial.Describable
	}
	digest string // of the manifest that is wanted
}

// images returns an image of each kind that builders push.
func images(tb testing.TB) []pushed {
	tb.Helper()
	docker := small(tb, "linux/amd64", 1)
	base := layer(tb, 2, 1000, compression.None, types.OCIUncompressedLayer)
	manyLayers := inOCI(build(tb, "linux/arm/v7", base,
		layer(tb, 3, 1<<20, compression.ZStd, types.OCILayerZStd), base,
		layer(tb, 4, 5000, compression.GZip, types.OCILayer)))
	attested := mutate.AppendManifests(mutate.IndexMediaType(empty.Index, types.OCIImageIndex),
		mutate.IndexAddendum{
			Add: inOCI(build(tb, "unknown/unknown")),
			Descriptor: v1.Descriptor{
				Platform:    &v1.Platform{OS: "linux", Architecture: "arm64"}, // wrong: the annotation decides
				Annotations: map[string]string{"vnd.docker.reference.type": "attestation-manifest"},
			},
		},
		mutate.IndexAddendum{
			Add:        inOCI(small(tb, "linux/arm64/v8", 5)),
			Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "arm64", Variant: "v8"}},
		})
	list := mutate.AppendManifests(mutate.IndexMediaType(empty.Index, types.DockerManifestList),
		mutate.IndexAddendum{
			Add:        small(tb, "linux/arm/v6", 6),
			Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "arm", Variant: "v6"}},
		},
		mutate.IndexAddendum{
			Add:        small(tb, "linux/arm/v7", 7),
			Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "arm", Variant: "v7"}},
		})
	nested := mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: attested}, mutate.IndexAddendum{Add: list})
	// An artifact in front of images whose platform only their configs name.
	unnamed := mutate.AppendManifests(empty.Index,
		mutate.IndexAddendum{Add: mutate.ConfigMediaType(inOCI(small(tb, "linux/amd64", 8)), "application/vnd.cncf.helm.config.v1+json")},
		mutate.IndexAddendum{Add: inOCI(small(tb, "linux/arm64", 9))},
		mutate.IndexAddendum{Add: inOCI(small(tb, "linux/amd64", 10))})
	return []pushed{
		{"docker-x86_64", docker, digest(tb, docker)},
		{"layers-arm", manyLayers, digest(tb, manyLayers)},
		{"attested-arm64", attested, childDigest(tb, attested, 1)},
		{"nested-arm", nested, childDigest(tb, list, 1)},
		{"unnamed-x86_64", unnamed, childDigest(tb, unnamed, 2)},
	}
}

func childDigest(tb testing.TB, index v1.ImageIndex, n int) string {
	tb.Helper()
	manifest, err := index.IndexManifest()
	if err != nil {
		tb.Fatal(err)
	}
	return manifest.Manifests[n].Digest.String()
}

// extracted reads the oci-archive at path as a layout, and checks that each blob
// has the digest that its name says.
func extracted(tb testing.TB, path string) layout.Path {
	tb.Helper()
	dir := tb.TempDir()
	files := tar.NewReader(bytes.NewReader(read(tb, path)))
	for {
		header, err := files.Next()
		if errors.Is(err, io.EOF) {
			return layout.Path(dir)
		}
		if err != nil {
			tb.Fatal(err)
		}
		data, err := io.ReadAll(files)
		if err != nil {
			tb.Fatal(err)
		}
		if hex, isBlob := strings.CutPrefix(header.Name, "blobs/sha256/"); isBlob && fmt.Sprintf("%x", sha256.Sum256(data)) != hex {
			tb.Errorf("%s: %s has another digest", path, header.Name)
		}
		write(tb, filepath.Join(dir, header.Name), data)
	}
}

func TestPull(t *testing.T) {
	s, dir := newServer(t), t.TempDir()
	opts := pullOptions(t, s.host(), dir)
	progress := map[string]chan [2]int64{}
	var want []string
	all := images(t)
	for _, image := range all {
		s.push(t, tag(image.helper), image.what)
		opts.Helpers = append(opts.Helpers, helpers(t, image.helper)...)
		progress[image.helper] = make(chan [2]int64, 1000)
		want = append(want, image.helper+".tar", image.helper+".tar.origin")
	}
	opts.Progress = func(helper string, done, total int64) { progress[helper] <- [2]int64{done, total} }
	got, err := Pull(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	for i, image := range all {
		tarball, ref := got[i], fmt.Sprintf("%s/helper:%s@%s", s.host(), tag(image.helper), digest(t, image.what))
		if tarball.Origin.Digest != image.digest || tarball.Origin.Source != ref || tarball.Kept || tarball.Helper.String() != image.helper {
			t.Errorf("%s: got %+v, want %s of %s", image.helper, tarball, image.digest, ref)
		}
		if same, err := tarball.Origin.Describes(t.Context(), tarball.Path); !same {
			t.Errorf("%s: the record is of other bytes: %v", image.helper, err)
		}
		archived := only(t, tarball.Path)
		if got := digest(t, archived); got != image.digest {
			t.Errorf("%s: the archive has image %s, want %s", image.helper, got, image.digest)
		}
		for _, layer := range layers(t, archived) {
			if len(layer.URLs) > 0 {
				t.Errorf("%s: a layer has a URL", image.helper)
			}
		}
		if _, err := archived.ConfigFile(); err != nil {
			t.Errorf("%s: %v", image.helper, err)
		}

		var last [2]int64
		for close(progress[image.helper]); len(progress[image.helper]) > 0; {
			next := <-progress[image.helper]
			if next[0] < last[0] || next[1] == 0 {
				t.Errorf("%s: progress goes from %v to %v", image.helper, last, next)
			}
			last = next
		}
		if last[0] != last[1] {
			t.Errorf("%s: progress ends at %v", image.helper, last)
		}
	}
	if diff := cmp.Diff(slices.Sorted(slices.Values(want)), names(t, dir)); diff != "" {
		t.Errorf("directory: %s", diff)
	}
	opts.Progress = nil

	t.Run("again", func(t *testing.T) {
		s.blobs()
		again, err := Pull(t.Context(), opts)
		if err != nil {
			t.Fatal(err)
		}
		wanted := map[string]bool{} // configs: they decide which image is meant
		for _, tarball := range got {
			for _, layer := range layers(t, only(t, tarball.Path)) {
				wanted[layer.Digest.String()] = true
			}
		}
		for _, blob := range s.blobs() {
			if wanted[blob] {
				t.Errorf("layer %s was fetched again", blob)
			}
		}
		for i := range got {
			got[i].Kept = true
		}
		if diff := cmp.Diff(got, again); diff != "" {
			t.Error(diff)
		}
	})
	one := opts
	one.Helpers = opts.Helpers[:1]
	t.Run("elsewhere", func(t *testing.T) {
		one := one
		one.Dir = t.TempDir()
		if _, err := Pull(t.Context(), one); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(read(t, filepath.Join(one.Dir, "docker-x86_64.tar")), read(t, got[0].Path)) {
			t.Error("the same image makes other bytes")
		}
	})
	t.Run("moved tag", func(t *testing.T) {
		moved := small(t, "linux/amd64", 99)
		s.push(t, tag("docker-x86_64"), moved)
		got, err := Pull(t.Context(), one)
		if err != nil {
			t.Fatal(err)
		}
		if got[0].Kept || got[0].Origin.Digest != digest(t, moved) {
			t.Errorf("got %+v", got)
		}
	})
	t.Run("a foreign file", func(t *testing.T) {
		path := got[0].Path
		changed := append(read(t, path), 0)
		write(t, path, changed)
		_, err := Pull(t.Context(), one)
		wantError(t, err, "docker-x86_64: pull ...docker-x86_64.tar does not match its record ...origin; remove both")
		if err := os.Remove(path + ".origin"); err != nil {
			t.Fatal(err)
		}
		_, err = Pull(t.Context(), one)
		wantError(t, err, "docker-x86_64: pull ...docker-x86_64.tar already exists and was not fetched by pretag; move it away")
		if !bytes.Equal(read(t, path), changed) {
			t.Error("it was replaced")
		}
	})
}

// only returns the one image of the oci-archive at path.
func only(tb testing.TB, path string) v1.Image {
	tb.Helper()
	index, err := extracted(tb, path).ImageIndex()
	if err != nil {
		tb.Fatal(err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		tb.Fatal(err)
	}
	if len(manifest.Manifests) != 1 {
		tb.Fatalf("%s: %d images, want one", path, len(manifest.Manifests))
	}
	image, err := index.Image(manifest.Manifests[0].Digest)
	if err != nil {
		tb.Fatal(err)
	}
	return image
}

// Each fault leaves nothing under a final name. Those that pass are retried.
func TestPullFaults(t *testing.T) {
	image := small(t, "linux/amd64", 1)
	blob := layers(t, image)[0].Digest.String()
	s := newServer(t)
	s.push(t, tag("good-x86_64"), image)
	status := func(code int) func(http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
	}
	body := func(change func([]byte) []byte) func(http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, r *http.Request) {
			_, data := s.answer(r)
			w.Write(change(data))
		}
	}
	for name, test := range map[string]struct {
		on     string // part of the path
		times  int32  // how often; -1 always
		answer func(http.ResponseWriter, *http.Request)
		want   string // the error; "" if the pull succeeds
	}{
		"manifest 401":    {"/manifests/", -1, status(401), "401 Unauthorized (log in with docker login " + "127.0.0.1...or podman login 127.0.0.1"},
		"manifest 503":    {"/manifests/", 3, status(503), ""},
		"always 503":      {"/manifests/", -1, status(503), "503 Service Unavailable (tried 4 times)"},
		"ping 503":        {"/v2/", 2, status(503), ""},
		"ping always 500": {"/v2/", -1, status(500), "500 Internal Server Error (tried 4 times)"},
		"429":             {blob, 2, status(429), ""},
		"408":             {blob, 2, status(408), ""},
		"blob 404":        {blob, -1, status(404), "layer " + blob + ": 404 Not Found"},
		"cut": {blob, 2, func(w http.ResponseWriter, r *http.Request) {
			_, data := s.answer(r)
			w.Header().Set("Content-Length", fmt.Sprint(len(data)))
			w.Write(data[:len(data)/2])
			panic(http.ErrAbortHandler)
		}, ""},
		"short without length": {blob, 3, func(w http.ResponseWriter, r *http.Request) {
			_, data := s.answer(r)
			w.Write(data[:len(data)/2])
			w.(http.Flusher).Flush()
		}, ""},
		"wrong digest once": {blob, 1, body(func(b []byte) []byte { b = bytes.Clone(b); b[1000]++; return b }), ""},
		"wrong digest":      {blob, -1, body(func(b []byte) []byte { b = bytes.Clone(b); b[1000]++; return b }), "layer " + blob + ": error verifying sha256 checksum"},
		"too long":          {blob, -1, body(func(b []byte) []byte { return append(bytes.Clone(b), 0) }), "layer " + blob + ": more than the "},
		"too long, without length": {blob, -1, func(w http.ResponseWriter, r *http.Request) {
			w.(http.Flusher).Flush()
			io.Copy(w, spaces{r.Context()})
		}, "layer " + blob + ": more than the "},
		"wrong config":    {"/blobs/", -1, body(func(b []byte) []byte { b = bytes.Clone(b); b[10]++; return b }), "error verifying sha256 checksum"},
		"truncated index": {"/manifests/", -1, body(func(b []byte) []byte { return b[:20] }), "unexpected end of JSON"},
		"huge manifest": {"/manifests/", -1, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", string(types.OCIManifestSchema1))
			w.Write(bytes.Repeat([]byte(" "), 5<<20))
		}, "the answer has more than 4194304 bytes"},
		"endless ping": {"/v2/", -1, func(w http.ResponseWriter, r *http.Request) { io.Copy(w, spaces{r.Context()}) }, ""},
		"another type": {"/manifests/", -1, func(w http.ResponseWriter, r *http.Request) {
			_, data := s.answer(r)
			w.Header().Set("Content-Type", string(types.OCIImageIndex))
			w.Write(data)
		}, "media type is"},
	} {
		t.Run(name, func(t *testing.T) {
			var left atomic.Int32
			left.Store(test.times)
			s.become(func(w http.ResponseWriter, r *http.Request) bool {
				if !strings.Contains(r.URL.Path, test.on) || test.on == "/v2/" && r.URL.Path != test.on {
					return false
				}
				if test.times >= 0 && left.Add(-1) < 0 {
					return false
				}
				test.answer(w, r)
				return true
			})
			opts := pullOptions(t, s.host(), t.TempDir(), "good-x86_64")
			_, err := Pull(t.Context(), opts)
			if test.want != "" {
				wantError(t, err, "pull "+s.host()+"/helper..."+test.want)
				for _, file := range names(t, opts.Dir) {
					if !strings.HasPrefix(file, ".pull/good-x86_64/blobs/") {
						t.Errorf("left behind: %s", file)
					}
				}
				s.become(nil)
				_, err = Pull(t.Context(), opts)
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]string{"good-x86_64.tar", "good-x86_64.tar.origin"}, names(t, opts.Dir)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// spaces is an endless stream.
type spaces struct{ ctx context.Context }

func (s spaces) Read(p []byte) (int, error) {
	return copy(p, bytes.Repeat([]byte(" "), len(p))), s.ctx.Err()
}

// A layer that an earlier run has fetched is not fetched again, if it is still
// what its name says.
func TestPullKeepsLayers(t *testing.T) {
	image := small(t, "linux/amd64", 1)
	found := layers(t, image)
	s, dir := newServer(t), t.TempDir()
	s.push(t, tag("good-x86_64"), image)
	s.become(func(w http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, found[1].Digest.String()) {
			w.WriteHeader(http.StatusNotFound)
			return true
		}
		return false
	})
	opts := pullOptions(t, s.host(), dir, "good-x86_64")
	_, err := Pull(t.Context(), opts)
	wantError(t, err, "good-x86_64: pull ...layer "+found[1].Digest.String()+": 404 Not Found")
	first := filepath.Join(dir, ".pull/good-x86_64/blobs/sha256", found[0].Digest.Hex)
	kept := read(t, first)

	asked := func() map[string]bool {
		t.Helper()
		s.become(nil)
		s.blobs()
		if _, err := Pull(t.Context(), opts); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{"good-x86_64.tar", "good-x86_64.tar.origin"}, names(t, dir)); diff != "" {
			t.Error(diff)
		}
		asked := map[string]bool{}
		for _, blob := range s.blobs() {
			asked[blob] = true
		}
		os.Remove(filepath.Join(dir, "good-x86_64.tar"))
		return asked
	}
	if asked := asked(); asked[found[0].Digest.String()] || !asked[found[1].Digest.String()] {
		t.Errorf("asked for %v", asked)
	}
	for name, damaged := range map[string][]byte{
		"other bytes": bytes.Repeat([]byte("x"), len(kept)), // of the same size
		"too short":   kept[:len(kept)-1],
		"too long":    append(bytes.Clone(kept), 0),
		"empty":       nil,
	} {
		write(t, first, damaged)
		if asked := asked(); !asked[found[0].Digest.String()] {
			t.Errorf("%s: not fetched again", name)
		}
	}
}

// The registry has an image under another tag than Runner asks for where the
// release is known to have pushed it so.
func TestPullTags(t *testing.T) {
	s := newServer(t)
	s.push(t, "ubuntu-x86_64-v17.8.0", small(t, "linux/amd64", 1))
	s.push(t, "x86_64-e4f782b3", small(t, "linux/amd64", 2))
	pull := func(helper, of string) ([]Tarball, error) {
		h, _ := testutil.Catalogue(t).Lookup(helper)
		opts := pullOptions(t, s.host(), t.TempDir())
		opts.Helpers, opts.Version = append(opts.Helpers, h), version(t, of)
		return Pull(t.Context(), opts)
	}
	for _, row := range []struct{ helper, version, tag, missing, want string }{
		{"ubuntu-x86_64", "17.8.0", "ubuntu-x86_64-v17.8.0", "", ""}, // a mirror may have it after all
		{
			"alpine-x86_64", "17.8.0", "x86_64-e4f782b3",
			"the registry has no tag x86_64-v17.8.0: GitLab Runner 17.8.0 pushed only tags with the git revision", "",
		},
		{
			"alpine-s390x", "17.8.0", "", "",
			"alpine-s390x: pull HOST/helper:s390x-v17.8.0: 404 Not Found...(GitLab Runner 17.8.0 pushed only tags with the git revision); HOST/helper:s390x-e4f782b3: 404 Not Found",
		},
		{"ubuntu-s390x", "19.3.0", "", "", "ubuntu-s390x: pull HOST/helper:ubuntu-s390x-v19.3.0: 404 Not Found"},
	} {
		got, err := pull(row.helper, row.version)
		if row.want != "" {
			wantError(t, err, strings.ReplaceAll(row.want, "HOST", s.host()))
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if got[0].Origin.Tag() != row.tag || got[0].Missing != row.missing {
			t.Errorf("%s %s: pulled %s (%s), want %s (%s)", row.helper, row.version, got[0].Origin.Tag(), got[0].Missing, row.tag, row.missing)
		}
	}

	// Another answer than "not found" says nothing about the tag.
	s.become(func(w http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, "/manifests/x86_64-v17.8.0") {
			w.WriteHeader(http.StatusForbidden)
			return true
		}
		return false
	})
	_, err := pull("alpine-x86_64", "17.8.0")
	wantError(t, err, "x86_64-v17.8.0: 403 Forbidden (log in with ")
}

// All failures are reported, one line each; the other helpers are pulled.
func TestPullReportsAll(t *testing.T) {
	s, dir := newServer(t), t.TempDir()
	s.push(t, tag("good-x86_64"), small(t, "linux/amd64", 1))
	s.push(t, tag("wrong-arm"), small(t, "linux/amd64", 2))
	two := func(first, second string) v1.ImageIndex {
		index := v1.ImageIndex(empty.Index)
		for i, platform := range []string{first, second} {
			p, err := v1.ParsePlatform(platform)
			if err != nil {
				t.Fatal(err)
			}
			index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: small(t, platform, uint64(30+i)), Descriptor: v1.Descriptor{Platform: p}})
		}
		return index
	}
	s.push(t, tag("index-arm"), two("linux/s390x", "linux/ppc64le"))
	s.push(t, tag("lying-arm"), mutate.AppendManifests(empty.Index, mutate.IndexAddendum{
		Add:        small(t, "linux/amd64", 3),
		Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "arm", Variant: "v7"}},
	}))
	few := small(t, "linux/arm/v7", 4)
	config, err := few.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config = config.DeepCopy()
	config.RootFS.DiffIDs = nil
	if few, err = mutate.ConfigFile(few, config); err != nil {
		t.Fatal(err)
	}
	s.push(t, tag("few-arm"), few)
	s.push(t, tag("chart-arm"), mutate.ConfigMediaType(inOCI(small(t, "linux/arm/v7", 5)), "application/vnd.cncf.helm.config.v1+json"))
	s.push(t, tag("huge-arm"), huge{small(t, "linux/arm/v7", 6)})

	opts := pullOptions(t, s.host(), dir, "missing-arm", "wrong-arm", "index-arm", "lying-arm", "few-arm", "chart-arm", "huge-arm", "missing-too-arm", "good-x86_64")
	got, err := Pull(t.Context(), opts)
	line := func(helper, cause string) string {
		return helper + ": pull " + s.host() + "/helper:" + tag(helper) + ": " + cause
	}
	wantError(t, err,
		line("missing-arm", "404 Not Found: Unknown"),
		line("wrong-arm", "sha256:...: image is for linux/amd64, want linux/arm/v7"),
		line("index-arm", "no image for linux/arm/v7; passed over: ...s390x...ppc64le"),
		line("lying-arm", "sha256:...: image is for linux/amd64, want linux/arm/v7"),
		line("few-arm", "...2 layers, the config has 0 diff IDs"),
		line("chart-arm", "...application/vnd.cncf.helm.config.v1+json"),
		line("huge-arm", "sha256:...: layers of 1000000000000000 bytes or more, at most 8589934591 are allowed"),
		line("missing-too-arm", "404 Not Found: Unknown"),
	)
	if len(got) != 1 || got[0].Helper.String() != "good-x86_64" {
		t.Errorf("got %+v, want good-x86_64", got)
	}
	for _, file := range names(t, dir) {
		if !strings.HasPrefix(file, "good-x86_64.tar") {
			t.Errorf("left behind: %s", file)
		}
	}

	for repository, want := range map[string]string{
		"helper":              `pull "helper": `,
		"UPPER.example/Image": `pull "UPPER.example/Image": `,
		"127.0.0.1:1/helper":  "pull 127.0.0.1:1/helper: dial tcp 127.0.0.1:1: connect: connection refused (tried 4 times)",
		"nowhere.invalid/x":   "pull nowhere.invalid/x: dial tcp: lookup nowhere.invalid",
	} {
		opts := opts
		opts.Repository = repository
		_, err := Pull(t.Context(), opts)
		wantError(t, err, want)
	}
}

// huge claims that its first layer has 10^15 bytes.
type huge struct{ v1.Image }

func (h huge) RawManifest() ([]byte, error) {
	raw, err := h.Image.RawManifest()
	size := fmt.Sprintf(`"size":%d`, must(h.Image.Manifest()).Layers[0].Size)
	return bytes.Replace(raw, []byte(size), []byte(`"size":1000000000000000`), 1), err
}

func (h huge) Digest() (v1.Hash, error) { return partial.Digest(h) }
func (h huge) Size() (int64, error)     { return partial.Size(h) }

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// A pull that is cancelled says so, and leaves nothing under a final name.
func TestPullCancelled(t *testing.T) {
	s := newServer(t)
	s.push(t, tag("good-x86_64"), small(t, "linux/amd64", 1))
	ctx, cancel := context.WithCancelCause(t.Context())
	s.become(func(w http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, "/blobs/") {
			cancel(errors.New("interrupted"))
			<-r.Context().Done()
			return true
		}
		return false
	})
	opts := pullOptions(t, s.host(), t.TempDir(), "good-x86_64", "other-arm")
	opts.Jobs = 1
	got, err := Pull(ctx, opts)
	wantError(t, err, "pull "+s.host()+"/helper: interrupted")
	if left := names(t, opts.Dir); len(got)+len(left) > 0 {
		t.Errorf("got %v, left behind: %q", got, left)
	}
}
