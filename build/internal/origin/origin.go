// Package origin is the side file of an input tarball: where the tarball came
// from, in KEY=value lines beside it.
package origin

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"pretag/build/internal/atomicfile"
)

// Suffix is what the side file adds to the tarball's name.
const Suffix = ".info"

// An Origin says where a tarball came from and which bytes that is true of.
type Origin struct {
	Source string // a reference with its digest, or a package with its sha256
	Digest string // of the image's manifest, sha256:<hex>; "" where the tarball has none
	Size   int64  // of the tarball, bytes
	SHA256 string // of the tarball, hex
}

// Read reads the side file of tarball. It passes over keys that it does not
// know: the record of a docker-archive (package archive) has the same name.
// Where there is no side file the error is fs.ErrNotExist.
func Read(tarball string) (Origin, error) {
	name := tarball + Suffix
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

// Write writes o as the side file of tarball, whole or not at all.
func (o Origin) Write(tarball string) error {
	var text bytes.Buffer
	fmt.Fprintf(&text, "source=%s\n", o.Source)
	if o.Digest != "" {
		fmt.Fprintf(&text, "digest=%s\n", o.Digest)
	}
	fmt.Fprintf(&text, "size=%d\nsha256=%s\n", o.Size, o.SHA256)
	return atomicfile.WriteBytes(tarball+Suffix, text.Bytes())
}

// Of returns the origin of tarball, the zero Origin where there is no tarball.
// One that has no side file, or another's, is somebody's own and an error: it
// must not be replaced.
func Of(tarball string) (Origin, error) {
	if _, err := os.Lstat(tarball); errors.Is(err, fs.ErrNotExist) {
		return Origin{}, nil
	}
	o, err := Read(tarball)
	if errors.Is(err, fs.ErrNotExist) || err == nil && o.Source == "" {
		return Origin{}, fmt.Errorf("%s is there and has no side file that says from where: move it away", tarball)
	}
	if err != nil {
		return Origin{}, err
	}
	same, err := o.Describes(tarball)
	if err == nil && !same {
		err = fmt.Errorf("%s is not what %s%s speaks of: move both away", tarball, tarball, Suffix)
	}
	return o, err
}

// Describes reports whether tarball holds the bytes that o speaks of.
func (o Origin) Describes(tarball string) (bool, error) {
	f, err := os.Open(tarball)
	if err != nil {
		return false, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || info.Size() != o.Size {
		return false, err
	}
	hash := sha256.New()
	if _, err := io.Copy(hash, f); err != nil {
		return false, err
	}
	return hex.EncodeToString(hash.Sum(nil)) == o.SHA256, nil
}
