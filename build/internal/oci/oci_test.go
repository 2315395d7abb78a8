package oci_test

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"pretag/build/internal/oci"
	"pretag/build/testutil"
)

const (
	manifestType = "application/vnd.oci.image.manifest.v1+json"
	indexType    = "application/vnd.oci.image.index.v1+json"
	configType   = "application/vnd.oci.image.config.v1+json"
	layerType    = "application/vnd.oci.image.layer.v1.tar+gzip"
)

func amd64() v1.Platform { return v1.Platform{OS: "linux", Architecture: "amd64"} }

func arm64() v1.Platform { return v1.Platform{OS: "linux", Architecture: "arm64", Variant: "v8"} }

// A store holds documents by digest and counts how often each one is read.
type store struct {
	documents map[string][]byte
	reads     map[string]int
}

func newStore() *store { return &store{map[string][]byte{}, map[string]int{}} }

func (s *store) Fetch(_ context.Context, d v1.Descriptor) ([]byte, error) {
	s.reads[d.Digest.Hex]++
	body, ok := s.documents[d.Digest.Hex]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return body, nil
}

func (s *store) add(mediaType string, body []byte) v1.Descriptor {
	digest := fmt.Sprintf("%x", sha256.Sum256(body))
	s.documents[digest] = body
	return v1.Descriptor{MediaType: types.MediaType(mediaType), Size: int64(len(body)), Digest: v1.Hash{Algorithm: "sha256", Hex: digest}}
}

func encode(v any) []byte {
	body, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return body
}

// image adds an image with one layer. Its descriptor has no platform.
func (s *store) image(p v1.Platform, label string, change ...func(*v1.Manifest)) v1.Descriptor {
	diffID := v1.Hash{Algorithm: "sha256", Hex: strings.Repeat("a", 64)}
	config := v1.ConfigFile{OS: p.OS, Architecture: p.Architecture, Variant: p.Variant, RootFS: v1.RootFS{DiffIDs: []v1.Hash{diffID}}}
	config.Config.Labels = map[string]string{"label": label}
	m := v1.Manifest{
		SchemaVersion: 2, MediaType: manifestType, Config: s.add(configType, encode(config)),
		Layers: []v1.Descriptor{{MediaType: layerType, Digest: diffID, Size: 1}},
	}
	for _, f := range change {
		f(&m)
	}
	return s.add(manifestType, encode(m))
}

func on(d v1.Descriptor, p v1.Platform) v1.Descriptor {
	d.Platform = &p
	return d
}

func index(entries ...v1.Descriptor) []byte {
	return encode(v1.IndexManifest{SchemaVersion: 2, Manifests: entries})
}

