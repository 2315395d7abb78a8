// Package pkgread reads rpm and deb packages without rpm or dpkg. It validates
// everything that it reads and bounds the time and memory that a package can cost.
package pkgread

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"iter"
	"os"
	"path"
	"strings"
	"syscall"

	"pretag/build/internal/contextio"
	"pretag/build/internal/decompress"
)

// Limits on what a package may declare.
const (
	maxEntries  = 1 << 18  // files; Runner's own packages have about 100
	maxPath     = 4096     // bytes of a file's path (PATH_MAX of Linux, limits.h)
	maxUnpacked = 64 << 30 // bytes of all files
	maxMetadata = 64 << 20 // bytes of the control files of a deb
)

// Metadata is what a package says about itself. Relations and scripts have the
// format's own names in lower case: requires, depends, postinst, postin.
type Metadata struct {
	Format      string              `json:"format"` // rpm, deb
	Name        string              `json:"name"`
	Epoch       string              `json:"epoch,omitempty"`
	Version     string              `json:"version"` // without the release
	Release     string              `json:"release,omitempty"`
	Arch        string              `json:"arch"`
	Summary     string              `json:"summary"`
	Description string              `json:"description,omitempty"`
	License     string              `json:"license,omitempty"` // rpm
	Section     string              `json:"section,omitempty"` // rpm: Group
	Maintainer  string              `json:"maintainer,omitempty"`
	Vendor      string              `json:"vendor,omitempty"`
	Homepage    string              `json:"homepage,omitempty"`
	Compression string              `json:"compression"` // of the payload
	Relations   map[string][]string `json:"relations,omitempty"`
	Scripts     map[string]string   `json:"scripts,omitempty"`
	Signatures  []Signature         `json:"signatures,omitempty"`
}

// A Signature is one that a package carries. It is not checked here.
type Signature struct {
	Place string `json:"place"` // rpm: header, header and payload; deb: _gpgorigin, ...
	Data  []byte `json:"-"`     // the OpenPGP packets, armored or not

	// Signed returns a reader of the signed bytes, which works until the package is closed.
	Signed func() io.Reader `json:"-"`
}

// An Entry is one file, directory or link in a package.
type Entry struct {
	Path   string      `json:"path"` // absolute and clean
	Mode   fs.FileMode `json:"mode"`
	Size   int64       `json:"size"` // bytes; 0 for all but regular files
	Owner  string      `json:"owner"`
	Group  string      `json:"group"`
	MTime  int64       `json:"mtime"` // seconds since 1970
	Link   string      `json:"link,omitempty"`
	Hard   bool        `json:"hard,omitempty"`   // Link is a path in the package; there is no Body
	Config bool        `json:"config,omitempty"` // the package manager keeps the admin's changes

	// Body is the content of a regular file until the iterator goes on. If the package
	// has a digest of it, reading to the end fails unless the digest matches.
	Body io.Reader `json:"-"`
}

// A Reader reads one package from front to back.
type Reader struct {
	Metadata
	ctx      context.Context
	file     *os.File
	contents func(yield func(Entry, error) bool)
	release  func() error
}

// ErrFormat is the error of Open for a file that is not a package.
var ErrFormat = errors.New("neither an rpm nor a deb")

// Open reads the metadata of the package at path. The content, not the name, decides
// the format. The Reader reads until ctx ends.
func Open(ctx context.Context, path string) (*Reader, error) {
	// O_NONBLOCK: opening a FIFO would wait for a writer
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	r := &Reader{ctx: ctx, file: f, release: func() error { return nil }}
	if err := r.open(); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, unexpected(err)), r.Close())
	}
	return r, nil
}

func (r *Reader) open() error {
	info, err := r.file.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return errors.New("not a regular file")
	}
	head := make([]byte, 8)
	_, err = r.file.ReadAt(head, 0)
	switch {
	case err != nil && !errors.Is(err, io.EOF):
		return err
	case bytes.HasPrefix(head, rpmMagic()):
		return r.openRPM(info.Size())
	case string(head) == arMagic:
		return r.openDeb(info.Size())
	}
	return ErrFormat
}

