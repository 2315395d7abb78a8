package release

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"pretag/build/internal/contextio"
)

// SHA256File returns the sha256 of a file, in hex. It reads until ctx ends.
func SHA256File(ctx context.Context, path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, contextio.NewReader(ctx, f)); err != nil {
		return "", err
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// SHA256Tree returns the sha256 of each file below dir, in hex, by its
// slash-separated name relative to dir.
func SHA256Tree(ctx context.Context, dir string) (map[string]string, error) {
	sums := map[string]string{}
	err := fs.WalkDir(os.DirFS(dir), ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			sums[name], err = SHA256File(ctx, filepath.Join(dir, name))
		}
		return err
	})
	return sums, err
}

// Sums returns the content of SHA256SUMS for the sha256, in hex, of each file,
// sorted by name.
func Sums(sums map[string]string) []byte {
	var b bytes.Buffer
	for _, file := range slices.Sorted(maps.Keys(sums)) {
		fmt.Fprintf(&b, "%s  %s\n", sums[file], file)
	}
	return b.Bytes()
}

// ReadSums reads SHA256SUMS in the directory out. It returns the sha256, in
// hex, of each file.
func ReadSums(out string) (map[string]string, error) {
	sums := map[string]string{}
	err := parseSums(filepath.Join(out, SumsName), func(name, sum string) error {
		if sums[name] != "" {
			return fmt.Errorf("%s is listed twice", name)
		}
		sums[name] = sum
		return nil
	})
	return sums, err
}

// sumLine is a line of SHA256SUMS (GNU coreutils 9.1, sha256sum, text mode).
var sumLine = regexp.MustCompile(`^([0-9a-f]{64})  (.+)\n?$`)

// parseSums calls add for each line of a file in the form of SHA256SUMS.
func parseSums(file string, add func(name, sum string) error) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	n := 0
	for line := range strings.Lines(string(data)) {
		n++
		fields := sumLine.FindStringSubmatch(line)
		if fields == nil || !filepath.IsLocal(fields[2]) {
			return fmt.Errorf("%s: line %d: %q is not <sha256>  <file>", file, n, strings.TrimSuffix(line, "\n"))
		}
		if err := add(fields[2], fields[1]); err != nil {
			return fmt.Errorf("%s: line %d: %w", file, n, err)
		}
	}
	return nil
}