func TestChoose(t *testing.T) {
	s := newStore()
	plain := s.image(amd64(), "plain")
	other := s.image(arm64(), "other")
	zstd := s.image(amd64(), "plain", func(m *v1.Manifest) {
		m.Layers[0].MediaType = "application/vnd.docker.image.rootfs.diff.tar.zstd"
	})
	attestation := s.image(v1.Platform{OS: "unknown", Architecture: "unknown"}, "attestation")
	attestation.Annotations = map[string]string{"vnd.docker.reference.type": "attestation-manifest"}
	artifact := s.image(amd64(), "artifact", func(m *v1.Manifest) { m.Config.MediaType = "application/vnd.cncf.helm.config.v1+json" })
	typed := artifact
	typed.ArtifactType = "application/spdx+json"
	absent := v1.Descriptor{MediaType: manifestType, Digest: v1.Hash{Algorithm: "sha256", Hex: strings.Repeat("b", 64)}, Size: 7}
	sha512 := v1.Descriptor{MediaType: manifestType, Digest: v1.Hash{Algorithm: "sha512", Hex: strings.Repeat("b", 128)}, Size: 7}
	damaged := plain
	damaged.Size++
	damaged.Digest.Hex = other.Digest.Hex
	unreadable := s.image(amd64(), "unreadable", func(m *v1.Manifest) { m.Config = s.add(configType, []byte("[]")) })
	nested := s.add(indexType, index(on(other, arm64()), on(plain, amd64())))
	configless := s.image(amd64(), "configless", func(m *v1.Manifest) { m.Config.Digest = absent.Digest })
	docker := s.image(amd64(), "docker", func(m *v1.Manifest) {
		m.MediaType, m.Config.MediaType = types.DockerManifestSchema2, types.DockerConfigJSON
	})
	docker.MediaType = types.DockerManifestSchema2
	untyped := plain
	untyped.MediaType = ""

	for name, row := range map[string]struct {
		body []byte
		want v1.Descriptor
	}{
		"a manifest itself":               {s.documents[plain.Digest.Hex], plain},
		"one":                             {index(plain), plain},
		"one, for another platform":       {index(other), other},
		"one, said to be for another":     {index(on(other, arm64())), other},
		"one of two":                      {index(on(other, arm64()), on(plain, amd64())), plain},
		"one of two, no platforms":        {index(other, plain), plain},
		"no platform after a wrong one":   {index(on(other, arm64()), plain), plain},
		"nested":                          {index(nested), plain},
		"nested, absent others":           {index(on(absent, arm64()), nested), plain},
		"no media type":                   {index(untyped), plain},
		"repeated":                        {index(plain, plain, nested, plain), plain},
		"two compressions of one image":   {index(on(plain, amd64()), on(zstd, amd64())), plain},
		"attestation":                     {index(attestation, plain), plain},
		"artifact before the image":       {index(on(artifact, amd64()), on(plain, amd64())), plain},
		"artifact by its descriptor":      {index(on(typed, amd64()), on(plain, amd64())), plain},
		"other platforms absent":          {index(on(absent, arm64()), on(plain, amd64())), plain},
		"an absent entry, no platform":    {index(absent, plain), plain},
		"an absent config":                {index(configless, plain), plain},
		"Docker's media types":            {index(docker), docker},
		"a digest of sha512":              {index(sha512, on(plain, amd64())), plain},
		"a damaged entry":                 {index(damaged, on(plain, amd64())), plain},
		"a config that is not an object":  {index(unreadable, on(plain, amd64())), plain},
		"same image for two variants":     {index(on(plain, v1.Platform{OS: "linux", Architecture: "amd64", Variant: "v3"}), on(plain, amd64())), plain},
		"foreign type before the image":   {index(s.add("application/x", []byte("{}")), on(plain, amd64())), plain},
		"an entry that cannot be decoded": {[]byte(strings.Replace(string(index(sha512, plain)), "sha512:", "blake3:", 1)), plain},
	} {
		t.Run(name, func(t *testing.T) {
			s.reads = map[string]int{}
			got, err := oci.Choose(t.Context(), s, v1.Descriptor{}, row.body, amd64())
			if err != nil {
				t.Fatal(err)
			}
			if got.Descriptor.Digest != row.want.Digest || string(got.RawManifest) != string(s.documents[row.want.Digest.Hex]) {
				t.Errorf("got %s, want %s", got.Descriptor.Digest, row.want.Digest)
			}
			if got.Config.Architecture == "" || len(got.RawConfig) == 0 {
				t.Errorf("config %q", got.RawConfig)
			}
			for digest, n := range s.reads {
				if n > 1 {
					t.Errorf("%s was read %d times", digest, n)
				}
			}
		})
	}
}

