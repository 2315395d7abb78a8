// Package decompress decompresses a stream. The content decides what format the
// stream has. The package bounds the memory that the stream can ask for, and its
// errors say where in the input a stream is broken.
package decompress

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/therootcompany/xz"
)

// A Format is a compression format, by its usual file extension; None is plain.
type Format string

// The formats that NewReader knows.
const (
	None  Format = "none"
	Gzip  Format = "gzip"
	XZ    Format = "xz"
	Zstd  Format = "zstd"
	Bzip2 Format = "bzip2"
)

// MaxWindow is the largest history, in bytes, that an input may ask for: an xz
// dictionary or a zstd window. 7-Zip's -mx8 takes as much for root filesystems
// above 192 MiB (7-Zip 26.02, C/LzmaEnc.c, LzmaEncProps_Normalize).
const MaxWindow = 256 << 20

// A stream may grow to maxGrowth times its size once it has more than freeGrowth
// bytes. Root filesystems grow to some 4 times their size. Zeros grow to 1,000
// times in gzip and to more in the other formats: such a stream is a bomb.
const (
	freeGrowth = 512 << 20
	maxGrowth  = 250
)

// magics are the first bytes of each format.
func magics() map[Format][]byte {
	return map[Format][]byte{
		Gzip:  {0x1f, 0x8b, 8},               // RFC 1952 2.3
		XZ:    {0xfd, '7', 'z', 'X', 'Z', 0}, // xz file format 1.2.0, 2.1.1.1
		Zstd:  {0x28, 0xb5, 0x2f, 0xfd},      // RFC 8878 3.1.1
		Bzip2: {'B', 'Z', 'h'},               // bzip2 1.0.8, compress.c
	}
}

// Detect returns the format of a stream that begins with head, which should have
// six bytes.
func Detect(head []byte) Format {
	for format, magic := range magics() {
		if bytes.HasPrefix(head, magic) {
			return format
		}
	}
	// Skippable frames, 0x184D2A50 to 0x184D2A5F, may come first (RFC 8878 3.1.2).
	if len(head) >= 4 && head[0]&0xf0 == 0x50 && head[1] == 0x2a && head[2] == 0x4d && head[3] == 0x18 {
		return Zstd
	}
	return None
}

// Decoders keeps decoders, with the memory that they hold, from one stream to
// the next. The zero value is ready; nil keeps nothing. Not for concurrent use.
type Decoders struct {
	xz   []*xz.Reader
	zstd []*zstd.Decoder
}

// A Reader is the plain stream. Its end is that of the input: data after the stream is
// an error. Close releases the decoder, not the input.
type Reader struct {
	Format  Format
	plain   io.Reader
	read    int64 // bytes of plain
	input   *counter
	head    []byte // of the input
	release func()
	err     error
}

// NewReader begins to read r with a decoder of its own.
func NewReader(r io.Reader) (*Reader, error) {
	return (*Decoders)(nil).NewReader(r)
}

// NewReader begins to read r. Closing the reader returns its decoder to d.
func (d *Decoders) NewReader(r io.Reader) (*Reader, error) {
	if d == nil {
		d = &Decoders{}
	}
	input := &counter{r: r}
	buffered := bufio.NewReaderSize(input, 256<<10)
	head, err := buffered.Peek(maxHead)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if err := unsupported(head); err != nil {
		return nil, err
	}
	err = nil // the decoder rejects what is too short
	reader := &Reader{Format: Detect(head), input: input, head: bytes.Clone(head), release: func() {}}
	switch reader.Format {
	case None:
		reader.plain = buffered
	case Bzip2:
		reader.plain = bzip2.NewReader(buffered)
	case Gzip:
		reader.plain, err = newGzipReader(buffered)
	case XZ:
		err = d.useXZ(reader, buffered)
	case Zstd:
		err = d.useZstd(reader, buffered)
	}
	if err != nil {
		reader.release()
		return nil, reader.explain(err)
	}
	return reader, nil
}

