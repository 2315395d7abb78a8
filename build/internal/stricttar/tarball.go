// Package tarball reads tar streams to their very end. archive/tar stops at the
// first zero block, or where the input happens to stop between two entries, and
// says io.EOF to both; engines do the same and load half an image.
package stricttar

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
)

// BlockSize is the unit of tar files (POSIX pax, "ustar Interchange Format").
const BlockSize = 512

// Errors that end a stream that is no whole tar file.
var (
	ErrNoEndMarker = errors.New("no end marker (truncated tar)")
	ErrTrailing    = errors.New("data after the end marker")

	errPartial = errors.New("ends within a block (truncated tar)")
)

// A Reader is a tar.Reader whose Next returns io.EOF only behind the two zero
// blocks that end a tar file, with nothing but zeros up to the input's end.
type Reader struct {
	*tar.Reader
	source *source
	done   error
}

// NewReader reads the tar file r. Bodies are skipped by seeking where r can seek.
func NewReader(r io.Reader) *Reader {
	s := &source{r: r}
	if seeker, ok := r.(io.Seeker); ok {
		return &Reader{Reader: tar.NewReader(seekableSource{s, seeker}), source: s}
	}
	return &Reader{Reader: tar.NewReader(s), source: s}
}

// Next advances to the next entry.
func (r *Reader) Next() (*tar.Header, error) {
	if r.done != nil {
		return nil, r.done
	}
	header, err := r.Reader.Next()
	if errors.Is(err, io.EOF) {
		err = r.end()
	}
	if err == io.ErrUnexpectedEOF { // archive/tar's own, not what a decoder wraps
		err = fmt.Errorf("%w (truncated tar)", err)
	}
	if err != nil {
		r.done = err
		return nil, err
	}
	return header, nil
}

// end judges what stands where archive/tar saw the end.
func (r *Reader) end() error {
	if r.source.eof { // archive/tar wanted a block that was not there
		return ErrNoEndMarker
	}
	buf := make([]byte, 32<<10)
	for {
		n, err := r.source.Read(buf)
		for i, c := range buf[:n] {
			if c != 0 {
				return fmt.Errorf("%w: byte %#02x at offset %d", ErrTrailing, c, r.source.n-int64(n-i))
			}
		}
		if errors.Is(err, io.EOF) && r.source.n%BlockSize != 0 {
			return errPartial
		}
		if err != nil {
			return err
		}
	}
}

// source counts, and remembers whether more was wanted than there is.
type source struct {
	r   io.Reader
	n   int64
	eof bool
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	s.n += int64(n)
	s.eof = s.eof || n == 0 && errors.Is(err, io.EOF)
	return n, err
}

type seekableSource struct {
	*source
	seeker io.Seeker
}

func (s seekableSource) Seek(offset int64, whence int) (int64, error) {
	n, err := s.seeker.Seek(offset, whence)
	if err == nil {
		s.n = n
	}
	return n, err
}
