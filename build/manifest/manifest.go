// Package manifest lists what a build delivers: manifest.json for programs,
// SHA256SUMS for sha256sum. It judges nothing; verify does.
package manifest

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"

	"pretag/build/archive"
	"pretag/build/internal/atomicfile"
	"pretag/build/linuxpkg"
	"pretag/build/sign"
)

// Names below OUT.
const (
	Name     = "manifest.json"
	SumsName = "SHA256SUMS"
	SigName  = "SHA256SUMS.asc"  // signature of SHA256SUMS, armored
	KeyName  = "signing-key.asc" // the public key of all signatures, armored
	Archives = "helper-images"   // folder of archives and their records
)

// A Manifest is the content of manifest.json.
type Manifest struct {
	Version  string             `json:"version"`            // of GitLab Runner
	Revision string             `json:"revision,omitempty"` // of GitLab Runner, below 16.8.0
	Release  int                `json:"release"`            // of the packages
	Created  int64              `json:"sourceDateEpoch"`    // seconds since 1970
	Tools    map[string]string  `json:"tools"`              // versions of what decides the bytes
	Signer   string             `json:"signer,omitempty"`   // ID of the key that signed, in hex
	Archives []archive.File     `json:"archives"`
	Packages []linuxpkg.Package `json:"packages"`
}

// Write writes manifest.json and SHA256SUMS into out, and with a signer their
// signature and its key. extra lists further files that are delivered, relative
// to out.
func Write(out string, m Manifest, signer *sign.Signer, extra []string) error {
	if err := dropSignature(out); err != nil {
		return err
	}
	if signer != nil {
		m.Signer = signer.KeyID()
		key, err := signer.Public()
		if err != nil {
			return err
		}
		if err := atomicfile.WriteBytes(filepath.Join(out, KeyName), key); err != nil {
			return err
		}
		extra = append(extra, KeyName)
	}
	body, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	body = append(body, '\n')
	if err := atomicfile.WriteBytes(filepath.Join(out, Name), body); err != nil {
		return err
	}
	sums, err := sums(out, append(m.Files(), extra...))
	if err != nil {
		return err
	}
	if err := atomicfile.WriteBytes(filepath.Join(out, SumsName), sums); err != nil || signer == nil {
		return err
	}
	signature, err := signer.Armored(bytes.NewReader(sums))
	if err != nil {
		return err
	}
	return atomicfile.WriteBytes(filepath.Join(out, SigName), signature)
}

// dropSignature removes what an earlier build signed.
func dropSignature(out string) error {
	for _, name := range []string{SigName, KeyName} {
		if err := os.Remove(filepath.Join(out, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// Files lists what m names, and manifest.json itself, relative to OUT.
func (m Manifest) Files() []string {
	files := []string{Name}
	for _, f := range m.Archives {
		file := path.Join(Archives, f.Name)
		files = append(files, file, file+archive.InfoSuffix)
	}
	for _, p := range m.Packages {
		files = append(files, path.Join(p.Format, p.File))
	}
	return files
}

// Read reads manifest.json in out.
func Read(out string) (Manifest, error) {
	file := filepath.Join(out, Name)
	var m Manifest
	data, err := os.ReadFile(file)
	if err != nil {
		return m, err
	}
	if err := json.Unmarshal(data, &m); err != nil {
		return m, fmt.Errorf("%s: %w", file, err)
	}
	for i := range m.Archives {
		m.Archives[i].Path = filepath.Join(out, Archives, m.Archives[i].Name)
	}
	for i := range m.Packages {
		m.Packages[i].Path = filepath.Join(out, m.Packages[i].Format, m.Packages[i].File)
	}
	return m, nil
}

// sums is the content of SHA256SUMS for the files, in the order of their names.
func sums(out string, files []string) ([]byte, error) {
	var b bytes.Buffer
	slices.Sort(files)
	for _, file := range files {
		sum, err := Sum(filepath.Join(out, file))
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(&b, "%s  %s\n", sum, file)
	}
	return b.Bytes(), nil
}

// Sum is the sha256 of a file, in hex.
func Sum(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// sumLine is a line of SHA256SUMS (GNU coreutils 9.1, sha256sum, text mode).
var sumLine = regexp.MustCompile(`^([0-9a-f]{64})  (\S+)$`)

// ReadSums reads SHA256SUMS in out: the sha256, in hex, of each file.
func ReadSums(out string) (map[string]string, error) {
	file := filepath.Join(out, SumsName)
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	sums := map[string]string{}
	scanner := bufio.NewScanner(bytes.NewReader(data))
	for n := 1; scanner.Scan(); n++ {
		fields := sumLine.FindStringSubmatch(scanner.Text())
		if fields == nil || !filepath.IsLocal(fields[2]) {
			return nil, fmt.Errorf("%s: line %d: %q is not <sha256>  <file>", file, n, scanner.Text())
		}
		if sums[fields[2]] != "" {
			return nil, fmt.Errorf("%s: line %d: %s stands twice", file, n, fields[2])
		}
		sums[fields[2]] = fields[1]
	}
	return sums, errors.Join(scanner.Err())
}
