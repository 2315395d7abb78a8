// Package archive writes and reads docker-archives: the tar files that docker
// load and podman load take, here with one image, one RepoTag and uncompressed
// layers. It validates everything it reads.
//
// Every engine takes this form (docs/decisions/0002-archive-form.md): the layers
// first, then the config, named by its digest, then manifest.json. Layers come
// first because the diff ID of a layer, and often its size, is known only at its
// end. So one pass over the input is enough.
package archive

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	ggcr "github.com/google/go-containerregistry/pkg/v1/tarball"

	"pretag/build/internal/atomicfile"
	"pretag/build/internal/contextio"
	"pretag/build/internal/oci"
	"pretag/build/internal/platform"
	"pretag/build/internal/stricttar"
	"pretag/build/release"
	"pretag/build/tarball"
)

// MaxLayer is the largest layer, in bytes uncompressed, that is written or read:
// the largest size that a plain tar header holds (POSIX pax, 11 octal digits).
const MaxLayer = 1<<33 - 1

// manifestName is where an engine looks for the list of images
// (moby/moby v28.5.2, image/tarexport/tarexport.go).
const manifestName = "manifest.json"

// A Spec says what an archive holds.
type Spec struct {
	RepoTag string
	Layers  []tarball.Layer // bottom up
	// Config returns the image's config once the layers' diff IDs are known. For
	// Examine it may be nil.
	Config func(diffIDs []v1.Hash) ([]byte, error)
	// Rootfs is set if the one layer is a whole root filesystem, which has no whiteouts.
	Rootfs bool
	// GoArch is the architecture of the programs in the image; "" if they are not checked.
	GoArch string
	// Strict is set for helpers of the built-in catalogue: the helper program and
	// the programs of the entrypoint must be in the image. Otherwise those that
	// are missing are warnings.
	Strict bool
	// Runner is the version of GitLab Runner that the helper program must be built
	// from, as far as that is recorded in it.
	Runner Runner
	// Time is in the archive's own tar headers.
	Time time.Time
}

// A Writer writes archives, one at a time. It keeps its encoder between them,
// so that memory does not grow with their number.
type Writer struct {
	Compression Compression
	encoder     encoder

	last    release.Archive // written last
	layers  int64           // how many bytes at its start hold the layers
	entries *entryCheck     // what is known of its layers
}

// Write makes the archive of spec at path and returns what is known of it:
// path, size, sha256, RepoTag, image ID, diff IDs, platform, unpacked size,
// compression and time. An older file at path stays until the archive is complete and
// synced. A Write that fails leaves nothing behind.
func (w *Writer) Write(ctx context.Context, path string, spec Spec) (release.Archive, error) {
	return w.create(ctx, path, spec, func(out *os.File, f *release.Archive) error {
		return w.writeLayers(ctx, out, spec, f)
	})
}

// Retag is Write for a spec with the layers, the time and the architecture of the
// archive that this Writer wrote last. It copies the encoded layers.
func (w *Writer) Retag(ctx context.Context, path string, spec Spec) (release.Archive, error) {
	last, layers := w.last, w.layers
	if last.Path == "" || last.Created != spec.Time.Unix() {
		return release.Archive{}, errors.New("retag: no archive was written before, or one of another time")
	}
	return w.create(ctx, path, spec, func(out *os.File, f *release.Archive) error {
		in, err := os.Open(last.Path)
		if err != nil {
			return err
		}
		defer in.Close()
		f.DiffIDs, f.UnpackedSize = last.DiffIDs, last.UnpackedSize
		_, err = io.CopyN(out, contextio.NewReader(ctx, in), layers)
		return err
	})
}

