package tarball_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	ggcr "github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"pretag/build/archive"
	"pretag/build/internal/decompress"
	"pretag/build/tarball"
	"pretag/build/testutil"
	"pretag/build/testutil/archivetest"
)

func amd64() v1.Platform { return v1.Platform{OS: "linux", Architecture: "amd64"} }

func armv7() v1.Platform { return v1.Platform{OS: "linux", Architecture: "arm", Variant: "v7"} }

func open(t *testing.T, b []byte, platform v1.Platform) (*tarball.Image, error) {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "input")
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
	img, err := tarball.Open(t.Context(), path, platform, dir, &decompress.Decoders{})
	if err == nil {
		t.Cleanup(func() { img.Close() })
	}
	entries, readErr := os.ReadDir(dir)
	if readErr != nil || len(entries) != 1 {
		t.Errorf("the directory holds %v (%v), want the input alone", entries, readErr)
	}
	return img, err
}

// layers reads all layers to their ends.
func layers(img *tarball.Image) (all [][]byte, err error) {
	for _, layer := range img.Layers {
		r, err := layer()
		if err != nil {
			return nil, err
		}
		body, err := io.ReadAll(r)
		if err == nil {
			err = r.Close()
		}
		if err != nil {
			return nil, err
		}
		all = append(all, body)
	}
	return all, nil
}

func TestRootfs(t *testing.T) { readsRootfs(t, written) }

// written returns b as it is and in the compressions that Go can write.
func written(t *testing.T, b []byte) map[string][]byte {
	t.Helper()
	compressed := map[string][]byte{"none": b}
	for _, format := range []string{"gzip", "xz", "zstd"} {
		compressed[format] = testutil.Compress(t, format, b)
	}
	return compressed
}

func readsRootfs(t *testing.T, compressed func(*testing.T, []byte) map[string][]byte) {
	t.Helper()
	rootfs := testutil.Rootfs(t, strings.Repeat("helper", 10_000))
	for name, input := range compressed(t, rootfs) {
		t.Run(name, func(t *testing.T) {
			img, err := open(t, input, amd64())
			if err != nil {
				t.Fatal(err)
			}
			var progress int
			img.Progress = func(n int) { progress += n }
			if img.Layout != tarball.Rootfs || img.Config != nil {
				t.Errorf("layout %s, config %q", img.Layout, img.Config)
			}
			for range 2 { // once more after the first pass
				got, err := layers(img)
				if err != nil {
					t.Fatal(err)
				}
				if len(got) != 1 || !bytes.Equal(got[0], rootfs) {
					t.Error("the layer is not the plain tarball")
				}
			}
			if want := 2 * len(input); progress != want {
				t.Errorf("progress ends at %d, want %d", progress, want)
			}
			size, sum, err := img.Sum()
			if err != nil {
				t.Fatal(err)
			}
			if want := fmt.Sprintf("%x", sha256.Sum256(input)); sum != want || size != int64(len(input)) {
				t.Errorf("sum %d %s, want %d %s", size, sum, len(input), want)
			}
		})
	}
}

// A layout is an OCI layout in parts, to damage.
type layout struct {
	blobs map[string][]byte // by digest
	index []v1.Descriptor
}

func newLayout() *layout { return &layout{blobs: map[string][]byte{}} }

func (l *layout) blob(body []byte, mediaType string) v1.Descriptor {
	digest := fmt.Sprintf("%x", sha256.Sum256(body))
	l.blobs[digest] = body
	return v1.Descriptor{MediaType: types.MediaType(mediaType), Size: int64(len(body)), Digest: v1.Hash{Algorithm: "sha256", Hex: digest}}
}

func (l *layout) json(t *testing.T, v any, mediaType string) v1.Descriptor {
	t.Helper()
	body, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return l.blob(body, mediaType)
}

