package linuxpkg

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/cavaliergopher/cpio"
	"github.com/goreleaser/nfpm/v2"
	"github.com/klauspost/compress/gzip"

	"pretag/build/internal/rpmheader"
)

// noSourceRPM stands for no source rpm. The tag must be there, or rpm takes the
// package for a source rpm. rpm fills it in like this itself (rpm 4.18, lib/package.c,
// applyRetrofits).
const noSourceRPM = "(none)"

// writeRPM has nfpm write an rpm and corrects three things in it that nfpm 2.45 has
// no field for (see docs/decisions/0001-dependencies.md):
//
//   - The payload's file names begin with "./", as rpmbuild writes them, and not with
//     "/", or rpm2cpio | cpio -id would unpack over the machine's own files.
//   - SOURCERPM does not name a source rpm that does not exist.
//   - Digests and signatures cover the corrected bytes.
//
// An rpm is a lead, the signature header, padding, the header, and the payload, a
// compressed cpio archive (rpm 4.18, docs/manual/format.md).
// The payload is written to a file in the directory temp first, because its digest is
// in the header before it. sign is nil for an unsigned package.
func writeRPM(w io.Writer, packager nfpm.Packager, info *nfpm.Info, temp string, sign func(io.Reader) ([]byte, error)) error {
	level, err := gzipLevel(info.RPM.Compression)
	if err != nil {
		return err
	}
	info.RPM.Compression = "gzip:0" // the payload is compressed below
	pipe, nfpmEnd := io.Pipe()
	defer pipe.Close() // ends nfpm if an error is returned below
	go func() { nfpmEnd.CloseWithError(packager.Package(info, nfpmEnd)) }()

	r := bufio.NewReaderSize(pipe, 1<<20)
	lead := make([]byte, rpmheader.LeadSize)
	if _, err := io.ReadFull(r, lead); err != nil {
		return err
	}
	signature, raw, err := rpmheader.Read(r)
	if err != nil {
		return err
	}
	if _, err := r.Discard(rpmheader.Padding(len(raw))); err != nil {
		return err
	}
	header, _, err := rpmheader.Read(r)
	if err != nil {
		return err
	}

	payload, err := os.CreateTemp(temp, "payload")
	if err != nil {
		return err
	}
	defer os.Remove(payload.Name())
	defer payload.Close()
	digest := sha256.New()
	if err := copyPayload(io.MultiWriter(payload, digest), r, level); err != nil {
		return err
	}
	size, err := payload.Seek(0, io.SeekCurrent)
	if err != nil {
		return err
	}

	header.SetString(rpmheader.TagSourceRPM, noSourceRPM)
	header.SetStrings(rpmheader.TagPayloadDigest, fmt.Sprintf("%x", digest.Sum(nil)))
	main := header.Encode(rpmheader.ImmutableRegion)
	signature.SetInt(rpmheader.SigSize, uint32(int64(len(main))+size))
	signature.SetString(rpmheader.SigSHA256, fmt.Sprintf("%x", sha256.Sum256(main)))
	if sign != nil {
		for tag, signed := range map[uint32]io.Reader{
			rpmheader.SigRSA: bytes.NewReader(main),
			rpmheader.SigPGP: io.MultiReader(bytes.NewReader(main), io.NewSectionReader(payload, 0, size)),
		} {
			made, err := sign(signed)
			if err != nil {
				return err
			}
			signature.SetBytes(tag, made)
		}
	}
	signatures := signature.Encode(rpmheader.SignatureRegion)
	for _, part := range [][]byte{lead, signatures, make([]byte, rpmheader.Padding(len(signatures))), main} {
		if _, err := w.Write(part); err != nil {
			return err
		}
	}
	_, err = io.Copy(w, io.NewSectionReader(payload, 0, size))
	return err
}

// gzipLevel reads a package's rpm.compression: gzip:0 to gzip:9; gzip and nothing mean
// gzip:9, as in nfpm.
func gzipLevel(compression string) (int, error) {
	if compression == "" || compression == "gzip" {
		return gzip.BestCompression, nil
	}
	text, ok := strings.CutPrefix(compression, "gzip:")
	level, err := strconv.Atoi(text)
	if !ok || err != nil || level < gzip.NoCompression || level > gzip.BestCompression {
		return 0, fmt.Errorf("rpm.compression: %q, want gzip:0 to gzip:9", compression)
	}
	return level, nil
}

// copyPayload copies nfpm's payload with the file names that rpmbuild writes.
func copyPayload(w io.Writer, r io.Reader, level int) error {
	plain, err := gzip.NewReader(r)
	if err != nil {
		return fmt.Errorf("payload: %w", err)
	}
	compressor, err := gzip.NewWriterLevel(w, level)
	if err != nil {
		return err
	}
	from, to := cpio.NewReader(plain), cpio.NewWriter(compressor)
	for {
		h, err := from.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("payload: %w", err)
		}
		var body io.Reader = from
		if h.Linkname != "" { // a symbolic link's body is its target, which Next has read
			body, h.Size = strings.NewReader(h.Linkname), int64(len(h.Linkname))
		}
		h.Name = "." + h.Name
		if err := to.WriteHeader(h); err != nil {
			return err
		}
		if _, err := io.Copy(to, body); err != nil {
			return fmt.Errorf("payload: %s: %w", h.Name, err)
		}
	}
	if err := to.Close(); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, plain); err != nil { // to the checksum
		return fmt.Errorf("payload: %w", err)
	}
	return compressor.Close()
}
