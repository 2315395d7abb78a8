package archive

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"regexp"
	"slices"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"pretag/build/internal/stricttar"
)

// A Compression says how an archive is encoded, as ARCHIVE_COMPRESSION spells it:
// zstd[:level] around the whole archive, gzip inside around each layer, or none.
type Compression struct {
	Method string // "zstd", "gzip", "none"
	Level  string // of zstd: one of Levels
}

// Levels lists the zstd levels, cheapest first.
func Levels() []string { return []string{"fastest", "default", "better", "best", "ultra"} }

// window is the zstd window in bytes: the largest that docker (moby v28.5.2,
// klauspost/compress), podman (containers/storage) and skopeo all read.
const window = 128 << 20

// ParseCompression reads ARCHIVE_COMPRESSION. zstd alone means zstd:best.
func ParseCompression(s string) (Compression, error) {
	method, level, hasLevel := strings.Cut(s, ":")
	switch {
	case (method == "gzip" || method == "none") && !hasLevel:
		return Compression{Method: method}, nil
	case method == "zstd" && !hasLevel:
		return Compression{"zstd", "best"}, nil
	case method == "zstd" && slices.Contains(Levels(), level):
		return Compression{method, level}, nil
	}
	return Compression{}, fmt.Errorf("%q: want zstd[:%s], gzip or none", s, strings.Join(Levels(), "|"))
}

// String returns the form that ParseCompression reads.
func (c Compression) String() string {
	if c.Level == "" {
		return c.Method
	}
	return c.Method + ":" + c.Level
}

// Program returns the program that encodes, with its version, or "" if there is none
// or it is not installed.
func (c Compression) Program() string {
	if c.Level != "ultra" {
		return ""
	}
	out, err := exec.Command("zstd", "--version").Output()
	if err != nil {
		return ""
	}
	return "zstd/" + string(regexp.MustCompile(`[0-9]+(\.[0-9]+)+`).Find(out))
}

// An encoder writes the parts of an archive.
type encoder interface {
	// header encodes a tar header block. The length does not depend on what is in the
	// block, so that another one can be written over it.
	header(block []byte) []byte
	// body encodes a member that fill writes, padded to whole blocks. It returns what
	// fill returns and the size for the tar header.
	body(out io.Writer, fill func(io.Writer) (int64, error)) (filled, size int64, err error)
	// tail writes the rest of the tar file.
	tail(out io.Writer, rest []byte) error
}

func (c Compression) encoder() (encoder, error) {
	switch {
	case c.Method == "none":
		return plainEncoder{}, nil
	case c.Method == "gzip":
		return gzipEncoder{}, nil
	case c.Level == "ultra":
		path, err := exec.LookPath("zstd")
		if err != nil {
			return nil, fmt.Errorf("zstd:ultra needs the zstd program: %w", err)
		}
		return zstdEncoder{frameByProgram(path)}, nil
	}
	_, level := zstd.EncoderLevelFromString(c.Level)
	z, err := zstd.NewWriter(nil,
		zstd.WithEncoderLevel(level),
		zstd.WithWindowSize(window),
		zstd.WithEncoderConcurrency(1),
	)
	return zstdEncoder{frameBy(z)}, err
}

func pad(w io.Writer, size int64) error {
	_, err := w.Write(make([]byte, -size&(stricttar.BlockSize-1)))
	return err
}

// plainEncoder is a plain tar file.
type plainEncoder struct{}

func (plainEncoder) header(block []byte) []byte { return block }

func (plainEncoder) body(out io.Writer, fill func(io.Writer) (int64, error)) (int64, int64, error) {
	n, err := fill(out)
	if err != nil {
		return n, n, err
	}
	return n, n, pad(out, n)
}

func (plainEncoder) tail(out io.Writer, rest []byte) error {
	_, err := out.Write(rest)
	return err
}

// gzipEncoder is a plain tar file of gzipped layers, for docker below 23.
type gzipEncoder struct{ plainEncoder }

func (gzipEncoder) body(out io.Writer, fill func(io.Writer) (int64, error)) (filled, size int64, err error) {
	counted := &countWriter{w: out}
	z, err := gzip.NewWriterLevel(counted, gzip.BestCompression)
	if err != nil {
		return 0, 0, err
	}
	if filled, err = fill(z); err != nil {
		return filled, 0, err
	}
	if err := z.Close(); err != nil {
		return filled, 0, err
	}
	return filled, counted.n, pad(out, counted.n)
}

type countWriter struct {
	w io.Writer
	n int64
}

func (c *countWriter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// A zstdFrame turns what fill writes into one zstd frame.
type zstdFrame func(out io.Writer, fill func(io.Writer) error) error

// zstdEncoder wraps the whole tar file in zstd: a frame for each layer's header,
// one for each layer, one for the rest. Frames concatenate.
type zstdEncoder struct{ frame zstdFrame }

// header puts the block into a frame of one raw block without a checksum, so
// that it can be patched in place.
func (zstdEncoder) header(block []byte) []byte {
	n := len(block)
	frame := []byte{
		0x28, 0xb5, 0x2f, 0xfd, // magic (RFC 8878 3.1.1)
		1<<6 | 1<<5, // 2-byte content size, single segment (3.1.1.1.1)
		byte(n - 256), byte((n - 256) >> 8),
		byte(n<<3 | 1), byte(n >> 5), byte(n >> 13), // last block, raw (3.1.1.2)
	}
	return append(frame, block...)
}

func (e zstdEncoder) body(out io.Writer, fill func(io.Writer) (int64, error)) (n, size int64, err error) {
	err = e.frame(out, func(w io.Writer) (err error) {
		n, size, err = plainEncoder{}.body(w, fill)
		return err
	})
	return n, size, err
}

func (e zstdEncoder) tail(out io.Writer, rest []byte) error {
	return e.frame(out, func(w io.Writer) error { return plainEncoder{}.tail(w, rest) })
}

// frameBy encodes with z, which keeps its memory between frames.
func frameBy(z *zstd.Encoder) zstdFrame {
	return func(out io.Writer, fill func(io.Writer) error) error {
		z.Reset(out)
		if err := fill(z); err != nil {
			z.Reset(nil) // drop what is left; Close would write it
			return err
		}
		return z.Close()
	}
}

// frameByProgram encodes with the zstd program, for releases where size matters more
// than CPU time. --long=27 is window. One thread, because the bytes depend on the number.
func frameByProgram(program string) zstdFrame {
	return func(out io.Writer, fill func(io.Writer) error) error {
		command := exec.Command(program, "-19", "--long=27", "--single-thread", "--check", "--stdout", "--quiet", "-")
		var stderr bytes.Buffer
		command.Stdout, command.Stderr = out, &stderr
		stdin, err := command.StdinPipe()
		if err != nil {
			return err
		}
		if err := command.Start(); err != nil {
			return err
		}
		fillErr := errors.Join(fill(stdin), stdin.Close())
		if err := command.Wait(); err != nil {
			return fmt.Errorf("%s: %w: %s", program, err, bytes.TrimSpace(stderr.Bytes()))
		}
		return fillErr
	}
}