func TestChooseRefuses(t *testing.T) {
	s := newStore()
	plain, other := s.image(amd64(), "plain"), s.image(arm64(), "other")
	absent := on(v1.Descriptor{MediaType: manifestType, Digest: v1.Hash{Algorithm: "sha256", Hex: strings.Repeat("b", 64)}, Size: 7}, amd64())
	damaged := func(change func(d *v1.Descriptor)) []byte {
		d := on(plain, amd64())
		change(&d)
		return index(d)
	}
	layer := func(mediaType string) []byte {
		return index(s.image(amd64(), mediaType, func(m *v1.Manifest) { m.Layers[0].MediaType = types.MediaType(mediaType) }))
	}
	deep := plain
	for range 4 {
		deep = s.add(indexType, index(deep))
	}
	both := func(fields string) []byte {
		body := strings.TrimSuffix(string(s.documents[plain.Digest.Hex]), "}") + "," + fields + "}"
		return index(s.add(manifestType, []byte(body)))
	}
	changed := s.image(amd64(), "changed")
	s.documents[changed.Digest.Hex] = []byte(strings.Replace(string(s.documents[changed.Digest.Hex]), "2", "3", 1))
	relabeled := s.add(indexType, s.documents[plain.Digest.Hex])
	for name, row := range map[string]struct {
		body []byte
		want string
	}{
		"empty":              {index(), "no image for linux/amd64: the index is empty"},
		"not JSON":           {[]byte("x"), "invalid character"},
		"a list":             {[]byte("[]"), "cannot unmarshal array"},
		"another platform":   {index(on(other, arm64()), on(s.image(arm64(), "3"), arm64())), "no image for linux/amd64; passed over: " + other.Digest.String() + " (linux/arm64/v8), "},
		"absent":             {index(absent, on(other, arm64())), absent.Digest.String() + " for linux/amd64 (it is absent), " + other.Digest.String() + " (linux/arm64/v8)"},
		"two":                {index(plain, s.image(amd64(), "more")), "2 images for linux/amd64, want 1: " + plain.Digest.String() + " (linux/amd64), "},
		"only an artifact":   {index(on(s.image(amd64(), "x", func(m *v1.Manifest) { m.Config.MediaType = "application/vnd.x" }), amd64())), `(an artifact: its config is of type "application/vnd.x")`},
		"too large":          {damaged(func(d *v1.Descriptor) { d.Size = 4<<20 + 1 }), "4194305 bytes, at most 4194304"},
		"negative size":      {damaged(func(d *v1.Descriptor) { d.Size = -1 }), "-1 bytes"},
		"changed":            {index(changed), "digest is sha256:"},
		"sha512":             {damaged(func(d *v1.Descriptor) { d.Digest = v1.Hash{Algorithm: "sha512", Hex: strings.Repeat("b", 128)} }), "want sha256:<64 hex digits>"},
		"larger than said":   {damaged(func(d *v1.Descriptor) { d.Size-- }), "bytes of its descriptor"},
		"smaller than said":  {damaged(func(d *v1.Descriptor) { d.Size++ }), "its descriptor says"},
		"too deep":           {index(deep), "more than 4 indexes in each other"},
		"no layers":          {index(s.image(amd64(), "none", func(m *v1.Manifest) { m.Layers = nil })), "0 layers, want 1 to 1000"},
		"2,000 layers":       {index(s.image(amd64(), "many", func(m *v1.Manifest) { m.Layers = slices.Repeat(m.Layers, 2000) })), "2000 layers, want 1 to 1000"},
		"diff IDs":           {index(s.image(amd64(), "ids", func(m *v1.Manifest) { m.Layers = append(m.Layers, m.Layers...) })), "2 layers, the config has 1 diff IDs"},
		"foreign layer":      {layer("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"), "has to be downloaded"},
		"encrypted layer":    {layer("application/vnd.oci.image.layer.v1.tar+gzip+encrypted"), "is encrypted"},
		"a layer of text":    {layer("text/plain"), `media type "text/plain" is not that of a layer`},
		"huge config":        {index(s.image(amd64(), strings.Repeat("x", 4<<20))), "at most 4194304"},
		"huge index":         {[]byte(strings.Repeat(" ", 5<<20)), "index of "},
		"many entries":       {[]byte(`{"manifests":[` + strings.TrimSuffix(strings.Repeat("{},", 20_000), ",") + "]}"), "more than 10000 entries"},
		"manifest and index": {both(`"manifests":[]`), "has the fields of a manifest and of an index"},
		"the other way":      {both(`"Manifests":[]`), "has the fields of a manifest and of an index"},
		"old manifest":       {both(`"fsLayers":[]`), "old manifest version 1"},
		"other media type":   {index(relabeled), `media type is "` + manifestType + `", its descriptor says "` + indexType + `"`},
		"foreign descriptor": {damaged(func(d *v1.Descriptor) { d.MediaType = "application/json" }), `neither an image nor an index but "application/json"`},
		"a long digest":      {[]byte(`{"manifests":[{"digest":"sha256:` + strings.Repeat("a", 1<<20) + `"}]}`), "passed over: entry 1 of index (wrong number of hex digits"},
		"a nested non-index": {index(s.add(indexType, []byte(`{"manifests":5}`))), "cannot unmarshal number"},
		"control characters": {index(on(s.image(arm64(), "4"), v1.Platform{OS: "\x1b[2J", Architecture: "arm64"}), on(other, arm64())), `(\x1b[2J/arm64)`},
		"typed as an index":  {index(s.add(indexType, []byte(`{"config":{}}`))), "but the fields are not"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := oci.Choose(t.Context(), s, v1.Descriptor{}, row.body, amd64())
			testutil.WantError(t, err, row.want)
			if err != nil && len(err.Error()) > 5000 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
		})
	}
	if _, err := oci.Choose(t.Context(), s, v1.Descriptor{}, index(plain, other), v1.Platform{}); err == nil || !strings.HasPrefix(err.Error(), "2 images, want 1: ") {
		t.Errorf("no platform: error %v", err)
	}
	if _, err := oci.Choose(t.Context(), s, v1.Descriptor{MediaType: "text/html"}, index(plain), amd64()); err == nil {
		t.Error("root of a foreign type: no error")
	}
}