// create writes an archive: the layers with writeLayers, which records their diff
// IDs and unpacked size, then the config and manifest.json.
func (w *Writer) create(ctx context.Context, path string, spec Spec, writeLayers func(*os.File, *release.Archive) error) (release.Archive, error) {
	if w.encoder == nil {
		var err error
		if w.encoder, err = w.Compression.encoder(); err != nil {
			return release.Archive{}, err
		}
	}
	w.last = release.Archive{}
	f := release.Archive{Path: path, RepoTag: spec.RepoTag, Compression: w.Compression.String(), Created: spec.Time.Unix()}
	err := atomicfile.Write(path, func(out *os.File) (err error) {
		if err := writeLayers(out, &f); err != nil {
			return err
		}
		if w.layers, err = out.Seek(0, io.SeekCurrent); err != nil {
			return err
		}
		if err := w.writeRest(out, spec, &f); err != nil {
			return err
		}
		if f.Size, err = out.Seek(0, io.SeekEnd); err != nil {
			return err
		}
		// Headers were patched, so the sum could not be taken while writing.
		f.SHA256, err = release.SHA256File(ctx, out.Name())
		return err
	})
	if err == nil {
		w.last = f
	}
	return f, err
}

func (w *Writer) writeLayers(ctx context.Context, out *os.File, spec Spec, f *release.Archive) error {
	w.entries = newEntryCheck(spec.Rootfs, spec.GoArch)
	return spec.eachLayer(func(i int, layer io.Reader) error {
		diffID, size, err := w.layer(ctx, out, layerName(i), layer, spec.Time)
		f.UnpackedSize += size
		f.DiffIDs = append(f.DiffIDs, diffID.String())
		return err
	})
}

