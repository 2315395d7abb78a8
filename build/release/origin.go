package release

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
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

// ReadOrigin reads the record of tarball. Unknown keys are ignored. If there is
// no record, the error is fs.ErrNotExist.
func ReadOrigin(tarball string) (Origin, error) {
	name := tarball + OriginSuffix
	data, err := os.ReadFile(name)
	if err != nil {
		return Origin{}, err
	}
	var o Origin
	scanner := bufio.NewScanner(bytes.NewReader(data))
	for line := 1; scanner.Scan(); line++ {
		key, value, ok := strings.Cut(scanner.Text(), "=")
		if !ok {
			return Origin{}, fmt.Errorf("%s: line %d: %q is not KEY=value", name, line, scanner.Text())
		}
		switch key {
		case "source":
			o.Source = value
		case "digest":
			o.Digest = value
		case "sha256":
			o.SHA256 = value
		case "size":
			if o.Size, err = strconv.ParseInt(value, 10, 64); err != nil {
				return Origin{}, fmt.Errorf("%s: line %d: size %q: want a number of bytes", name, line, value)
			}
		}
	}
	if err := scanner.Err(); err != nil {
		return Origin{}, fmt.Errorf("%s: %w", name, err)
	}
	return o, nil
}

// Write writes o as the record of tarball, atomically.
func (o Origin) Write(tarball string) error {
	var text bytes.Buffer
	fmt.Fprintf(&text, "source=%s\n", o.Source)
	if o.Digest != "" {
		fmt.Fprintf(&text, "digest=%s\n", o.Digest)
	}
	fmt.Fprintf(&text, "size=%d\nsha256=%s\n", o.Size, o.SHA256)
	return atomicfile.WriteBytes(tarball+OriginSuffix, text.Bytes())
}

// OriginOf returns the origin of tarball, or the zero Origin if there is no
// tarball. A tarball without a record, or with one that does not match it, was
// not fetched by pretag: it must not be replaced, so it is an error.
func OriginOf(ctx context.Context, tarball string) (Origin, error) {
	if _, err := os.Lstat(tarball); errors.Is(err, fs.ErrNotExist) {
		return Origin{}, nil
	}
	o, err := ReadOrigin(tarball)
	if errors.Is(err, fs.ErrNotExist) || err == nil && o.Source == "" {
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