// image adds an image; blob i of layers is layer i as it is stored, plain i what it is.
func (l *layout) image(t *testing.T, platform v1.Platform, plain, stored [][]byte) v1.Descriptor {
	t.Helper()
	config := v1.ConfigFile{OS: platform.OS, Architecture: platform.Architecture, Variant: platform.Variant}
	config.Config.Labels = map[string]string{"for": platform.String()}
	manifest := v1.Manifest{SchemaVersion: 2, MediaType: ociManifest}
	for i := range plain {
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, v1.Hash{Algorithm: "sha256", Hex: fmt.Sprintf("%x", sha256.Sum256(plain[i]))})
		manifest.Layers = append(manifest.Layers, l.blob(stored[i], "application/vnd.oci.image.layer.v1.tar+gzip"))
	}
	manifest.Config = l.json(t, config, "application/vnd.oci.image.config.v1+json")
	return l.json(t, manifest, ociManifest)
}

const (
	ociManifest = "application/vnd.oci.image.manifest.v1+json"
	ociIndex    = "application/vnd.oci.image.index.v1+json"
)

// tar writes the layout; prefix is put before each name.
func (l *layout) tar(t *testing.T, prefix string) []byte {
	t.Helper()
	index, err := json.Marshal(v1.IndexManifest{SchemaVersion: 2, Manifests: l.index})
	if err != nil {
		t.Fatal(err)
	}
	var entries []testutil.Entry
	if prefix != "" {
		entries = append(entries, testutil.Dir(prefix))
	}
	entries = append(entries, testutil.Dir(prefix+"blobs/"), testutil.Dir(prefix+"blobs/sha256/"))
	for digest, body := range l.blobs {
		entries = append(entries, testutil.File(prefix+"blobs/sha256/"+digest, string(body)))
	}
	return testutil.Tar(t, append(
		entries,
		testutil.File(prefix+"index.json", string(index)),
		testutil.File(prefix+"oci-layout", `{"imageLayoutVersion":"1.0.0"}`),
	)...)
}

func TestOCIArchive(t *testing.T) {
	one, two := testutil.Rootfs(t, "one"), testutil.Tar(t, testutil.File("two", "2"))
	plain := [][]byte{one, two}
	stored := [][]byte{testutil.Compress(t, "gzip", one), testutil.Compress(t, "zstd", two)}
	flat := newLayout()
	flat.index = []v1.Descriptor{flat.image(t, amd64(), plain, stored)}

	// buildx with attestations, several platforms and an index in an index
	nested := newLayout()
	attestation := nested.json(t, v1.Manifest{SchemaVersion: 2}, ociManifest)
	attestation.Annotations = map[string]string{"vnd.docker.reference.type": "attestation-manifest"}
	unknown := nested.json(t, v1.Manifest{SchemaVersion: 2, Annotations: map[string]string{"x": "y"}}, ociManifest)
	unknown.Platform = &v1.Platform{OS: "unknown", Architecture: "unknown"}
	inner := v1.IndexManifest{SchemaVersion: 2, Manifests: []v1.Descriptor{
		nested.image(t, v1.Platform{OS: "linux", Architecture: "arm", Variant: "v6"}, [][]byte{two}, [][]byte{two}),
		nested.image(t, armv7(), [][]byte{two}, [][]byte{two}), attestation, unknown,
		nested.image(t, amd64(), plain, plain),
	}}
	nested.index = []v1.Descriptor{nested.json(t, inner, ociIndex)}

	// the usual variants, spelled the other way
	plainly := newLayout()
	plainly.index = []v1.Descriptor{
		plainly.image(t, v1.Platform{OS: "linux", Architecture: "arm"}, [][]byte{two}, [][]byte{two}),
		plainly.image(t, v1.Platform{OS: "linux", Architecture: "amd64", Variant: "v1"}, plain, plain),
		plainly.image(t, v1.Platform{OS: "linux", Architecture: "amd64", Variant: "v2"}, [][]byte{two}, [][]byte{two}),
	}

	for name, row := range map[string]struct {
		input    []byte
		platform v1.Platform
		want     [][]byte
	}{
		"flat":          {flat.tar(t, ""), amd64(), plain},
		"with ./":       {flat.tar(t, "./"), amd64(), plain},
		"xz":            {testutil.Compress(t, "xz", flat.tar(t, "./")), amd64(), plain},
		"one, other":    {flat.tar(t, ""), armv7(), plain}, // the caller says that it does not fit
		"nested, amd64": {nested.tar(t, ""), amd64(), plain},
		"arm is v7":     {plainly.tar(t, ""), armv7(), [][]byte{two}},
		"v1 is amd64":   {plainly.tar(t, ""), amd64(), plain},
		"nested, armv7": {testutil.Compress(t, "zstd", nested.tar(t, "")), armv7(), [][]byte{two}},
	} {
		t.Run(name, func(t *testing.T) {
			img, err := open(t, row.input, row.platform)
			if err != nil {
				t.Fatal(err)
			}
			got, err := layers(img)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(row.want, got); diff != "" {
				t.Errorf("layers (-want +got):\n%.300s", diff)
			}
			if img.Layout != tarball.OCIArchive || !strings.HasPrefix(img.Digest, "sha256:") {
				t.Errorf("layout %s, digest %s", img.Layout, img.Digest)
			}
			if strings.HasPrefix(name, "nested") && !bytes.Contains(img.Config, []byte(row.platform.String())) {
				t.Errorf("config %s is not that for %s", img.Config, row.platform)
			}
			_, sum, err := img.Sum()
			if err != nil || sum != fmt.Sprintf("%x", sha256.Sum256(row.input)) {
				t.Errorf("sum %s, %v", sum, err)
			}
		})
	}
	want := "index.json: 3 images, want 1: sha256:"
	_, err := open(t, nested.tar(t, ""), v1.Platform{})
	testutil.WantError(t, err, want)
}

