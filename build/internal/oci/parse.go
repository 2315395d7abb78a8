package oci

import (
	"encoding/json"
	"fmt"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// maxHistory is the most steps in the history of an image. They take 30 times their
// bytes in memory. An image has at most MaxLayers steps that made a layer, and a few
// without one for each of these.
const maxHistory = 10_000

// DecodeConfig decodes the config of an image.
func DecodeConfig(raw []byte) (*v1.ConfigFile, error) {
	if len(raw) > MaxDocument {
		return nil, fmt.Errorf("config of %d bytes; podman takes at most %d", len(raw), MaxDocument)
	}
	var steps struct {
		History []struct{} `json:"history"` // takes no memory
	}
	if err := json.Unmarshal(raw, &steps); err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	if n := len(steps.History); n > maxHistory {
		return nil, fmt.Errorf("config: %d steps in the history, at most %d are allowed", n, maxHistory)
	}
	var config v1.ConfigFile
	if err := json.Unmarshal(raw, &config); err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	return &config, nil
}

// ParseConfig decodes the config of an image with so many layers.
func ParseConfig(raw []byte, layers int) (*v1.ConfigFile, error) {
	config, err := DecodeConfig(raw)
	if err != nil {
		return nil, err
	}
	if got := len(config.RootFS.DiffIDs); got != layers {
		return nil, fmt.Errorf("%d layers, the config has %d diff IDs", layers, got)
	}
	if err := checkLayers(layers); err != nil {
		return nil, err
	}
	return config, nil
}

// checkLayers reports a number of layers that no image may have.
func checkLayers(n int) error {
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
	return images[0], checkLayers(len(images[0].Layers))
}
