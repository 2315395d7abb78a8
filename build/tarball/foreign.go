package tarball

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"pretag/build/internal/stricttar"
)

// foreign describes a file whose first block is not a tar header.
func foreign(r io.ReaderAt, err error) error {
	head, readErr := io.ReadAll(io.NewSectionReader(r, 0, stricttar.BlockSize))
	if readErr != nil {
		return readErr
	}
	if errors.Is(err, tar.ErrHeader) || errors.Is(err, stricttar.ErrTrailing) || len(head) < stricttar.BlockSize {
		return notTar(head)
	}
	return err
}

// notTar returns an error that says what a file is, by its first bytes, that is not a
// tar file.
func notTar(head []byte) error {
	if len(head) == 0 {
		return errors.New("not a tar file: it is empty once it is decompressed")
	}
	for _, known := range []struct{ magic, what string }{
		{"version https://git-lfs.github.com/spec/", "a git-lfs pointer: fetch the file itself with git lfs pull"},
		{"!<arch>\ndebian", "a deb package: unpack takes the tarballs out"},
		{"\xed\xab\xee\xdb", "an rpm package: unpack takes the tarballs out"},
		{"\x1f\x8b", "compressed twice"},
		{"\xfd7zXZ\x00", "compressed twice"},
		{"\x28\xb5\x2f\xfd", "compressed twice"},
		{"\x5d\x00\x00", "an lzma stream. Decompress it first: xz -dc FILE > NEW"},
		{"PK\x03\x04", "a zip archive"},
		{"7z\xbc\xaf\x27\x1c", "a 7z archive"},
		{"Rar!\x1a\x07", "a rar archive"},
		{"07070", "a cpio archive"},
		{"hsqs", "a squashfs file system"},
		{"\x7fELF", "a program (ELF)"},
		{"-----BEGIN PGP", "a PGP message or signature"},
		{"{", "a JSON document"},
		{strings.Repeat("\x00", len(head)), "a disk image: it begins with zeros"},
	} {
		if bytes.HasPrefix(head, []byte(known.magic)) {
			return fmt.Errorf("not a tar file; it looks like %s", known.what)
		}
	}
	switch looks := http.DetectContentType(head); { // WHATWG MIME sniffing
	case strings.HasPrefix(looks, "text/html"):
		return errors.New("not a tar file; it looks like an HTML page, as servers send with an error or a login form")
	case strings.HasPrefix(looks, "text/"):
		return fmt.Errorf("not a tar file; it looks like text: %.40q", head)
	case looks == "application/octet-stream":
		return fmt.Errorf("not a tar file, nor in another known format; it begins with the bytes %x", head[:min(len(head), 8)])
	default:
		return fmt.Errorf("not a tar file; it looks like %s", looks)
	}
}
