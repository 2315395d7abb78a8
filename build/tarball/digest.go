package tarball

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// A digestReader fails at the end of a stream if its sha256 is not want.
type digestReader struct {
	r    io.Reader
	sum  hash.Hash
	want string
}

func newDigestReader(r io.Reader, want v1.Hash) *digestReader {
	return &digestReader{r, sha256.New(), want.Hex}
}

func (d *digestReader) Read(p []byte) (int, error) {
	n, err := d.r.Read(p)
	d.sum.Write(p[:n])
	if errors.Is(err, io.EOF) {
		if got := hex.EncodeToString(d.sum.Sum(nil)); got != d.want {
			return n, fmt.Errorf("digest is sha256:%s, want sha256:%s", got, d.want)
		}
	}
	return n, err
}

// notTar returns an error that says what a file looks like that is not a tar file.
func notTar(head []byte) error {
	looks := http.DetectContentType(head) // WHATWG MIME sniffing
	switch {
	case bytes.HasPrefix(head, []byte("version https://git-lfs.github.com/spec/")):
		looks = "a git-lfs pointer: fetch the file itself with git lfs pull"
	case bytes.HasPrefix(head, []byte("!<arch>\ndebian")):
		looks = "a deb package: unpack takes the tarballs out"
	case bytes.HasPrefix(head, []byte{0xed, 0xab, 0xee, 0xdb}):
		looks = "an rpm package: unpack takes the tarballs out"
	case bytes.HasPrefix(head, []byte("7z\xbc\xaf\x27\x1c")):
		looks = "a 7z archive"
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}), bytes.HasPrefix(head, []byte("\xfd7zXZ\x00")), bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		looks = "compressed twice"
	}
	return fmt.Errorf("not a tar file; it looks like %s", looks)
}