// Package oci tests what is wrong with an index; these are about the blobs.
func TestOCIArchiveRefuses(t *testing.T) {
	rootfs := testutil.Rootfs(t, "one")
	zipped := testutil.Compress(t, "gzip", rootfs)
	for name, row := range map[string]struct {
		damage func(*layout)
		want   string
	}{
		"blob missing": {func(l *layout) { delete(l.blobs, l.index[0].Digest.Hex) }, "(it is absent)"},
		"blob changed": {func(l *layout) { l.blobs[l.index[0].Digest.Hex][5] ^= 1 }, "digest is sha256:"},
		"layer changed": {func(l *layout) {
			for _, body := range l.blobs {
				if bytes.Equal(body, zipped) {
					body[4] ^= 1 // gzip's time, which its checksum does not cover
				}
			}
		}, "digest is sha256:"},
		"digest escapes": {func(l *layout) { l.index[0].Digest.Hex = "../../etc/passwd" }, "entry 1 of index (found non-hex character"},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLayout()
			l.index = []v1.Descriptor{l.image(t, amd64(), [][]byte{rootfs}, [][]byte{bytes.Clone(zipped)})}
			row.damage(l)
			img, err := open(t, l.tar(t, ""), amd64())
			if err == nil {
				_, err = layers(img)
			}
			testutil.WantError(t, err, row.want)
		})
	}
}

