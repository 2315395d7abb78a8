package archive

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"regexp"

	"pretag/build/internal/oci"
	"pretag/build/internal/stricttar"
)

// Own reports whether the file at path has the form that only a Writer gives an
// archive. That recognizes pretag's archives even if their records were lost. It reads
// the first bytes of a zstd archive, and the tar headers of others.
func Own(path string) (bool, error) {
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	// Only a Writer puts the tar header of the first layer into its own zstd frame.
	frame := zstdEncoder{}.header(make([]byte, stricttar.BlockSize))
	head := make([]byte, len(frame))
	if _, err := io.ReadFull(f, head); err != nil {
		return false, notEnd(err)
	}
	if block := head[len(head)-stricttar.BlockSize:]; bytes.Equal(head, zstdEncoder{}.header(block)) {
		return isFirstHeader(block), nil
	}
	if !isFirstHeader(head[:stricttar.BlockSize]) {
		return false, nil
	}
	// An uncompressed archive: the layers, the config and manifest.json, in this order.
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return false, err
	}
	layers, rest := 0, ""
	for tr := tar.NewReader(f); ; {
		header, err := tr.Next()
		if err != nil {
			return configThenManifest.MatchString(rest) && errors.Is(err, io.EOF), notEnd(err)
		}
		if rest == "" && header.Name == layerName(layers) && layers < oci.MaxLayers {
			layers++
			continue
		}
		if rest += header.Name + "\n"; len(rest) > 1000 {
			return false, nil
		}
	}
}

// configThenManifest matches the names of an archive's members after the layers.
var configThenManifest = regexp.MustCompile(`^[0-9a-f]{64}\.json\n` + regexp.QuoteMeta(manifestName) + `\n$`)

// isFirstHeader reports whether block is the tar header that a Writer gives the first layer.
func isFirstHeader(block []byte) bool {
	header, err := tar.NewReader(bytes.NewReader(block)).Next()
	if err != nil || header.Name != layerName(0) {
		return false
	}
	want, err := tarHeader(header.Name, header.Size, header.ModTime)
	return err == nil && bytes.Equal(block, want)
}

// notEnd drops an error that says that a file is too short, or not a tar file.
func notEnd(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, tar.ErrHeader) {
		return nil
	}
	return err
}
