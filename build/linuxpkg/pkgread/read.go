// Package pkgread reads rpm and deb packages without rpm or dpkg. It validates
// everything that it reads and bounds the time and memory that a package can cost.
package pkgread

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"iter"
	"os"
	"path"
	"strings"

	"github.com/ulikunitz/xz/lzma"

	"pretag/build/internal/decompress"
)

// Limits on what a package may declare.
const (
	maxEntries  = 1 << 18  // files; Runner's own packages have some 100
	maxPath     = 4096     // bytes of a file's path (PATH_MAX of Linux, limits.h)
	maxUnpacked = 64 << 30 // bytes of all files
	maxMetadata = 64 << 20 // bytes of an rpm header, of a deb's control files
)

// Metadata is what a package says of itself. Relations and scripts go by the
// format's own words in lower case: requires, depends, postinst, postin.
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

// A Signature is one that a package carries; nobody has checked it.
type Signature struct {
	Place string `json:"place"` // rpm: header, header and payload; deb: _gpgorigin, ...
	Data  []byte `json:"-"`     // the OpenPGP packets, armored or not

	// Signed gives the bytes that are signed, until the package is closed.
	Signed func() io.Reader `json:"-"`
}

// An Entry is one file, folder or link in a package.
type Entry struct {
	Path   string      `json:"path"` // absolute and clean
	Mode   fs.FileMode `json:"mode"`
	Size   int64       `json:"size"` // bytes; 0 for all but regular files
	Owner  string      `json:"owner"`
	Group  string      `json:"group"`
	MTime  int64       `json:"mtime"` // seconds since 1970
	Link   string      `json:"link,omitempty"`
	Hard   bool        `json:"hard,omitempty"`   // Link is a path in the package, and there is no body
	Config bool        `json:"config,omitempty"` // the package manager keeps the admin's changes

	// Body is the file's content until the iterator goes on. Where the package
	// has a digest of it, reading to the end fails when that does not match.
	Body io.Reader `json:"-"`
}

// A Reader reads one package from front to back, without rpm or dpkg.
type Reader struct {
	Metadata
	path     string
	file     *os.File
	contents func(yield func(Entry, error) bool)
	release  func() error
}

// ErrFormat is what Open returns for a file that is no package.
var ErrFormat = errors.New("neither an rpm nor a deb")

// Open reads the metadata of the package at path. The format is told by content.
func Open(path string) (*Reader, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	r := &Reader{path: path, file: f, release: func() error { return nil }}
	head := make([]byte, 8)
	_, err = f.ReadAt(head, 0)
	switch {
	case err != nil && !errors.Is(err, io.EOF):
	case bytes.HasPrefix(head, rpmMagic()):
		err = r.openRPM()
	case string(head) == arMagic:
		err = r.openDeb()
	default:
		err = ErrFormat
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, unexpected(err)), r.Close())
	}
	return r, nil
}

// Close releases the package's file.
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
				yield(Entry{}, fmt.Errorf("%s: %w", r.path, unexpected(err)))
				return false
			}
			if done = !yield(e, nil); done {
				return false
			}
			if e.Body != nil {
				if _, err := io.Copy(io.Discard, e.Body); err != nil {
					done = true
					yield(Entry{}, fmt.Errorf("%s: %s: %w", r.path, e.Path, unexpected(err)))
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
			return fmt.Errorf("%q leaves the package", e.Path)
		}
	}
	switch {
	case len(e.Path) > maxPath:
		return fmt.Errorf("%.200s...: a path of %d bytes, at most %d", clean, len(e.Path), maxPath)
	case e.Size < 0:
		return fmt.Errorf("%s: %d bytes", clean, e.Size)
	case seen[clean]:
		return fmt.Errorf("%s: twice in the package", clean)
	case len(seen) == maxEntries:
		return fmt.Errorf("more than %d files", maxEntries)
	case *total > maxUnpacked-e.Size:
		return fmt.Errorf("%s: more than %d bytes in all", clean, int64(maxUnpacked))
	}
	e.Path, seen[clean] = clean, true
	*total += e.Size
	return nil
}

// unexpected makes the end of a package that is not over an error that says so.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// payload begins to decompress a payload of the kind that the package names,
// "" where it names none, and says of which kind it is.
func (r *Reader) payload(raw io.Reader, kind string) (plain io.Reader, is string, err error) {
	if kind == "lzma" { // has no magic number: the package's word must do
		plain, err = lzmaReader(raw)
		return plain, kind, err
	}
	d, err := decompress.NewReader(raw)
	if err != nil {
		return nil, "", err
	}
	previous := r.release
	r.release = func() error { return errors.Join(d.Close(), previous()) }
	if is = string(d.Format); kind != "" && is != kind {
		return nil, "", fmt.Errorf("payload is %s, want %s as the package says", is, kind)
	}
	return d, is, nil
}

// lzmaReader reads the legacy format of LZMA Utils (xz 5.4, doc/lzma-file-format.txt),
// with a bound on the dictionary, which the decoder trusts.
func lzmaReader(raw io.Reader) (io.Reader, error) {
	head := make([]byte, lzma.HeaderLen)
	if _, err := io.ReadFull(raw, head); err != nil {
		return nil, err
	}
	if dictionary := binary.LittleEndian.Uint32(head[1:]); dictionary > decompress.MaxWindow {
		return nil, fmt.Errorf("the lzma stream asks for %d bytes of history, at most %d are given", dictionary, decompress.MaxWindow)
	}
	return lzma.NewReader(io.MultiReader(bytes.NewReader(head), raw))
}

// A body is the content of one file: all of its bytes or an error.
type body struct {
	r      io.Reader
	left   int64
	digest hash.Hash // nil: the package has none
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

// bounded reads all of r, which may not be longer than maxMetadata.
func bounded(r io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxMetadata+1))
	if err == nil && len(data) > maxMetadata {
		err = fmt.Errorf("more than %d bytes", maxMetadata)
	}
	return data, err
}
