package bundle_test

import (
	"archive/tar"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"pretag/build/linuxpkg/bundle"
	"pretag/build/release"
	"pretag/build/testutil"
)

// manifest is that of a delivery whose packages are small files.
func manifest(t *testing.T) release.Manifest {
	t.Helper()
	m := release.Manifest{Archives: []release.Archive{
		{Name: "a-amd64", Platform: "linux/amd64"},
		{Name: "a-pwsh", Platform: "linux/amd64"},
		{Name: "a-arm", Platform: "linux/arm/v7"},
		{Name: "a-fips", Platform: "linux/arm/v7"},
	}}
	dir := t.TempDir()
	for _, p := range []release.Package{
		{Format: "deb", File: "native_amd64.deb", Arch: "amd64", Archives: []string{"a-amd64"}},
		{Format: "deb", File: "native_armhf.deb", Arch: "armhf", Archives: []string{"a-arm"}},
		{Format: "deb", File: "loader_amd64.deb", Arch: "amd64"},
		{Format: "deb", File: "loader_armhf.deb", Arch: "armhf"},
		{Format: "deb", File: "pwsh_all.deb", Arch: "all", Archives: []string{"a-pwsh"}},
		{Format: "rpm", File: "native.x86_64.rpm", Arch: "x86_64", Archives: []string{"a-amd64"}},
		{Format: "rpm", File: "fips.noarch.rpm", Arch: "noarch", Archives: []string{"a-fips"}},
	} {
		p.Path, p.Version, p.Size = filepath.Join(dir, p.File), "19.3.0-1", int64(len(p.File))
		p.SHA256 = fmt.Sprintf("%x", sha256.Sum256([]byte(p.File)))
		if err := os.WriteFile(p.Path, []byte(p.File), 0o644); err != nil {
			t.Fatal(err)
		}
		m.Packages = append(m.Packages, p)
	}
	return m
}

// A bundle has what its host needs, and nothing for other hosts.
func TestOf(t *testing.T) {
	got := map[string][]string{}
	for _, b := range bundle.Of(manifest(t)) {
		for _, p := range b.Packages {
			got[b.Name] = append(got[b.Name], p.File)
		}
	}
	want := map[string][]string{
		"gitlab-runner-helper-images-19.3.0-1-deb-amd64.tar":  {"native_amd64.deb", "loader_amd64.deb", "pwsh_all.deb"},
		"gitlab-runner-helper-images-19.3.0-1-deb-armhf.tar":  {"native_armhf.deb", "loader_armhf.deb"},
		"gitlab-runner-helper-images-19.3.0-1-rpm-x86_64.tar": {"native.x86_64.rpm"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestWrite(t *testing.T) {
	b := bundle.Of(manifest(t))[0]
	out := t.TempDir()
	sign := func(r io.Reader) ([]byte, error) {
		sums, err := io.ReadAll(r)
		return append([]byte("signed: "), sums...), err
	}
	if err := b.Write(t.Context(), bundle.Options{Out: out, Sign: sign, Key: []byte("key")}, time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(filepath.Join(out, "bundle", b.Name))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	files := map[string]string{}
	for tr := tar.NewReader(f); ; {
		header, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		body, readErr := io.ReadAll(tr)
		if err := errors.Join(err, readErr); err != nil {
			t.Fatal(err)
		}
		if header.Uid != 0 || !header.ModTime.Equal(time.Unix(1, 0)) {
			t.Errorf("%s: uid %d, time %s", header.Name, header.Uid, header.ModTime)
		}
		_, name, _ := strings.Cut(header.Name, "/")
		files[name] = string(body)
	}
	for name, want := range map[string]string{
		"native_amd64.deb": "native_amd64.deb", "loader_amd64.deb": "loader_amd64.deb", "pwsh_all.deb": "pwsh_all.deb",
		"signing-key.asc": "key", "SHA256SUMS.asc": "signed: " + files["SHA256SUMS"], "": "",
	} {
		if got, ok := files[name]; !ok || got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	if len(files) != 8 || !strings.Contains(files["README"], "\n    sudo apt install ./*.deb\n") {
		t.Errorf("%d files, README:\n%s", len(files), files["README"])
	}
	for name, body := range files {
		if line := fmt.Sprintf("%x  %s\n", sha256.Sum256([]byte(body)), name); name != "" && !strings.HasPrefix(name, "SHA256SUMS") && !strings.Contains(files["SHA256SUMS"], line) {
			t.Errorf("SHA256SUMS lacks %q", line)
		}
	}
}

// A package that was changed after it was built is not carried to hosts.
func TestWriteRejectsChangedPackages(t *testing.T) {
	for name, content := range map[string]string{"other bytes": "NATIVE_amd64.deb", "shorter": "x", "longer": "native_amd64.deb and more"} {
		t.Run(name, func(t *testing.T) {
			b := bundle.Of(manifest(t))[0]
			if err := os.WriteFile(b.Packages[0].Path, []byte(content), 0o644); err != nil {
				t.Fatal(err)
			}
			out := t.TempDir()
			testutil.WantError(t, b.Write(t.Context(), bundle.Options{Out: out}, time.Unix(1, 0)), b.Packages[0].Path, "run the package target again")
			if left, err := os.ReadDir(filepath.Join(out, "bundle")); err != nil || len(left) > 0 {
				t.Errorf("left: %v, %v", left, err)
			}
		})
	}
}
