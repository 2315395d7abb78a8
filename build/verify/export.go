package verify

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"

	"pretag/build/internal/decompress"
)

// stored is what an engine's store gives out again of an image.
type stored struct {
	ImageID string   // sha256:<hex> of the config's bytes
	DiffIDs []string // sha256:<hex> of the layers' plain bytes, bottom up
}

// readExport reads what an engine exports, a docker-archive, and computes its
// digests from the bytes. Engines differ in how they lay it out: podman links
// layers by a second name, Docker gives each a folder, its containerd store
// names all by digest, and may compress layers.
func readExport(r io.Reader) (stored, error) {
	var (
		digests = map[string]string{} // of plain bytes, by member
		links   = map[string]string{}
		bodies  = map[string][]byte{} // of the small members
	)
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return stored{}, err
		}
		switch h.Typeflag {
		case tar.TypeSymlink:
			links[h.Name] = path.Join(path.Dir(h.Name), h.Linkname)
		case tar.TypeReg:
			if digests[h.Name], bodies[h.Name], err = plainDigest(tr, h.Size); err != nil {
				return stored{}, fmt.Errorf("%s: %w", h.Name, err)
			}
		}
	}
	var manifest []struct {
		Config string
		Layers []string
	}
	if err := json.Unmarshal(bodies["manifest.json"], &manifest); err != nil {
		return stored{}, fmt.Errorf("manifest.json: %w", err)
	}
	if len(manifest) != 1 {
		return stored{}, fmt.Errorf("manifest.json: %d images, want 1", len(manifest))
	}
	s := stored{ImageID: digests[manifest[0].Config]}
	for _, member := range manifest[0].Layers {
		if target, ok := links[member]; ok {
			member = target
		}
		s.DiffIDs = append(s.DiffIDs, digests[member])
	}
	return s, nil
}

// maxSmall is the most bytes of a member that is kept: configs and manifests have some thousand.
const maxSmall = 1 << 20

func plainDigest(r io.Reader, size int64) (digest string, body []byte, err error) {
	sum := sha256.New()
	var kept bytes.Buffer
	if size <= maxSmall {
		r = io.TeeReader(r, &kept)
	}
	plain, err := decompress.NewReader(r)
	if err != nil {
		return "", nil, err
	}
	defer plain.Close()
	_, err = io.Copy(sum, plain)
	return fmt.Sprintf("sha256:%x", sum.Sum(nil)), kept.Bytes(), err
}
