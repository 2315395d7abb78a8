package release

import (
	"fmt"
	"io"
	"os"
)

// An Archive is the record of one docker-archive. Its JSON form is part of
// manifest.json. Its text form (Info) is the file next to the archive, in OUT
// and in the packages, where the loader reads it.
type Archive struct {
	Path string `json:"-"` // where it is on this machine; not recorded

	Helper       string   `json:"helper"`                   // alpine-x86_64
	Name         string   `json:"file"`                     // base name
	Size         int64    `json:"size"`                     // of the archive, bytes
	SHA256       string   `json:"sha256"`                   // of the archive, hex
	RepoTag      string   `json:"repoTag"`                  // the one reference in it
	ImageID      string   `json:"imageID"`                  // sha256:<hex> of the config
	DiffIDs      []string `json:"diffIDs"`                  // sha256:<hex> of each uncompressed layer, bottom up
	Platform     string   `json:"platform"`                 // os/arch[/variant], in Go's words
	UnpackedSize int64    `json:"unpackedSize"`             // sum of the uncompressed layers, bytes
	Compression  string   `json:"compression"`              // as ARCHIVE_COMPRESSION spells it
	Version      string   `json:"runnerVersion"`            // 19.3.0, latest
	Revision     string   `json:"runnerRevision,omitempty"` // below 16.8.0 only
	Created      int64    `json:"sourceDateEpoch"`          // seconds since 1970
	Config       string   `json:"config,omitempty"`         // ConfigAssumed, or "" if it came with the image or is known
	Tool         string   `json:"tool"`                     // what wrote it; equal tools write equal bytes
	Warning      string   `json:"warning,omitempty"`        // something odd that engines accept
	Input        Input    `json:"input"`
}

// ConfigAssumed is the Config of an archive of a flat root filesystem whose
// image config is not public: what was put back is an assumption.
const ConfigAssumed = "assumed"

// An Input describes the tarball that an archive was made from.
type Input struct {
	Name   string `json:"file"`             // base name
	Size   int64  `json:"size"`             // bytes
	SHA256 string `json:"sha256"`           // hex
	Layout string `json:"layout"`           // rootfs, oci-archive, docker-archive
	Digest string `json:"digest,omitempty"` // of the image's manifest, where the layout has one
	Source string `json:"source,omitempty"` // where it came from (a reference, a package), where that is known
}

// InfoSuffix is appended to the name of an archive to name its record.
const InfoSuffix = ".info"

// info lists the lines of the record of f in their order.
func (f *Archive) info() []line {
	return []line{
		{"helper", &f.Helper},
		{"file", &f.Name},
		{"repo_tag", &f.RepoTag},
		{"image_id", &f.ImageID},
		{"diff_ids", &f.DiffIDs},
		{"platform", &f.Platform},
		{"size", &f.Size},
		{"sha256", &f.SHA256},
		{"unpacked_size", &f.UnpackedSize},
		{"compression", &f.Compression},
		{"runner_version", &f.Version},
		{"runner_revision", &f.Revision},
		{"source_date_epoch", &f.Created},
		{"config", &f.Config},
		{"tool", &f.Tool},
		{"warning", &f.Warning},
		{"input_file", &f.Input.Name},
		{"input_size", &f.Input.Size},
		{"input_sha256", &f.Input.SHA256},
		{"input_layout", &f.Input.Layout},
		{"input_digest", &f.Input.Digest},
		{"input_source", &f.Input.Source},
	}
}

// Info returns the record of f as KEY=value lines in a fixed order. Values have
// no quotes, lists are joined by commas, and empty values are left out.
func (f Archive) Info() []byte { return formatLines(f.info()) }

// ParseInfo reads a record. An unknown key, a repeated key or a line that is not
// KEY=value is an error that names the line.
func ParseInfo(r io.Reader) (Archive, error) {
	var f Archive
	if err := parseLines(r, f.info(), "helper", "file", "repo_tag", "image_id", "diff_ids", "platform", "size", "sha256"); err != nil {
		return Archive{}, err
	}
	return f, nil
}

// ReadArchive reads the record of the archive at path.
func ReadArchive(path string) (Archive, error) {
	f, err := os.Open(path + InfoSuffix)
	if err != nil {
		return Archive{}, err
	}
	defer f.Close()
	archive, err := ParseInfo(f)
	if err != nil {
		return Archive{}, fmt.Errorf("%s: %w", f.Name(), err)
	}
	archive.Path = path
	return archive, nil
}
