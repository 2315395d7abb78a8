// Package tarball reads helper tarballs: root filesystems, oci-archives and
// docker-archives, compressed or not. The content of a tarball, not its name,
// decides what it is. Config and layers are returned as they are.
package tarball

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path"
	"regexp"
	"syscall"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/klauspost/readahead"

	"pretag/build/internal/contextio"
	"pretag/build/internal/decompress"
	"pretag/build/internal/stricttar"
)

// A Layout is how a tarball holds an image.
type Layout string

// The layouts.
const (
	Rootfs        Layout = "rootfs"         // the files of one root filesystem, as docker export writes it
	OCIArchive    Layout = "oci-archive"    // an OCI layout (image-spec v1.1 image-layout.md) in a tar file
	DockerArchive Layout = "docker-archive" // what docker save writes: manifest.json, configs, layers
)

// An Image is an opened tarball: the one image that it holds.
type Image struct {
	Layout      Layout
	Compression decompress.Format // around the tarball
	Config      []byte            // byte for byte; nil for a Rootfs
	Digest      string            // of the image's manifest, sha256:<hex>; OCIArchive only
	Annotations map[string]string // of the image's manifest; OCIArchive only
	RepoTags    []string          // DockerArchive only
	Layers      []Layer           // bottom up
	Progress    func(n int)       // if set, called with the number of bytes of the tarball that were read; by one goroutine at a time

	ctx      context.Context // ends reading
	file     *os.File
	before   os.FileInfo
	spool    *os.File // the plain tarball, where that is not file itself
	sum      string   // sha256 of file, hex, once it is known
	decoders *decompress.Decoders
}

// A Layer opens the uncompressed stream of one layer. Reading it to its end checks
// what the tarball says about it: digest, size, checksums. The reader computes the diff ID.
type Layer func() (io.ReadCloser, error)

// Open opens the tarball at path. If it holds images for several platforms, the
// one for platform is taken; with the zero Platform it must hold one image. A
// compressed tarball that needs random access is decompressed to an unnamed file
// in temp. decoders may be nil. Reading ends with ctx. The caller closes the image.
func Open(ctx context.Context, path string, platform v1.Platform, temp string, decoders *decompress.Decoders) (_ *Image, err error) {
	// Without O_NONBLOCK, opening a FIFO waits for a writer.
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	img := &Image{ctx: ctx, file: file, decoders: decoders}
	defer func() {
		if err != nil {
			err = fmt.Errorf("%s: %w", path, errors.Join(err, img.Close()))
		}
	}()
	if img.before, err = file.Stat(); err != nil {
		return nil, err
	}
	switch {
	case img.before.IsDir():
		return nil, errors.New("is a directory, want a regular file")
	case !img.before.Mode().IsRegular():
		return nil, errors.New("not a regular file")
	case img.before.Size() == 0:
		return nil, errors.New("empty file")
	}
	candidate, err := img.detect()
	if err != nil {
		return nil, err
	}
	if !candidate {
		img.isRootfs()
		return img, nil
	}
	return img, img.index(platform, temp)
}

// isRootfs sets img up as a root filesystem, whose one layer is the plain tarball. The
// sum of the tarball is taken in the same pass.
func (img *Image) isRootfs() {
	img.Layout = Rootfs
	img.Layers = []Layer{func() (io.ReadCloser, error) {
		return img.stream(img.bytes(), "", func(sum string) error {
			img.sum = sum
			return nil
		})
	}}
}

// Close releases what Open holds.
func (img *Image) Close() error {
	err := img.file.Close()
	if img.spool != nil {
		err = errors.Join(err, img.spool.Close())
	}
	return err
}

// Sum returns the tarball's size in bytes and its sha256 in hex. Once the layer of
// a Rootfs has been read to its end, that costs nothing more. It fails if the file
// has changed since Open.
func (img *Image) Sum() (int64, string, error) {
	after, err := os.Stat(img.file.Name())
	if err != nil {
		return 0, "", err
	}
	if after.Size() != img.before.Size() || !after.ModTime().Equal(img.before.ModTime()) || !os.SameFile(img.before, after) {
		return 0, "", errors.New("changed while it was read")
	}
	if img.sum == "" {
		sum := sha256.New()
		if _, err := io.Copy(sum, contextio.NewReader(img.ctx, img.bytes())); err != nil {
			return 0, "", err
		}
		img.sum = hex.EncodeToString(sum.Sum(nil))
	}
	return after.Size(), img.sum, nil
}

// bytes returns the tarball as it is on disk.
func (img *Image) bytes() *io.SectionReader {
	return io.NewSectionReader(img.file, 0, img.before.Size())
}

