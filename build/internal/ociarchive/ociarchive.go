// Package ociarchive writes images as oci-archives: an OCI layout in a tar file.
package ociarchive

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"io"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// RefName is the annotation that names an image in an index
// (image-spec v1.1.1, annotations.md).
const RefName = "org.opencontainers.image.ref.name"

// Write writes img, called ref, as an oci-archive. Equal images give equal bytes.
func Write(w io.Writer, img v1.Image, ref string, mtime time.Time) error {
	descriptor, err := partial.Descriptor(img)
	if err != nil {
		return err
	}
	descriptor.Annotations = map[string]string{RefName: ref}
	index, err := json.Marshal(v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: []v1.Descriptor{*descriptor}})
	if err != nil {
		return err
	}
	manifest, err := img.RawManifest()
	if err != nil {
		return err
	}
	config, err := img.RawConfigFile()
	if err != nil {
		return err
	}
	id, err := img.ConfigName()
	if err != nil {
		return err
	}
	layers, err := img.Layers()
	if err != nil {
		return err
	}

	out := writer{tar.NewWriter(w), mtime, map[v1.Hash]bool{}}
	for _, document := range []struct {
		name string
		body []byte
	}{
		{"oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)},
		{"index.json", index},
		{blob(descriptor.Digest), manifest},
		{blob(id), config},
	} {
		if err := out.stream(document.name, int64(len(document.body)), bytes.NewReader(document.body)); err != nil {
			return err
		}
	}
	for _, layer := range layers {
		if err := out.layer(layer); err != nil {
			return err
		}
	}
	return out.tw.Close()
}

func blob(digest v1.Hash) string { return "blobs/" + digest.Algorithm + "/" + digest.Hex }

type writer struct {
	tw    *tar.Writer
	mtime time.Time
	seen  map[v1.Hash]bool // an image may have the same layer twice
}

func (w writer) stream(name string, size int64, body io.Reader) error {
	header := &tar.Header{Name: name, Mode: 0o644, Size: size, ModTime: w.mtime, Format: tar.FormatUSTAR}
	if err := w.tw.WriteHeader(header); err != nil {
		return err
	}
	_, err := io.Copy(w.tw, body)
	return err
}

func (w writer) layer(layer v1.Layer) error {
	digest, err := layer.Digest()
	if err != nil || w.seen[digest] {
		return err
	}
	w.seen[digest] = true
	size, err := layer.Size()
	if err != nil {
		return err
	}
	body, err := layer.Compressed()
	if err != nil {
		return err
	}
	defer body.Close()
	return w.stream(blob(digest), size, body)
}
