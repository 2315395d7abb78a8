package build

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"pretag/build/archive"
	"pretag/build/catalogue"
	"pretag/build/image"
	"pretag/build/source"
)

// An Inspection is what a file was found to hold.
type Inspection struct {
	File        string     `json:"file"`
	Helper      string     `json:"helper,omitempty"` // by the file's name
	Layout      string     `json:"layout"`           // rootfs, oci-archive, docker-archive, rpm, deb
	Size        int64      `json:"size"`             // bytes
	SHA256      string     `json:"sha256"`
	Compression string     `json:"compression,omitempty"`
	RepoTags    []string   `json:"repoTags,omitempty"`
	Platform    string     `json:"platform,omitempty"`
	ImageID     string     `json:"imageID,omitempty"`
	Digest      string     `json:"digest,omitempty"` // of the manifest of an oci-archive
	DiffIDs     []string   `json:"diffIDs,omitempty"`
	Unpacked    int64      `json:"unpackedSize,omitempty"` // sum of the plain layers, bytes
	Config      *v1.Config `json:"config,omitempty"`
	Problems    []string   `json:"problems"`
}

// Inspect prints what an archive, a helper tarball, an rpm or a deb holds, as
// text or as JSON. A file in which something is wrong is an error.
func Inspect(ctx context.Context, c Config, file string, asJSON bool, ui *UI) error {
	found, err := inspect(ctx, c.Catalogue, file)
	if err != nil {
		return err
	}
	if asJSON {
		err = found.writeJSON(ui.Out)
	} else {
		err = found.writeText(ui.Out)
	}
	if err == nil && len(found.Problems) > 0 {
		err = fmt.Errorf("inspect %s: %d problems", file, len(found.Problems))
	}
	return err
}

// inspect reads the file to its end. Where its name is that of a helper's
// tarball or archive, it is held against the helper.
func inspect(ctx context.Context, c *catalogue.Catalogue, file string) (*Inspection, error) {
	h, known := named(c, filepath.Base(file))
	img, err := source.Open(file, h.Platform, os.TempDir(), nil)
	if err != nil {
		return nil, err
	}
	defer img.Close()
	found := &Inspection{
		File: file, Layout: string(img.Layout), Compression: string(img.Compression), Digest: img.Digest, Problems: []string{},
	}
	if known {
		found.Helper = h.String()
	}
	if img.Layout == source.DockerArchive {
		return found, found.dockerArchive(h, known)
	}
	if err := found.tarball(ctx, img, h, known); err != nil {
		found.problem(err)
	}
	found.Size, found.SHA256, err = img.Sum()
	return found, err
}

// named finds the helper that a file of that name belongs to.
func named(c *catalogue.Catalogue, base string) (catalogue.Helper, bool) {
	for _, h := range c.Helpers() {
		if slices.Contains(h.Inputs(), base) {
			return h, true
		}
	}
	return catalogue.Helper{}, false
}

func (i *Inspection) problem(err error) {
	if err == nil {
		return
	}
	for _, err := range unjoin(err) {
		i.Problems = append(i.Problems, strings.TrimPrefix(err.Error(), i.File+": "))
	}
}

// tarball reads the layers of a root filesystem or an oci-archive.
func (i *Inspection) tarball(ctx context.Context, img *source.Image, h catalogue.Helper, known bool) error {
	spec := archive.Spec{Rootfs: img.Layout == source.Rootfs, GoArch: h.GoArch()}
	for _, layer := range img.Layers {
		spec.Layers = append(spec.Layers, archive.Opener(layer))
	}
	diffIDs, size, err := archive.Examine(ctx, spec)
	if err != nil {
		return err
	}
	i.Unpacked = size
	for _, diffID := range diffIDs {
		i.DiffIDs = append(i.DiffIDs, diffID.String())
	}
	if img.Config == nil {
		return nil
	}
	var config v1.ConfigFile
	if err := json.Unmarshal(img.Config, &config); err != nil {
		return fmt.Errorf("config: %w", err)
	}
	i.Config, i.ImageID = &config.Config, image.ID(img.Config)
	i.Platform = v1.Platform{OS: config.OS, Architecture: config.Architecture, Variant: config.Variant}.String()
	if !known {
		return nil
	}
	_, err = image.Keep(img.Config, h, diffIDs)
	return err
}

// dockerArchive reads a docker-archive as engines do, and doubts it.
func (i *Inspection) dockerArchive(h catalogue.Helper, known bool) error {
	c, err := archive.Read(i.File)
	if err != nil {
		return err
	}
	i.Size, i.SHA256, i.Compression = c.Size, c.SHA256, c.Compression()
	i.RepoTags, i.ImageID, i.DiffIDs, i.Unpacked = c.RepoTags, c.ImageID, c.DiffIDs, c.UnpackedSize
	i.Platform, i.Config = c.Platform.String(), &c.Config.Config
	i.Problems = append(i.Problems, c.Problems...)
	if known && i.ImageID != "" && c.Platform.String() != h.Platform.String() {
		i.problem(fmt.Errorf("image is for %s, want %s", c.Platform, h.Platform))
	}
	f, err := readRecord(i.File)
	switch {
	case err == nil:
		i.problem(archive.Compare(c, f))
	case !errors.Is(err, fs.ErrNotExist):
		i.problem(err)
	}
	return nil
}

func (i *Inspection) writeJSON(w io.Writer) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	return encoder.Encode(i)
}

func (i *Inspection) writeText(w io.Writer) error {
	var b bytes.Buffer
	line := func(key string, values ...string) {
		for _, value := range values {
			if value != "" {
				fmt.Fprintf(&b, "%-12s %s\n", key, value)
				key = ""
			}
		}
	}
	line("file", i.File)
	line("helper", i.Helper)
	line("layout", strings.TrimSuffix(i.Layout+", "+i.Compression, ", none"))
	line("size", Bytes(i.Size))
	line("sha256", i.SHA256)
	line("RepoTag", i.RepoTags...)
	line("platform", i.Platform)
	line("image ID", i.ImageID)
	line("digest", i.Digest)
	line("diff IDs", i.DiffIDs...)
	if i.Unpacked > 0 {
		line("unpacked", Bytes(i.Unpacked))
	}
	if i.Config != nil {
		line("entrypoint", words(i.Config.Entrypoint))
		line("cmd", words(i.Config.Cmd))
		line("env", i.Config.Env...)
		line("user", i.Config.User)
		line("workdir", i.Config.WorkingDir)
		for _, key := range slices.Sorted(maps.Keys(i.Config.Labels)) {
			line("label", key+"="+i.Config.Labels[key])
		}
	}
	line("PROBLEM", i.Problems...)
	_, err := w.Write(b.Bytes())
	return err
}

// words spells an argument list as JSON does, as Dockerfiles have it.
func words(args []string) string {
	if len(args) == 0 {
		return ""
	}
	quoted := make([]string, len(args))
	for i, arg := range args {
		quoted[i] = strconv.Quote(arg)
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}
