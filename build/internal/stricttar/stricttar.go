// Package stricttar reads tar streams to their very end. archive/tar stops at the
// first zero block, or where the input stops between two entries, and returns
// io.EOF for both. Engines do the same and load half an image.
package stricttar

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"strings"
)

// BlockSize is the unit of tar files (POSIX pax, "ustar Interchange Format").
const BlockSize = 512

// Errors for a stream that is not a whole tar file.
var (
	ErrNoEndMarker = errors.New("no end marker (truncated tar)")
	ErrTrailing    = errors.New("data after the end marker")

	errPartial = errors.New("ends within a block (truncated tar)")
	errOrphan  = errors.New("ends with a long name or pax header that no entry follows (truncated tar)")
)

// A Reader is a tar.Reader whose Next returns io.EOF only after the two zero
// blocks that end a tar file, with nothing but zeros up to the end of the input.
type Reader struct {
	*tar.Reader
	source *source
	next   int64 // offset of the header after the last entry; unknown if below zero
	done   error
}

// NewReader reads the tar file r. Bodies are skipped by seeking where r can seek.
func NewReader(r io.Reader) *Reader {
	s := &source{r: r}
	if seeker, ok := r.(io.Seeker); ok {
		if start, err := seeker.Seek(0, io.SeekCurrent); err == nil {
			s.n, s.start = start, start
		}
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
	r.next = after(header, r.source.n-r.source.start)
	return header, nil
}

// after returns where the header of the next entry is, if the body of this one
// begins at offset; or -1 if only archive/tar knows, as for sparse files.
func after(header *tar.Header, offset int64) int64 {
	switch header.Typeflag {
	case tar.TypeLink, tar.TypeSymlink, tar.TypeChar, tar.TypeBlock, tar.TypeDir, tar.TypeFifo, tar.TypeXGlobalHeader:
	case tar.TypeGNUSparse:
		return -1
	default:
		offset += header.Size
	}
	for key := range header.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return -1
		}
	}
	return offset + -offset&(BlockSize-1)
}

// end checks what is where archive/tar saw the end.
func (r *Reader) end() error {
	if r.source.eof { // archive/tar wanted a block that was not there
		return ErrNoEndMarker
	}
	if marker := r.source.n - r.source.start - 2*BlockSize; r.next >= 0 && marker > r.next {
		// archive/tar read blocks that belong to no entry.
		return errOrphan
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
	r     io.Reader
	start int64
	n     int64
	eof   bool
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
