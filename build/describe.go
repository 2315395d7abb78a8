package build

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"

	"pretag/build/archive"
	"pretag/build/internal/atomicfile"
	"pretag/build/linuxpkg"
	"pretag/build/provenance"
	"pretag/build/release"
	"pretag/build/sign"
)

// describe writes the files that describe a delivery: provenance.json,
// manifest.json, SHA256SUMS and, if there is a signer, the signature and the
// public key. It returns the names of all delivered files, except for the sums
// and their signature.
func (c Config) describe(archives []release.Archive, packages []release.Package, documents map[string][]linuxpkg.Document, signer *sign.Signer) ([]string, error) {
	m := release.Manifest{
		Version:  c.Version.String(),
		Revision: c.Version.Revision(),
		Release:  c.Release,
		Created:  c.Time.Unix(),
		Tools:    tools(c.Compression),
		Archives: archives,
		Packages: packages,
	}
	described := m.Outputs() // by the provenance
	for _, f := range m.Archives {
		for _, document := range documents[f.Name] {
			described = append(described, path.Join(release.SBOMDir, filepath.Base(document.Path)))
		}
	}
	outputs := map[string]string{}
	for _, file := range described {
		sum, err := release.SHA256File(filepath.Join(c.Out, file))
		if err != nil {
			return nil, err
		}
		outputs[file] = sum
	}
	statement, err := provenance.Build{Outputs: outputs, Archives: m.Archives, Parameters: c.parameters(), Tools: m.Tools}.Statement().JSON()
	if err != nil {
		return nil, err
	}
	if err := c.writeOut(release.ProvenanceName, statement); err != nil {
		return nil, err
	}
	delivered := append(described, release.ProvenanceName, release.ManifestName)

	for _, stale := range []string{release.SignatureName, release.KeyName} {
		if err := os.Remove(filepath.Join(c.Out, stale)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	if signer != nil {
		m.Signer = signer.KeyID()
		key, err := signer.Public()
		if err != nil {
			return nil, err
		}
		if err := c.writeOut(release.KeyName, key); err != nil {
			return nil, err
		}
		delivered = append(delivered, release.KeyName)
	}
	body, err := release.JSON(m)
	if err != nil {
		return nil, err
	}
	if err := c.writeOut(release.ManifestName, body); err != nil {
		return nil, err
	}
	sums, err := release.Sums(c.Out, delivered)
	if err != nil {
		return nil, err
	}
	if err := c.writeOut(release.SumsName, sums); err != nil || signer == nil {
		return delivered, err
	}
	signature, err := signer.Armored(bytes.NewReader(sums))
	if err != nil {
		return nil, err
	}
	return delivered, c.writeOut(release.SignatureName, signature)
}

// writeOut writes a file below OUT.
func (c Config) writeOut(name string, data []byte) error {
	return atomicfile.WriteBytes(filepath.Join(c.Out, name), data)
}

// tools returns the versions of what decides the bytes of archives and packages:
// Go, the modules that are built in, and the zstd program if it is used.
func tools(compression archive.Compression) map[string]string {
	tools := map[string]string{"go": runtime.Version(), "pretag": strconv.Itoa(archive.FormatVersion)}
	if name, version, ok := strings.Cut(compression.Program(), "/"); ok {
		tools[name] = version
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, module := range info.Deps {
			tools[module.Path] = module.Version
		}
	}
	return tools
}
