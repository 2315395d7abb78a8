package release

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
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

// infoField is one KEY=value line of a record: how it is spelled and where it lives.
type infoField struct {
	key string
	get func(*Archive) string
	set func(*Archive, string) error
}

func stringField(key string, at func(*Archive) *string) infoField {
	return infoField{
		key,
		func(f *Archive) string { return *at(f) },
		func(f *Archive, s string) error { *at(f) = s; return nil },
	}
}

func intField(key string, at func(*Archive) *int64) infoField {
	return infoField{
		key,
		func(f *Archive) string { return strconv.FormatInt(*at(f), 10) },
		func(f *Archive, s string) error {
			n, err := strconv.ParseUint(s, 10, 63)
			*at(f) = int64(n)
			return err
		},
	}
}

// infoFields lists the lines of a record in their order. Lists are joined by commas.
func infoFields() []infoField {
	return []infoField{
		stringField("helper", func(f *Archive) *string { return &f.Helper }),
		stringField("file", func(f *Archive) *string { return &f.Name }),
		stringField("repo_tag", func(f *Archive) *string { return &f.RepoTag }),
		stringField("image_id", func(f *Archive) *string { return &f.ImageID }),
		{
			"diff_ids",
			func(f *Archive) string { return strings.Join(f.DiffIDs, ",") },
			func(f *Archive, s string) error { f.DiffIDs = strings.Split(s, ","); return nil },
		},
		stringField("platform", func(f *Archive) *string { return &f.Platform }),
		intField("size", func(f *Archive) *int64 { return &f.Size }),
		stringField("sha256", func(f *Archive) *string { return &f.SHA256 }),
		intField("unpacked_size", func(f *Archive) *int64 { return &f.UnpackedSize }),
		stringField("compression", func(f *Archive) *string { return &f.Compression }),
		stringField("runner_version", func(f *Archive) *string { return &f.Version }),
		stringField("runner_revision", func(f *Archive) *string { return &f.Revision }),
		intField("source_date_epoch", func(f *Archive) *int64 { return &f.Created }),
		stringField("config", func(f *Archive) *string { return &f.Config }),
		stringField("tool", func(f *Archive) *string { return &f.Tool }),
		stringField("warning", func(f *Archive) *string { return &f.Warning }),
		stringField("input_file", func(f *Archive) *string { return &f.Input.Name }),
		intField("input_size", func(f *Archive) *int64 { return &f.Input.Size }),
		stringField("input_sha256", func(f *Archive) *string { return &f.Input.SHA256 }),
		stringField("input_layout", func(f *Archive) *string { return &f.Input.Layout }),
		stringField("input_digest", func(f *Archive) *string { return &f.Input.Digest }),
		stringField("input_source", func(f *Archive) *string { return &f.Input.Source }),
	}
}

// Info returns the record of f as KEY=value lines in a fixed order. Values have
// no quotes, lists are joined by commas, and empty values are left out.
func (f Archive) Info() []byte {
	var b bytes.Buffer
	for _, field := range infoFields() {
		if v := field.get(&f); v != "" {
			fmt.Fprintf(&b, "%s=%s\n", field.key, v)
		}
	}
	return b.Bytes()
}

// maxInfoLine is the longest line of a record, in bytes. The diff IDs of 1000
// layers, the most that an image may have, are 72 kB.
const maxInfoLine = 256 << 10

// ParseInfo reads a record. An unknown key, a repeated key or a line that is not
// KEY=value is an error that names the line.
func ParseInfo(r io.Reader) (Archive, error) {
	var f Archive
	fields := map[string]infoField{}
	for _, field := range infoFields() {
		fields[field.key] = field
	}
	scanner := bufio.NewScanner(r)
	scanner.Buffer(nil, maxInfoLine)
	for line := 1; scanner.Scan(); line++ {
		key, value, ok := strings.Cut(scanner.Text(), "=")
		if !ok {
			return Archive{}, fmt.Errorf("line %d: %q is not KEY=value", line, scanner.Text())
		}
		field, ok := fields[key]
		if !ok {
			return Archive{}, fmt.Errorf("line %d: unknown or repeated key %q", line, key)
		}
		delete(fields, key)
		if err := field.set(&f, value); err != nil {
			return Archive{}, fmt.Errorf("line %d: %s: %w", line, key, err)
		}
	}
	if err := scanner.Err(); err != nil {
		return Archive{}, err
	}
	for _, key := range []string{"helper", "file", "repo_tag", "image_id", "diff_ids", "platform", "size", "sha256"} {
		if _, missing := fields[key]; missing {
			return Archive{}, fmt.Errorf("no line %s=", key)
		}
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
