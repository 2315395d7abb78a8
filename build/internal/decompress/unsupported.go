package decompress

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/therootcompany/xz"
)

// maxHead is how much of a stream is looked at before it is decompressed: an xz
// stream header and the most of a block header that matters.
const maxHead = 64

// unsupported reports a format that is known but not read. No tar file begins like these.
func unsupported(head []byte) error {
	for _, format := range []struct{ magic, name, program string }{
		{"\x04\x22\x4d\x18", "lz4", "lz4 -dc"},          // lz4 v1.9.4, doc/lz4_Frame_format.md
		{"\x02\x21\x4c\x18", "old lz4", "lz4 -dc"},      // same, "Legacy frame"
		{"LZIP\x01", "lzip", "lzip -dc"},                // lzip 1.23 manual, "File format"
		{"\x1f\x9d", "compress (.Z)", "gzip -dc"},       // ncompress 4.2.4, compress.c
		{"\x89LZO\x00\x0d\x0a\x1a", "lzop", "lzop -dc"}, // lzop 1.04, lzop.c
	} {
		if bytes.HasPrefix(head, []byte(format.magic)) {
			return fmt.Errorf("%s compression is not supported. Decompress it first: %s FILE > NEW", format.name, format.program)
		}
	}
	return nil
}

// xzFeature names what is not supported in an xz stream that begins with head
// (xz file format 1.2.1, 3.1 and 5.3).
func xzFeature(head []byte) string {
	names := map[uint64]string{0x0a: "the ARM64 filter, which newer versions of 7-Zip choose by themselves", 0x0b: "the RISC-V filter"}
	const streamHeader = 12
	if len(head) > streamHeader+2 {
		flags, rest := head[streamHeader+1], head[streamHeader+2:]
		number := func() uint64 {
			n, size := binary.Uvarint(rest)
			rest = rest[max(size, 0):]
			return n
		}
		for _, present := range []byte{0x40, 0x80} { // the sizes of the block
			if flags&present != 0 {
				number()
			}
		}
		for range flags&3 + 1 {
			if name, ok := names[number()]; ok {
				return name
			}
			rest = rest[min(number(), uint64(len(rest))):] // properties
		}
	}
	return "a filter or an option that is not supported"
}

// errTrailing is wrapped by errors about what follows a stream.
var errTrailing = errors.New("after the end")

// errAfterBzip2 is what package bzip2 calls what follows a stream.
const errAfterBzip2 = bzip2.StructuralError("bad magic value in continuation file")

// An xzReader reads the streams of an xz file one after the other.
type xzReader struct{ *xz.Reader }

func (x xzReader) Read(p []byte) (int, error) {
	for {
		n, err := x.Reader.Read(p)
		if err != io.EOF {
			return n, err
		}
		err = x.Reset(nil) // to the next stream
		x.Multistream(false)
		if errors.Is(err, xz.ErrFormat) || errors.Is(err, xz.ErrBuf) {
			err = fmt.Errorf("other data %w of the xz stream", errTrailing)
		}
		if err != nil || n > 0 {
			return n, err
		}
	}
}

// A gzipReader reads the members of a gzip file one after the other. The reader
// of package gzip calls anything that follows them corrupt.
type gzipReader struct {
	*gzip.Reader
	input *bufio.Reader // implements io.ByteReader, so that no member reads too far
}

func newGzipReader(input *bufio.Reader) (*gzipReader, error) {
	member, err := gzip.NewReader(input)
	if err != nil {
		return nil, err
	}
	member.Multistream(false)
	return &gzipReader{member, input}, nil
}

func (g *gzipReader) Read(p []byte) (int, error) {
	for {
		n, err := g.Reader.Read(p)
		if err != io.EOF {
			return n, err
		}
		if err := g.next(); err != nil || n > 0 {
			return n, err
		}
	}
}

// next goes to the next member. It returns io.EOF if the input ends.
func (g *gzipReader) next() error {
	head, err := g.input.Peek(2)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	switch {
	case len(head) == 0:
		return io.EOF
	case len(head) == 1 && head[0] == 0x1f, bytes.HasPrefix(head, magics()[Gzip][:2]):
		err := g.Reset(g.input)
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		g.Multistream(false)
		return err
	}
	zeros := 0
	for {
		c, err := g.input.ReadByte()
		switch {
		case errors.Is(err, io.EOF):
			return fmt.Errorf("%d zero bytes %w of the gzip stream. Remove them: gzip -dc FILE | gzip > NEW", zeros, errTrailing)
		case err != nil:
			return err
		case c != 0:
			return fmt.Errorf("other data %w of the gzip stream", errTrailing)
		}
		zeros++
	}
}