func TestDockerArchive(t *testing.T) {
	one, two := testutil.Rootfs(t, "one"), testutil.Tar(t, testutil.File("two", "2"))
	config := fmt.Sprintf(`{"os":"linux","architecture":"amd64","rootfs":{"diff_ids":["sha256:%x","sha256:%x","sha256:%x"]}}`,
		sha256.Sum256(one), sha256.Sum256(two), sha256.Sum256(one))
	manifest := `[{"Config":"` + strings.Repeat("a", 64) + `.json","RepoTags":["a:b"],"Layers":["1/layer.tar","2/layer.tar","3/layer.tar"]}]`
	entries := []testutil.Entry{ // as docker save wrote it up to 24, a repeated layer as a link
		testutil.File(strings.Repeat("a", 64)+".json", config),
		testutil.Dir("1/"), testutil.File("1/layer.tar", string(one)), testutil.File("2/layer.tar", string(testutil.Compress(t, "gzip", two))),
		{Header: tar.Header{Name: "3/layer.tar", Typeflag: tar.TypeSymlink, Linkname: "../1/layer.tar"}},
		testutil.File("manifest.json", manifest), testutil.File("repositories", "{}"),
	}
	for name, input := range map[string][]byte{"plain": testutil.Tar(t, entries...), "xz": testutil.Compress(t, "xz", testutil.Tar(t, entries...))} {
		img, err := open(t, input, amd64())
		if err != nil {
			t.Fatal(err)
		}
		got, err := layers(img)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([][]byte{one, two, one}, got); diff != "" {
			t.Errorf("%s: layers (-want +got):\n%.300s", name, diff)
		}
		if img.Layout != tarball.DockerArchive || string(img.Config) != config {
			t.Errorf("%s: layout %s, config %s", name, img.Layout, img.Config)
		}
	}
	for name, row := range map[string]struct{ manifest, want string }{
		"two images":     {`[{"RepoTags":["a:1"]},{"RepoTags":["b:2"]}]`, `2 images, want 1: ["a:1" "b:2"]`},
		"no image":       {`[]`, "0 images, want 1"},
		"broken":         {`[`, "manifest.json: unexpected end"},
		"config missing": {strings.Replace(manifest, strings.Repeat("a", 64), "x", 1), `"x.json" is not in the archive`},
		"layer escapes":  {strings.Replace(manifest, "1/layer.tar", "../../etc/passwd", 1), "is not in the archive"},
		"too few layers": {strings.Replace(manifest, `"1/layer.tar",`, "", 1), "2 layers, the config has 3 diff IDs"},
		"huge":           {"[" + strings.Repeat(" ", 9<<20) + "]", "at most 4194304"},
	} {
		t.Run(name, func(t *testing.T) {
			entries[5] = testutil.File("manifest.json", row.manifest)
			_, err := open(t, testutil.Tar(t, entries...), amd64())
			testutil.WantError(t, err, row.want)
		})
	}
	entries[5] = testutil.File("manifest.json", manifest)
	link := testutil.Entry{Header: tar.Header{Name: "2/layer.tar", Typeflag: tar.TypeSymlink, Linkname: "../1/layer.tar"}}
	again := testutil.File("2/layer.tar", "")
	for name, more := range map[string][]testutil.Entry{"twice": {again}, "thrice": {again, again}, "a link too": {link}, "a link and twice": {link, again}} {
		t.Run(name, func(t *testing.T) {
			_, err := open(t, testutil.Tar(t, append(more, entries...)...), amd64())
			testutil.WantError(t, err, "\"2/layer.tar\" is in the archive twice")
		})
	}
}

// A tarball as crane, ko and kaniko write it: the config first, under its digest.
func TestRegistryTarball(t *testing.T) {
	rootfs := testutil.Rootfs(t, "one")
	plain, err := mutate.AppendLayers(empty.Image, static.NewLayer(rootfs, types.DockerUncompressedLayer))
	if err != nil {
		t.Fatal(err)
	}
	tag, err := name.NewTag("example.com/helper:1")
	if err != nil {
		t.Fatal(err)
	}
	var input bytes.Buffer
	if err := ggcr.Write(tag, plain, &input); err != nil {
		t.Fatal(err)
	}
	for name, input := range map[string][]byte{"plain": input.Bytes(), "gzip": testutil.Compress(t, "gzip", input.Bytes())} {
		img, err := open(t, input, amd64())
		if err != nil {
			t.Fatal(err)
		}
		got, err := layers(img)
		if err != nil || img.Layout != tarball.DockerArchive || len(got) != 1 || !bytes.Equal(got[0], rootfs) {
			t.Errorf("%s: layout %s, %d layers, %v", name, img.Layout, len(got), err)
		}
	}
}

