package build

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"path"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"

	"pretag/build/archive"
	"pretag/build/internal/atomicfile"
	"pretag/build/linuxpkg"
	"pretag/build/provenance"
	"pretag/build/release"
	"pretag/build/sign"
)

// describe writes the files that describe a delivery into the directory stage, which
// holds the packages and documents: provenance.json, manifest.json, SHA256SUMS and, if
// there is a signer, the signature and the public key. It returns the names of all
// delivered files.
func (c Config) describe(ctx context.Context, stage string, archives []release.Archive, packages []release.Package, documents map[string][]linuxpkg.Document, signer *sign.Signer) ([]string, error) {
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
	sums := map[string]string{}
	for _, file := range described {
		dir := stage
		if path.Dir(file) == release.ArchivesDir {
			dir = c.Out
		}
		sum, err := release.SHA256File(ctx, filepath.Join(dir, file))
		if err != nil {
			return nil, err
		}
		sums[file] = sum
	}
	statement, err := provenance.Build{Outputs: sums, Archives: m.Archives, Parameters: c.parameters(), Tools: m.Tools, Builder: c.Builder}.Statement().JSON()
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{release.ProvenanceName: statement}
	if signer != nil {
		m.Signer = signer.KeyID()
		if files[release.KeyName], err = signer.Public(); err != nil {
			return nil, err
		}
	}
	if files[release.ManifestName], err = release.JSON(m); err != nil {
		return nil, err
	}
	for name, data := range files {
		sums[name] = fmt.Sprintf("%x", sha256.Sum256(data))
	}
	files[release.SumsName] = release.Sums(sums)
	if signer != nil {
		if files[release.SignatureName], err = signer.Armored(bytes.NewReader(files[release.SumsName])); err != nil {
			return nil, err
		}
	}
	for name, data := range files {
		if err := atomicfile.WriteBytes(filepath.Join(stage, name), data); err != nil {
			return nil, err
		}
	}
	return slices.Concat(described, slices.Sorted(maps.Keys(files))), nil
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
