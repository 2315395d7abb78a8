// Package release holds the records that all stages share: archives, inputs,
// packages, the manifest, and the names of files below OUT. It imports nothing
// else of this project, except for helpers below internal.
package release

import (
	"bytes"
	"encoding/json"
)

// Names below OUT.
const (
	ManifestName   = "manifest.json"
	ProvenanceName = "provenance.json"
	SumsName       = "SHA256SUMS"
	SignatureName  = "SHA256SUMS.asc"  // signature of SHA256SUMS, armored
	KeyName        = "signing-key.asc" // public key of all signatures, armored
	ArchivesDir    = "helper-images"   // archives and their records
	SBOMDir        = "sbom"
	VerifyDir      = "verify" // reports
)

// The package formats. Each is also the name of the directory of its packages.
const (
	RPM = "rpm"
	Deb = "deb"
)

// A Package is the record of one rpm or deb.
type Package struct {
	Path string `json:"-"` // where it is on this machine; not recorded

	File     string   `json:"file"`    // base name
	Size     int64    `json:"size"`    // bytes
	SHA256   string   `json:"sha256"`  // hex
	Format   string   `json:"format"`  // RPM or Deb
	Name     string   `json:"name"`    // as the format's tools call it
	Version  string   `json:"version"` // version-release
	Arch     string   `json:"arch"`    // in the format's words
	Archives []string `json:"archives,omitempty"`
}

// JSON encodes v the way all of the project's files are: indented by two
// spaces, without HTML escapes, and with a newline at the end.
func JSON(v any) ([]byte, error) {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(v); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