// An archive that pretag made is an input like any other.
func TestOwnArchive(t *testing.T) {
	f := archivetest.Archives(t, t.TempDir(), "alpine-x86_64")[0]
	body, err := os.ReadFile(f.Path)
	if err != nil {
		t.Fatal(err)
	}
	img, err := open(t, body, amd64())
	if err != nil {
		t.Fatal(err)
	}
	got, err := layers(img)
	if err != nil || img.Layout != tarball.DockerArchive || !bytes.Equal(got[0], testutil.Rootfs(t, "alpine-x86_64")) {
		t.Errorf("layout %s, %v", img.Layout, err)
	}
}

func TestOpenSaysWhatItIs(t *testing.T) {
	rootfs := testutil.Rootfs(t, strings.Repeat("x", 3000))
	xz := testutil.Compress(t, "xz", rootfs)
	dot := testutil.Tar(t, testutil.Dir("./"))
	longName := testutil.Tar(t, testutil.File(strings.Repeat("x", 300), ""))
	for name, row := range map[string]struct {
		input []byte
		want  string
	}{
		"empty":               {nil, "empty file"},
		"text":                {[]byte("hello\n"), `not a tar file; it looks like text: "hello\n"`},
		"html":                {[]byte("<!DOCTYPE html><html>" + strings.Repeat("x", 600)), "looks like an HTML page"},
		"git-lfs":             {[]byte("version https://git-lfs.github.com/spec/v1\noid sha256:0\n"), "git-lfs pointer"},
		"zip":                 {append([]byte("PK\x03\x04"), make([]byte, 600)...), "a zip archive"},
		"deb":                 {[]byte("!<arch>\ndebian-binary   " + strings.Repeat(" ", 600)), "a deb package"},
		"rpm":                 {append([]byte("\xed\xab\xee\xdb\x03"), make([]byte, 600)...), "an rpm package"},
		"xz twice":            {testutil.Compress(t, "xz", xz), "compressed twice"},
		"gzip text":           {testutil.Compress(t, "gzip", []byte(strings.Repeat("text ", 200))), `looks like text: "text text text text text text text text "`},
		"gzip nothing":        {testutil.Compress(t, "gzip", nil), "it is empty once it is decompressed"},
		"squashfs":            {append([]byte("hsqs"), make([]byte, 600)...), "a squashfs file system"},
		"cpio":                {[]byte("070701" + strings.Repeat("0", 600)), "a cpio archive"},
		"lzma":                {append([]byte("\x5d\x00\x00\x80\x00"), make([]byte, 600)...), "an lzma stream. Decompress it first: xz -dc FILE > NEW"},
		"program":             {append([]byte("\x7fELF\x02\x01\x01"), make([]byte, 600)...), "a program (ELF)"},
		"registry's answer":   {[]byte(`{"errors":[{"code":"UNAUTHORIZED"}]}`), "a JSON document"},
		"PGP":                 {[]byte("-----BEGIN PGP SIGNATURE-----\n"), "a PGP message or signature"},
		"disk image":          {append(make([]byte, 32769), "CD001\x01"...), "a disk image: it begins with zeros"},
		"unknown":             {append([]byte("\x1e\xb5\x2f\xfd"), make([]byte, 600)...), "nor in another known format; it begins with the bytes 1eb52ffd00000000"},
		"zeros":               {make([]byte, 10240), "no entries"},
		"7z":                  {append([]byte("7z\xbc\xaf\x27\x1c"), make([]byte, 600)...), "a 7z archive"},
		"cut in a body":       {rootfs[:3000], "entry 4: unexpected EOF (truncated tar)"},
		"cut in an extension": {longName[:700], "unexpected EOF (truncated tar)"},
		"damaged later, gzip": {testutil.Compress(t, "gzip", append(dot[:512:512], bytes.Repeat([]byte("x"), 1024)...)), "entry 2: archive/tar: invalid tar header"},
		"damaged later":       {append(append(bytes.Clone(rootfs[:512]), 'x'), rootfs[513:]...), "entry 2: archive/tar: invalid tar header"},
		"truncated":           {xz[:len(xz)-20], "truncated xz stream"},
		"flipped":             {append(append(bytes.Clone(xz[:len(xz)/2]), xz[len(xz)/2]^0x55), xz[len(xz)/2+1:]...), "xz"},
		"trailing":            {append(bytes.Clone(xz), "garbage!"...), "other data after the end of the xz stream"},
		"gzip, tail":          {append(testutil.Compress(t, "gzip", rootfs), "garbage!"...), "other data after the end of the gzip stream"},
		"zstd, tail":          {append(testutil.Compress(t, "zstd", rootfs), "garbage!"...), "other data after the end of the zstd stream"},
		"zstd, cut":           {testutil.Compress(t, "zstd", rootfs)[:80], "truncated zstd stream"},
	} {
		t.Run(name, func(t *testing.T) { opensWithError(t, row.input, row.want) })
	}
	_, err := tarball.Open(t.Context(), t.TempDir(), amd64(), "", nil)
	testutil.WantError(t, err, "is a directory, want a regular file")
}