func (d *Decoders) useXZ(reader *Reader, input io.Reader) error {
	decoder, err := take(&d.xz, func() (*xz.Reader, error) { return xz.NewReader(nil, MaxWindow) })
	if err != nil {
		return err
	}
	reader.plain, reader.release = xzReader{decoder}, func() { d.xz = append(d.xz, decoder) }
	err = decoder.Reset(input)
	decoder.Multistream(false)
	return err
}

func (d *Decoders) useZstd(reader *Reader, input io.Reader) error {
	decoder, err := take(&d.zstd, func() (*zstd.Decoder, error) {
		return zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(MaxWindow), zstd.WithDecoderLowmem(true))
	})
	if err != nil {
		return err
	}
	reader.plain, reader.release = decoder, func() { d.zstd = append(d.zstd, decoder) }
	return decoder.Reset(input)
}

// take takes a kept decoder, or makes one.
func take[T any](kept *[]T, decoder func() (T, error)) (T, error) {
	last := len(*kept) - 1
	if last < 0 {
		return decoder()
	}
	taken := (*kept)[last]
	*kept = (*kept)[:last]
	return taken, nil
}

// Read fails with the input's offset, in bytes, and what is wrong there.
func (d *Reader) Read(p []byte) (int, error) {
	if d.err != nil {
		return 0, d.err
	}
	n, err := d.plain.Read(p)
	d.read += int64(n)
	switch {
	case err != nil && !errors.Is(err, io.EOF):
		err = d.explain(err)
	case d.read > freeGrowth && d.read/maxGrowth > d.input.n:
		err = fmt.Errorf("offset %d: the %s stream grows to more than %d times its size", d.input.n, d.Format, maxGrowth)
	}
	d.err = err
	return n, err
}

// Close releases the decoder.
func (d *Reader) Close() error {
	d.release()
	d.release = func() {}
	return nil
}

func (d *Reader) explain(err error) error {
	switch {
	case d.input.err != nil: // the input itself could not be read
		return d.input.err
	case errors.Is(err, errTrailing):
		return fmt.Errorf("offset %d: %w", d.input.n, err)
	case errors.Is(err, zstd.ErrMagicMismatch), errors.Is(err, errAfterBzip2): // NewReader has seen the first magic number
		return fmt.Errorf("near offset %d: other data %w of the %s stream", d.input.n, errTrailing, d.Format)
	case errors.Is(err, xz.ErrData) && d.input.eof && d.input.n > maxHead: // only padding is read up to the end of the input
		return fmt.Errorf("offset %d: zero bytes %w of the xz stream, and their number is not a multiple of 4", d.input.n, errTrailing)
	case errors.Is(err, xz.ErrOptions), errors.Is(err, xz.ErrUnsupportedCheck):
		return fmt.Errorf("unsupported xz stream: it uses %s. Compress it again: xz -dc FILE | xz > NEW", xzFeature(d.head))
	case errors.Is(err, zstd.ErrUnknownDictionary):
		return errors.New("unsupported zstd stream: it needs a dictionary. Compress it again without one: zstd -dc -D DICTIONARY FILE | zstd > NEW")
	case errors.Is(err, xz.ErrMemlimit), errors.Is(err, zstd.ErrWindowSizeExceeded), errors.Is(err, zstd.ErrDecoderSizeExceeded):
		return fmt.Errorf("the %s stream asks for more than %d MiB of history", d.Format, MaxWindow>>20)
	case errors.Is(err, io.ErrUnexpectedEOF), d.input.eof && errors.Is(err, xz.ErrBuf):
		return fmt.Errorf("offset %d: %w (truncated %s stream)", d.input.n, io.ErrUnexpectedEOF, d.Format)
	}
	return fmt.Errorf("near offset %d: corrupt %s stream: %w", d.input.n, d.Format, err)
}

// counter remembers how far the input was read and how that ended.
type counter struct {
	r   io.Reader
	n   int64
	eof bool
	err error
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	if errors.Is(err, io.EOF) {
		c.eof = true
	} else if err != nil {
		c.err = err
	}
	return n, err
}