// Sum returns the size and the SHA-256 digest of the package's file, the one that
// was opened.
func (r *Reader) Sum() (size int64, hex string, err error) {
	digest := sha256.New()
	size, err = io.Copy(digest, contextio.NewReader(r.ctx, io.NewSectionReader(r.file, 0, 1<<63-1)))
	return size, fmt.Sprintf("%x", digest.Sum(nil)), err
}

// Close closes the package's file.
func (r *Reader) Close() error { return errors.Join(r.release(), r.file.Close()) }

// Contents yields everything in the package once, in the package's order. A
// loop that runs to its end without an error has seen all of it, with every
// digest checked. The first error is the last thing yielded.
func (r *Reader) Contents() iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		var (
			seen  = map[string]bool{}
			total int64
			done  bool
		)
		r.contents(func(e Entry, err error) bool {
			if err == nil {
				err = admit(&e, seen, &total)
			}
			if err != nil {
				done = true
				yield(Entry{}, fmt.Errorf("%s: %w", r.file.Name(), unexpected(err)))
				return false
			}
			if done = !yield(e, nil); done {
				return false
			}
			if e.Body != nil {
				if _, err := io.Copy(io.Discard, e.Body); err != nil {
					done = true
					yield(Entry{}, fmt.Errorf("%s: %s: %w", r.file.Name(), e.Path, unexpected(err)))
					return false
				}
			}
			return true
		})
	}
}

// admit makes an entry's path absolute and refuses what no package needs.
func admit(e *Entry, seen map[string]bool, total *int64) error {
	clean := path.Clean("/" + e.Path)
	for part := range strings.SplitSeq(e.Path, "/") {
		if part == ".." {
			return fmt.Errorf("path %.200q contains \"..\"", e.Path)
		}
	}
	switch {
	case len(e.Path) > maxPath:
		return fmt.Errorf("path %.200q... has %d bytes, at most %d are allowed", clean, len(e.Path), maxPath)
	case e.Size < 0:
		return fmt.Errorf("%s: size %d is negative", clean, e.Size)
	case seen[clean]:
		return fmt.Errorf("%s is in the package twice", clean)
	case len(seen) == maxEntries:
		return fmt.Errorf("more than %d files", maxEntries)
	case *total > maxUnpacked-e.Size:
		return fmt.Errorf("%s: files of more than %d bytes in all", clean, int64(maxUnpacked))
	}
	e.Path, seen[clean] = clean, true
	*total += e.Size
	return nil
}

// unexpected turns io.EOF, which looks like a regular end, into io.ErrUnexpectedEOF.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// payload begins to decompress a payload. It returns its compression, which must be
// the one that the package names if it names one.
func (r *Reader) payload(raw io.Reader, named string) (plain io.Reader, compression string, err error) {
	open := decompress.NewReader
	if named == string(decompress.LZMA) {
		open = decompress.NewLZMA
	}
	d, err := open(raw)
	if err != nil {
		return nil, "", err
	}
	previous := r.release
	r.release = func() error { return errors.Join(d.Close(), previous()) }
	if compression = string(d.Format); named != "" && compression != named {
		return nil, "", fmt.Errorf("payload is %s, want %s as the package says", compression, named)
	}
	return contextio.NewReader(r.ctx, d), compression, nil
}

// A body is the content of one file: all of its bytes or an error.
type body struct {
	r      io.Reader
	left   int64
	digest hash.Hash // nil if the package has none
	want   string    // hex
}

func (b *body) Read(p []byte) (int, error) {
	if b.left == 0 {
		if b.digest != nil {
			if got := fmt.Sprintf("%x", b.digest.Sum(nil)); got != b.want {
				return 0, fmt.Errorf("digest %s, want %s as the package says", got, b.want)
			}
		}
		return 0, io.EOF
	}
	n, err := b.r.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	if b.digest != nil {
		b.digest.Write(p[:n])
	}
	if errors.Is(err, io.EOF) {
		err = nil
		if b.left > 0 {
			err = io.ErrUnexpectedEOF
		}
	}
	return n, err
}

// bounded reads all of r, at most maxMetadata bytes.
func bounded(r io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxMetadata+1))
	if err == nil && len(data) > maxMetadata {
		err = fmt.Errorf("more than %d bytes", maxMetadata)
	}
	return data, err
}