// Indexes that lead to each other many times over are read once each.
func TestChooseIsBounded(t *testing.T) {
	s := newStore()
	level := []v1.Descriptor{s.image(amd64(), "x")}
	for depth := range 3 {
		var next []v1.Descriptor
		for i := range 20 {
			d := s.add(indexType, encode(v1.IndexManifest{Manifests: level, Annotations: map[string]string{"n": fmt.Sprint(depth, i)}}))
			for range 8 {
				next = append(next, d)
			}
		}
		level = next
	}
	if _, err := oci.Choose(t.Context(), s, v1.Descriptor{}, index(level...), amd64()); err != nil {
		t.Error(err)
	}
	total := 0
	for _, n := range s.reads {
		total += n
	}
	if want := 3*20 + 2; total != want {
		t.Errorf("%d reads, want %d", total, want)
	}

	// Many images without platforms.
	var many []v1.Descriptor
	for i := range 1000 {
		many = append(many, s.image(arm64(), fmt.Sprint(i)))
	}
	_, err := oci.Choose(t.Context(), s, v1.Descriptor{}, index(many...), amd64())
	if want := "more than 500 manifests and configs have to be read"; err == nil || err.Error() != want {
		t.Errorf("error %v, want %q", err, want)
	}

	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("stop")
	cancel(stop)
	if _, err := oci.Choose(ctx, s, v1.Descriptor{}, index(many...), amd64()); !errors.Is(err, stop) {
		t.Errorf("error %v, want that of the context", err)
	}
}

// An error that is not about one document ends the search.
func TestChooseStops(t *testing.T) {
	s := newStore()
	plain := s.image(amd64(), "x")
	broken := errors.New("broken")
	_, err := oci.Choose(t.Context(), fetchFunc(func() error { return broken }), v1.Descriptor{}, index(plain), amd64())
	if !errors.Is(err, broken) {
		t.Errorf("error %v, want %v", err, broken)
	}
}

type fetchFunc func() error

func (f fetchFunc) Fetch(context.Context, v1.Descriptor) ([]byte, error) { return nil, f() }

func FuzzChoose(f *testing.F) {
	s := newStore()
	plain := s.image(amd64(), "x")
	f.Add(string(index(plain)), `{"config":{},"layers":[]}`)
	f.Add(`{"manifests":[{"digest":"DIGEST","size":SIZE}]}`, `{"manifests":[{"digest":"DIGEST","size":SIZE}]}`)
	f.Add(`{"manifests":[{"mediaType":"`+manifestType+`","digest":"DIGEST","size":SIZE,"platform":{"os":"linux","architecture":"amd64"}}]}`, string(s.documents[plain.Digest.Hex]))
	f.Fuzz(func(t *testing.T, root, document string) {
		d := s.add("", []byte(document))
		root = strings.NewReplacer("DIGEST", d.Digest.String(), "SIZE", fmt.Sprint(d.Size)).Replace(root)
		image, err := oci.Choose(t.Context(), s, v1.Descriptor{}, []byte(root), amd64())
		if (err == nil) != (image != nil) {
			t.Fatalf("%v, %v", image, err)
		}
		if err == nil {
			if diff := cmp.Diff(len(image.Manifest.Layers), len(image.Config.RootFS.DiffIDs)); diff != "" {
				t.Error(diff)
			}
		}
	})
}

// A config of a million empty steps is 4 MB, and 480 MB once it is decoded.
func TestDecodeConfigIsBounded(t *testing.T) {
	config := func(steps int) []byte { return []byte(`{"history":[{}` + strings.Repeat(",{}", steps-1) + `]}`) }
	if c, err := oci.DecodeConfig(config(10_000)); err != nil || len(c.History) != 10_000 {
		t.Error(err)
	}
	_, err := oci.DecodeConfig(config(10_001))
	testutil.WantError(t, err, "config: 10001 steps in the history, at most 10000 are allowed")
}