// counted reads r until the context ends and reports to Progress what was read.
func (img *Image) counted(r io.Reader) io.Reader {
	r = contextio.NewReader(img.ctx, r)
	return readerFunc(func(p []byte) (int, error) {
		n, err := r.Read(p)
		if img.Progress != nil {
			img.Progress(n)
		}
		return n, err
	})
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// detect reports whether the tarball may be an oci-archive or a docker-archive;
// otherwise it is a root filesystem. Of a compressed tarball only the first member
// is looked at.
func (img *Image) detect() (candidate bool, err error) {
	plain, err := img.decoders.NewReader(contextio.NewReader(img.ctx, img.bytes()))
	if err != nil {
		return false, err
	}
	defer plain.Close()
	img.Compression = plain.Format
	if img.Compression != decompress.None {
		return firstIsImage(plain)
	}
	m, err := index(img.ctx, img.bytes()) // with random access, look at all of it
	if err != nil {
		return false, err
	}
	return m.isImage(), nil
}

// firstIsImage reports whether the first member of a tar stream is what image
// archives begin with.
func firstIsImage(r io.Reader) (bool, error) {
	var head [stricttar.BlockSize]byte
	switch n, err := io.ReadFull(r, head[:]); err { // ReadFull's own errors, not what a decoder wraps
	case nil:
	case io.EOF, io.ErrUnexpectedEOF:
		return false, notTar(head[:n])
	default:
		return false, err
	}
	tr := tar.NewReader(io.MultiReader(bytes.NewReader(head[:]), r))
	for n := 1; ; n++ {
		header, err := tr.Next()
		switch {
		case errors.Is(err, io.EOF):
			return false, errors.New("no entries")
		case errors.Is(err, tar.ErrHeader) && n == 1:
			return false, notTar(head[:])
		case err != nil:
			return false, fmt.Errorf("entry %d: %w", n, err)
		}
		if name := path.Clean(header.Name); name != "." && header.Typeflag != tar.TypeXGlobalHeader {
			return IsImageMember(name), nil
		}
	}
}

// IsImageMember reports whether image archives have members of that name: an OCI
// layout, docker save (moby v28.5.2, image/tarexport/save.go), podman save,
// go-containerregistry (v0.22.1, pkg/v1/tarball/write.go), and pretag.
func IsImageMember(name string) bool { return imageMember.MatchString(name) }

var imageMember = regexp.MustCompile(`^(oci-layout|index\.json|blobs|blobs/.*|manifest\.json|repositories|layer(-[0-9]+)?\.tar|(sha256:)?[0-9a-f]{64}([./].*)?)$`)

// A stream is the uncompressed stream of a layer, which is decoded ahead while the
// consumer works.
type stream struct {
	name  string // that begins errors; may be empty
	sum   hash.Hash
	plain *decompress.Reader
	ahead io.ReadCloser // of plain
	end   func(sum string) error
}

// stream returns the uncompressed stream of a layer. At the end of stored, it calls end
// with the sha256 of stored in hex.
func (img *Image) stream(stored io.Reader, name string, end func(sum string) error) (_ io.ReadCloser, err error) {
	s := &stream{name: name, sum: sha256.New(), end: end}
	if s.plain, err = img.decoders.NewReader(img.counted(io.TeeReader(stored, s.sum))); err != nil {
		return nil, s.explain(err)
	}
	if s.ahead, err = readahead.NewReaderSize(s.plain, 4, 1<<20); err != nil {
		return nil, errors.Join(err, s.plain.Close())
	}
	return s, nil
}

func (s *stream) Read(p []byte) (int, error) {
	n, err := s.ahead.Read(p)
	if errors.Is(err, io.EOF) { // of stored as well: see decompress.Reader
		err = s.end(hex.EncodeToString(s.sum.Sum(nil)))
		if err == nil {
			return n, io.EOF
		}
	}
	return n, s.explain(err)
}

func (s *stream) explain(err error) error {
	if err == nil || s.name == "" {
		return err
	}
	return fmt.Errorf("%s: %w", s.name, err)
}

func (s *stream) Close() error { return errors.Join(s.ahead.Close(), s.plain.Close()) }

// plainFile returns the uncompressed tarball with random access.
func (img *Image) plainFile(temp string) (*io.SectionReader, error) {
	if img.Compression == decompress.None {
		return img.bytes(), nil
	}
	spool, err := os.CreateTemp(temp, ".spool.*.pretag-tmp")
	if err != nil {
		return nil, err
	}
	img.spool = spool
	if err := os.Remove(spool.Name()); err != nil {
		return nil, err
	}
	plain, err := img.decoders.NewReader(contextio.NewReader(img.ctx, img.bytes()))
	if err != nil {
		return nil, err
	}
	defer plain.Close()
	n, err := io.Copy(spool, io.LimitReader(plain, maxSpool+1))
	if err == nil && n > maxSpool {
		err = fmt.Errorf("more than %d bytes uncompressed", int64(maxSpool))
	}
	return io.NewSectionReader(spool, 0, n), err
}

// maxSpool is the largest tarball, in bytes uncompressed, for random access.
const maxSpool = 1<<33 - 1
