package oci

import (
	"encoding/json"
	"fmt"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// ParseConfig parses the config of an image with so many layers.
func ParseConfig(raw []byte, layers int) (*v1.ConfigFile, error) {
	if len(raw) > MaxDocument {
		return nil, fmt.Errorf("config of %d bytes; podman takes at most %d", len(raw), MaxDocument)
	}
	var config v1.ConfigFile
	if err := json.Unmarshal(raw, &config); err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	if got := len(config.RootFS.DiffIDs); got != layers {
		return nil, fmt.Errorf("%d layers, the config has %d diff IDs", layers, got)
	}
	if err := CheckLayers(layers); err != nil {
		return nil, err
	}
	return &config, nil
}

// CheckLayers reports a number of layers that no image may have.
func CheckLayers(n int) error {
	if n == 0 || n > MaxLayers {
		return fmt.Errorf("%d layers, want 1 to %d", n, MaxLayers)
	}
	return nil
}

// ParseDockerManifest parses the manifest.json of a docker-archive, which must
// list one image.
func ParseDockerManifest(raw []byte) (image tarball.Descriptor, err error) {
	var images tarball.Manifest
	if err := json.Unmarshal(raw, &images); err != nil {
		return image, err
	}
	if len(images) != 1 {
		var tags []string
		for _, image := range images[:min(len(images), maxNamed)] {
			tags = append(tags, strings.Join(image.RepoTags, " "))
		}
		return image, fmt.Errorf("%d images, want 1: %.1000q", len(images), tags)
	}
	return images[0], CheckLayers(len(images[0].Layers))
}
