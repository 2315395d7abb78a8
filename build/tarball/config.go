package tarball

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"pretag/build/catalogue"
	"pretag/build/internal/oci"
	"pretag/build/internal/platform"
)

// FromRootfs returns the config of an image whose one layer is a flat root
// filesystem. What the filesystem has lost comes from the catalogue.
func FromRootfs(h catalogue.Helper, diffIDs []v1.Hash, created time.Time) ([]byte, error) {
	at := v1.Time{Time: created.UTC()}
	return json.Marshal(v1.ConfigFile{
		Architecture: h.Platform.Architecture,
		OS:           h.Platform.OS,
		Variant:      h.Platform.Variant,
		Created:      at,
		Config: v1.Config{
			Entrypoint: h.Config.Entrypoint,
			Cmd:        h.Config.Cmd,
			Env:        h.Config.Env,
			User:       h.Config.User,
			WorkingDir: h.Config.WorkingDir,
		},
		RootFS:  v1.RootFS{Type: "layers", DiffIDs: diffIDs},
		History: []v1.History{{Created: at, CreatedBy: "pretag", Comment: "root filesystem of " + h.String()}},
	})
}

// Keep checks the config of an input image against the helper's platform and the
// diff IDs of the layers. It returns the config byte for byte, so that the image
// keeps its ID.
func Keep(config []byte, h catalogue.Helper, diffIDs []v1.Hash) ([]byte, error) {
	c, err := oci.DecodeConfig(config)
	if err != nil {
		return nil, err
	}
	if got := platform.Of(c); !platform.Same(got, h.Platform) {
		return nil, fmt.Errorf("image is for %s, want %s", got, h.Platform)
	}
	if !slices.Equal(c.RootFS.DiffIDs, diffIDs) {
		return nil, fmt.Errorf("layers have diff IDs %v, config says %v", diffIDs, c.RootFS.DiffIDs)
	}
	return config, nil
}

// ID returns the image ID: the digest of the config (OCI image-spec v1.1, config.md).
func ID(config []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(config)) }