func opensWithError(t *testing.T, input []byte, want string) {
	t.Helper()
	img, err := open(t, input, amd64())
	if err == nil {
		_, err = layers(img)
	}
	testutil.WantError(t, err, want)
}

func TestSumNoticesChange(t *testing.T) {
	path := filepath.Join(t.TempDir(), "input")
	if err := os.WriteFile(path, testutil.Rootfs(t, "x"), 0o644); err != nil {
		t.Fatal(err)
	}
	img, err := tarball.Open(t.Context(), path, amd64(), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	if err := os.Chtimes(path, time.Time{}, time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	_, _, err = img.Sum()
	testutil.WantError(t, err, "changed while it was read")
}

// Opening a FIFO does not wait for a writer.
func TestOpenFIFO(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := tarball.Open(t.Context(), path, amd64(), "", nil)
	if want := path + ": not a regular file"; err == nil || err.Error() != want {
		t.Errorf("error %v, want %q", err, want)
	}
}

// Reading ends with the context, wherever it is.
func TestOpenEndsWithContext(t *testing.T) {
	stop := errors.New("stop")
	l := newLayout()
	rootfs := testutil.Rootfs(t, "x")
	l.index = []v1.Descriptor{l.image(t, amd64(), [][]byte{rootfs}, [][]byte{rootfs})}
	for name, input := range map[string][]byte{
		"rootfs": rootfs, "oci-archive": l.tar(t, ""), "rootfs.gz": testutil.Compress(t, "gzip", rootfs), "oci-archive.gz": testutil.Compress(t, "gzip", l.tar(t, "")),
	} {
		path := filepath.Join(t.TempDir(), "input")
		if err := os.WriteFile(path, input, 0o644); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		img, err := tarball.Open(ctx, path, amd64(), filepath.Dir(path), nil)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		cancel(stop)
		if _, err := layers(img); !errors.Is(err, stop) {
			t.Errorf("%s: layers: error %v, want that of the context", name, err)
		}
		if _, _, err := img.Sum(); !errors.Is(err, stop) {
			t.Errorf("%s: sum: error %v, want that of the context", name, err)
		}
		if err := img.Close(); err != nil {
			t.Error(err)
		}
		if _, err := tarball.Open(ctx, path, amd64(), filepath.Dir(path), nil); !errors.Is(err, stop) {
			t.Errorf("%s: error %v, want that of the context", name, err)
		}
	}
}

// Uncompressed and compressed, a tarball is taken for the same: an image archive,
// a root filesystem that has files with the names of one, or neither.
func TestSameLayoutCompressed(t *testing.T) {
	l := newLayout()
	rootfs := testutil.Rootfs(t, "x")
	l.index = []v1.Descriptor{l.image(t, amd64(), [][]byte{rootfs}, [][]byte{rootfs})}
	file, dir := testutil.File, testutil.Dir
	hex := strings.Repeat("ab", 32)
	cont := file("x", "")
	cont.Header.Typeflag = tar.TypeCont
	for name, row := range map[string]struct {
		input []byte
		want  string // layout, or a part of the error
	}{
		"oci-archive":                           {l.tar(t, ""), "oci-archive"},
		"root filesystem with oci-layout first": {testutil.Tar(t, file("oci-layout", "{}"), file("index.json", "{}"), dir("usr/"), file("usr/x", "")), "rootfs"},
		"root filesystem with oci-layout last":  {testutil.Tar(t, dir("etc/"), file("etc/x", ""), file("oci-layout", "{}")), "rootfs"},
		"root filesystem with manifest.json":    {testutil.Tar(t, file("manifest.json", "[]"), file("bin/sh", "")), "rootfs"},
		"lost oci-layout":                       {testutil.Tar(t, file("index.json", "{}"), file("blobs/sha256/"+hex, "x")), "not a root filesystem: it holds "},
		"lost manifest.json":                    {testutil.Tar(t, file(hex+".json", "{}"), file(hex+"/layer.tar", "x"), file("repositories", "{}")), "not a root filesystem: it holds "},
		"lost, as podman saves":                 {testutil.Tar(t, file(hex+".tar", "x"), file(hex+".json", "{}")), "not a root filesystem: it holds "},
		"lost, as crane saves":                  {testutil.Tar(t, file("sha256:"+hex, "x"), file(hex+".tar.gz", "{}")), "not a root filesystem: it holds "},
		"lost, as pretag builds":                {testutil.Tar(t, file("layer.tar", "x"), file("layer-2.tar", "x"), file(hex+".json", "{}")), "not a root filesystem: it holds "},
		"a member outside":                      {testutil.Tar(t, file("manifest.json", "[]"), file("../x", "")), `member "../x": path contains ".."`},
		"a member at the root":                  {testutil.Tar(t, file("oci-layout", "{}"), file("/x", "")), `member "/x": absolute path`},
		"a member of type 7":                    {testutil.Tar(t, file("manifest.json", "[]"), cont), `member "x": type '7', want a file`},
	} {
		for how, input := range map[string][]byte{"plain": row.input, "gzip": testutil.Compress(t, "gzip", row.input)} {
			img, err := open(t, input, amd64())
			got := ""
			if err == nil {
				got = string(img.Layout)
				spec := archive.Spec{Layers: img.Layers, Rootfs: img.Layout == tarball.Rootfs}
				_, err = archive.Examine(t.Context(), spec)
			}
			if err != nil {
				got = err.Error()
			}
			if !strings.Contains(got, row.want) {
				t.Errorf("%s, %s: %s, want %s", name, how, got, row.want)
			}
		}
	}
}

func FuzzOpen(f *testing.F) {
	f.Add(testutil.Rootfs(f, "x"))
	f.Add(testutil.Tar(f, testutil.File("oci-layout", `{"imageLayoutVersion":"1.0.0"}`), testutil.File("index.json", `{"manifests":[{"digest":"sha256:0"}]}`)))
	f.Add(testutil.Tar(f, testutil.File("manifest.json", `[{"Config":"c","Layers":["l"]}]`), testutil.File("c", `{}`), testutil.File("l", "")))
	f.Add([]byte("\xfd7zXZ\x00\x00\x04"))
	f.Add([]byte("\x28\xb5\x2f\xfd\x20\x00\x01\x00\x00"))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, b []byte) {
		path := filepath.Join(dir, "input")
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
		img, err := tarball.Open(t.Context(), path, amd64(), dir, nil)
		if err != nil {
			return
		}
		defer img.Close()
		if len(img.Layers) == 0 {
			t.Error("no layers and no error")
		}
		layers(img) //nolint:errcheck // must return
	})
}
