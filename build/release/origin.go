package release

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"pretag/build/internal/atomicfile"
)

// OriginSuffix is appended to the name of an input tarball to name its record:
// where pull or unpack got the tarball.
const OriginSuffix = ".origin"

// An Origin is the record of an input tarball that pretag fetched. It is a file
// of KEY=value lines next to the tarball.
type Origin struct {
	Source string // a reference with its digest, or a package with its sha256
	Digest string // of the image's manifest, sha256:<hex>; "" if the tarball has none
	Size   int64  // of the tarball, bytes
	SHA256 string // of the tarball, hex
}

func (o *Origin) lines() []line {
	return []line{{"source", &o.Source}, {"digest", &o.Digest}, {"size", &o.Size}, {"sha256", &o.SHA256}}
}

// ReadOrigin reads the record of tarball. If there is none, the error is fs.ErrNotExist.
func ReadOrigin(tarball string) (Origin, error) {
	f, err := os.Open(tarball + OriginSuffix)
	if err != nil {
		return Origin{}, err
	}
	defer f.Close()
	var o Origin
	if err := parseLines(f, o.lines(), "source", "size", "sha256"); err != nil {
		return Origin{}, fmt.Errorf("%s: %w", f.Name(), err)
	}
	return o, nil
}

// Write writes o as the record of tarball, atomically.
func (o Origin) Write(tarball string) error {
	return atomicfile.WriteBytes(tarball+OriginSuffix, formatLines(o.lines()))
}

// OriginOf returns the origin of tarball, or the zero Origin if there is no
// tarball. A tarball without a record, or with one that does not match it, was
// not fetched by pretag: it must not be replaced, so it is an error.
func OriginOf(ctx context.Context, tarball string) (Origin, error) {
	if _, err := os.Lstat(tarball); errors.Is(err, fs.ErrNotExist) {
		return Origin{}, nil
	}
	o, err := ReadOrigin(tarball)
	if errors.Is(err, fs.ErrNotExist) {
		return Origin{}, fmt.Errorf("%s already exists and was not fetched by pretag; move it away", tarball)
	}
	if err != nil {
		return Origin{}, err
	}
	same, err := o.Describes(ctx, tarball)
	if err == nil && !same {
		err = fmt.Errorf("%s does not match its record %s; remove both", tarball, tarball+OriginSuffix)
	}
	return o, err
}

// Describes reports whether tarball has the size and the sha256 of o.
func (o Origin) Describes(ctx context.Context, tarball string) (bool, error) {
	info, err := os.Stat(tarball)
	if err != nil || info.Size() != o.Size {
		return false, err
	}
	sum, err := SHA256File(ctx, tarball)
	return sum == o.SHA256, err
}

// Tag returns the tag of the reference that the tarball was pulled as, or "" if
// it was not pulled.
func (o Origin) Tag() string {
	reference, _, _ := strings.Cut(o.Source, "@")
	if !strings.Contains(reference, "/") { // a package's file name
		return ""
	}
	return reference[strings.LastIndexByte(reference, ':')+1:]
}

// SourceOf returns where tarball came from, or "" if it has no record or if the
// record describes other bytes than in.
func SourceOf(tarball string, in Input) (string, error) {
	o, err := ReadOrigin(tarball)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", nil
	case err != nil:
		return "", err
	case o.SHA256 != in.SHA256:
		return "", nil
	case o.Digest != "" && o.Digest != in.Digest:
		return "", fmt.Errorf("%s: digest is %s, %s%s says %s", tarball, in.Digest, tarball, OriginSuffix, o.Digest)
	}
	return o.Source, nil
}