// eachLayer opens each layer and calls do for it. The error names the number of the
// layer, unless there is only one.
func (spec Spec) eachLayer(do func(i int, layer io.Reader) error) error {
	if len(spec.Layers) > oci.MaxLayers {
		return fmt.Errorf("%d layers, at most %d are allowed", len(spec.Layers), oci.MaxLayers)
	}
	for i, open := range spec.Layers {
		layer, err := open()
		if err == nil {
			err = errors.Join(do(i, layer), layer.Close())
		}
		if err != nil && len(spec.Layers) > 1 {
			err = fmt.Errorf("layer %d: %w", i+1, err)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// writeRest writes the config and manifest.json, which need the layers' diff IDs.
func (w *Writer) writeRest(out *os.File, spec Spec, f *release.Archive) error {
	diffIDs, err := hashes(f.DiffIDs)
	if err != nil {
		return err
	}
	var names []string
	for i := range diffIDs {
		names = append(names, layerName(i))
	}
	config, err := spec.Config(diffIDs)
	if err != nil {
		return err
	}
	parsed, err := oci.ParseConfig(config, len(diffIDs))
	if err != nil {
		return err
	}
	examined, err := w.entries.examine(parsed, spec)
	if err != nil {
		return err
	}
	f.Warning = strings.Join(examined.Warnings, "; ")
	digest := fmt.Sprintf("%x", sha256.Sum256(config))
	f.ImageID, f.Platform = "sha256:"+digest, platform.Of(parsed).String()
	manifest, err := json.Marshal(ggcr.Manifest{{
		Config:   digest + ".json",
		RepoTags: []string{spec.RepoTag},
		Layers:   names,
	}})
	if err != nil {
		return err
	}
	var rest bytes.Buffer
	tw := tar.NewWriter(&rest)
	for _, member := range []struct {
		name string
		body []byte
	}{{digest + ".json", config}, {manifestName, manifest}} {
		if err := tw.WriteHeader(header(member.name, int64(len(member.body)), spec.Time)); err != nil {
			return err
		}
		if _, err := tw.Write(member.body); err != nil {
			return err
		}
	}
	if err := tw.Close(); err != nil {
		return err
	}
	return w.encoder.tail(out, rest.Bytes())
}

// An Examination is what was found in the layers of an image.
type Examination struct {
	DiffIDs  []v1.Hash
	Size     int64    // of the layers, bytes uncompressed
	Runner   Runner   // that the helper program was built from
	Warnings []string // what is unusual but accepted by engines
}

// Examine reads and checks the layers of a spec as Write does, and writes nothing.
func Examine(ctx context.Context, spec Spec) (Examination, error) {
	entries := newEntryCheck(spec.Rootfs, spec.GoArch)
	var found Examination
	err := spec.eachLayer(func(_ int, layer io.Reader) error {
		sum := sha256.New()
		size, err := pass(ctx, layer, sum, entries)
		found.Size += size
		found.DiffIDs = append(found.DiffIDs, hashOf(sum))
		return err
	})
	if err != nil {
		return found, err
	}
	var config *v1.ConfigFile
	if spec.Config != nil {
		raw, err := spec.Config(found.DiffIDs)
		if err != nil {
			return found, err
		}
		if config, err = oci.ParseConfig(raw, len(found.DiffIDs)); err != nil {
			return found, err
		}
	}
	programs, err := entries.examine(config, spec)
	found.Runner, found.Warnings = programs.Runner, programs.Warnings
	return found, err
}

func hashOf(sum hash.Hash) v1.Hash {
	return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum.Sum(nil))}
}

// hashes parses the diff IDs of a record.
func hashes(diffIDs []string) ([]v1.Hash, error) {
	parsed := make([]v1.Hash, len(diffIDs))
	for i, diffID := range diffIDs {
		if err := parsed[i].UnmarshalText([]byte(diffID)); err != nil {
			return nil, fmt.Errorf("diff ID: %w", err)
		}
	}
	return parsed, nil
}

// layerName names the layer members: layer.tar, layer-2.tar, ... Engines look the
// names up in manifest.json, so any would do.
func layerName(i int) string {
	if i == 0 {
		return "layer.tar"
	}
	return fmt.Sprintf("layer-%d.tar", i+1)
}

// layer writes one member whose size is known only at its end: its header is
// written twice.
func (w *Writer) layer(ctx context.Context, out *os.File, name string, layer io.Reader, mtime time.Time) (v1.Hash, int64, error) {
	at, err := out.Seek(0, io.SeekCurrent)
	if err != nil {
		return v1.Hash{}, 0, err
	}
	header, err := tarHeader(name, 0, mtime)
	if err != nil {
		return v1.Hash{}, 0, err
	}
	if _, err := out.Write(w.encoder.header(header)); err != nil {
		return v1.Hash{}, 0, err
	}
	sum := sha256.New()
	passed, memberSize, err := w.encoder.body(out, func(body io.Writer) (int64, error) {
		return pass(ctx, layer, io.MultiWriter(sum, body), w.entries)
	})
	if err != nil {
		return v1.Hash{}, 0, err
	}
	if header, err = tarHeader(name, memberSize, mtime); err != nil {
		return v1.Hash{}, 0, err
	}
	if _, err := out.WriteAt(w.encoder.header(header), at); err != nil {
		return v1.Hash{}, 0, err
	}
	return hashOf(sum), passed, nil
}

func header(name string, size int64, mtime time.Time) *tar.Header {
	return &tar.Header{Name: name, Mode: 0o644, Size: size, ModTime: mtime, Format: tar.FormatUSTAR}
}

// tarHeader is the one block that precedes a member.
func tarHeader(name string, size int64, mtime time.Time) ([]byte, error) {
	var buf bytes.Buffer
	if err := tar.NewWriter(&buf).WriteHeader(header(name, size, mtime)); err != nil {
		return nil, err
	}
	if buf.Len() != stricttar.BlockSize {
		return nil, fmt.Errorf("tar header of %s takes %d bytes, want %d", name, buf.Len(), stricttar.BlockSize)
	}
	return buf.Bytes(), nil
}

// pass copies a layer to w while its entries are checked, and returns its size.
func pass(ctx context.Context, layer io.Reader, w io.Writer, entries *entryCheck) (int64, error) {
	pr, pw := io.Pipe()
	checked := make(chan error, 1)
	go func() {
		err := entries.layer(ctx, pr)
		pr.CloseWithError(errChecked)
		checked <- err
	}()
	n, err := copyLayer(ctx, io.MultiWriter(w, pw), layer)
	pw.CloseWithError(err)
	if checkErr := <-checked; checkErr != nil && (err == nil || errors.Is(err, errChecked)) {
		err = checkErr
	}
	return n, err
}

// errChecked stops the copying if the entries were rejected.
var errChecked = errors.New("entries checked")

func copyLayer(ctx context.Context, w io.Writer, r io.Reader) (int64, error) {
	n, err := io.CopyBuffer(w, io.LimitReader(contextio.NewReader(ctx, r), MaxLayer+1), make([]byte, 256<<10))
	if err == nil && n > MaxLayer {
		err = fmt.Errorf("more than %d bytes uncompressed", int64(MaxLayer))
	}
	return n, err
}
