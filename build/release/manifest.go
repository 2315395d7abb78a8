package release

import (
	"encoding/json"
	"fmt"
	"os"
	"path"
	"path/filepath"
)

// manifestSchema is raised when fields of manifest.json are removed or change
// their meaning.
const manifestSchema = 1

// A Manifest is the content of manifest.json.
type Manifest struct {
	Schema   int               `json:"schema"`             // set when it is written
	Version  string            `json:"version"`            // of GitLab Runner
	Revision string            `json:"revision,omitempty"` // of GitLab Runner, below 16.8.0
	Release  string            `json:"release"`            // of the packages
	Created  int64             `json:"sourceDateEpoch"`    // seconds since 1970
	Tools    map[string]string `json:"tools"`              // versions of everything that decides the bytes
	Signer   string            `json:"keyID,omitempty"`    // of the key that signed, in hex
	Archives []Archive         `json:"archives"`
	Packages []Package         `json:"packages"`
}

// Outputs lists the archives, their records and the packages, relative to OUT.
func (m Manifest) Outputs() []string {
	var files []string
	for _, f := range m.Archives {
		file := path.Join(ArchivesDir, f.Name)
		files = append(files, file, file+InfoSuffix)
	}
	for _, p := range m.Packages {
		files = append(files, path.Join(p.Format, p.File))
	}
	return files
}

// MarshalJSON adds to each archive and package its path relative to OUT.
func (m Manifest) MarshalJSON() ([]byte, error) {
	type archive struct {
		Path string `json:"path"`
		Archive
	}
	type pkg struct {
		Path string `json:"path"`
		Package
	}
	type fields Manifest
	m.Schema = manifestSchema
	written := struct {
		fields
		Archives []archive `json:"archives"`
		Packages []pkg     `json:"packages"`
	}{fields(m), []archive{}, []pkg{}}
	for _, f := range m.Archives {
		written.Archives = append(written.Archives, archive{path.Join(ArchivesDir, f.Name), f})
	}
	for _, p := range m.Packages {
		written.Packages = append(written.Packages, pkg{path.Join(p.Format, p.File), p})
	}
	return JSON(written)
}

// ReadManifest reads manifest.json in the directory out. One that pretag did not write
// is an error.
func ReadManifest(out string) (Manifest, error) {
	file := filepath.Join(out, ManifestName)
	var m Manifest
	data, err := os.ReadFile(file)
	if err != nil {
		return m, err
	}
	if err := json.Unmarshal(data, &m); err != nil {
		return m, fmt.Errorf("%s: %w", file, err)
	}
	if m.Tools["pretag"] == "" {
		return m, fmt.Errorf("%s: pretag did not write it", file)
	}
	if m.Schema > manifestSchema {
		return m, fmt.Errorf("%s: schema %d is newer than this pretag, which knows %d", file, m.Schema, manifestSchema)
	}
	for i := range m.Archives {
		m.Archives[i].Path = filepath.Join(out, ArchivesDir, m.Archives[i].Name)
	}
	for i := range m.Packages {
		m.Packages[i].Path = filepath.Join(out, m.Packages[i].Format, m.Packages[i].File)
	}
	return m, nil
}
