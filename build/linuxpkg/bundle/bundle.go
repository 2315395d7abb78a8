// Package bundle collects the packages that one host needs in a tar file, to be carried
// to hosts without a network.
package bundle

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"pretag/build/internal/atomicfile"
	"pretag/build/internal/contextio"
	"pretag/build/linuxpkg"
	"pretag/build/release"
)

// Dir is the directory of bundles below OUT.
const Dir = "bundle"

// Options are the settings of Write.
type Options struct {
	Out string // directory; each bundle is written into its subdirectory Dir

	// Sign makes an armored signature of the sums, and Key is the public key,
	// armored. Nil: unsigned.
	Sign func(io.Reader) ([]byte, error)
	Key  []byte
}

// A Bundle is a tar file with the packages that a host of one format and architecture
// needs.
type Bundle struct {
	Name     string // base name
	Format   string // release.RPM, release.Deb
	Arch     string // in the format's words
	Packages []release.Package
}

// Of returns the bundles of a delivery: one for each format and host architecture, with
// the packages of this architecture and the packages for all architectures whose images
// are for it.
func Of(m release.Manifest) []Bundle {
	var all []Bundle
	for _, format := range []string{release.Deb, release.RPM} {
		hosts := map[string]string{} // architecture in the format's words, by archive
		for _, f := range m.Archives {
			hosts[f.Name] = linuxpkg.HostArch(format, f.Platform)
		}
		packages := slices.DeleteFunc(slices.Clone(m.Packages), func(p release.Package) bool { return p.Format != format })
		arches := map[string]bool{}
		for _, p := range packages {
			arches[p.Arch] = p.Arch != linuxpkg.NoArch(format)
		}
		for _, arch := range slices.Sorted(maps.Keys(arches)) {
			if !arches[arch] {
				continue
			}
			b := Bundle{Format: format, Arch: arch}
			for _, p := range packages {
				serves := func(archive string) bool { return hosts[archive] == arch }
				if p.Arch == arch || !arches[p.Arch] && slices.ContainsFunc(p.Archives, serves) {
					b.Packages = append(b.Packages, p)
					b.Name = fmt.Sprintf("%s%s-%s-%s.tar", prefix, p.Version, format, arch)
				}
			}
			all = append(all, b)
		}
	}
	return all
}

// prefix begins the names of bundles.
const prefix = "gitlab-runner-helper-images-"

// Write writes a bundle: a directory with the packages, a README, SHA256SUMS and, if
// there is a key, its signature. All files have the time mtime. A package that differs
// from its record is an error.
func (b Bundle) Write(ctx context.Context, o Options, mtime time.Time) error {
	dir := filepath.Join(o.Out, Dir)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	small := map[string][]byte{"README": b.readme(o.Key != nil)}
	sums := map[string]string{"README": fmt.Sprintf("%x", sha256.Sum256(small["README"]))}
	for _, p := range b.Packages {
		sums[p.File] = p.SHA256
	}
	if o.Key != nil {
		small[release.KeyName] = o.Key
		sums[release.KeyName] = fmt.Sprintf("%x", sha256.Sum256(o.Key))
	}
	small[release.SumsName] = release.Sums(sums)
	if o.Sign != nil {
		signature, err := o.Sign(bytes.NewReader(small[release.SumsName]))
		if err != nil {
			return err
		}
		small[release.SignatureName] = signature
	}
	return atomicfile.Write(filepath.Join(dir, b.Name), func(f *os.File) error {
		w := tar.NewWriter(f)
		top := strings.TrimSuffix(b.Name, ".tar")
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: top + "/", Mode: 0o755, ModTime: mtime}); err != nil {
			return err
		}
		add := func(name string, size int64, content io.Reader) error {
			if err := w.WriteHeader(&tar.Header{Name: path.Join(top, name), Mode: 0o644, Size: size, ModTime: mtime}); err != nil {
				return err
			}
			_, err := io.Copy(w, content)
			return err
		}
		for _, name := range slices.Sorted(maps.Keys(small)) {
			if err := add(name, int64(len(small[name])), bytes.NewReader(small[name])); err != nil {
				return err
			}
		}
		for _, p := range b.Packages {
			f, err := os.Open(p.Path)
			if err != nil {
				return err
			}
			sum := sha256.New()
			err = errors.Join(add(p.File, p.Size, io.TeeReader(contextio.NewReader(ctx, f), sum)), f.Close())
			if got := fmt.Sprintf("%x", sum.Sum(nil)); err == nil && got != p.SHA256 {
				err = fmt.Errorf("sha256 is %s, manifest.json says %s", got, p.SHA256)
			}
			if err != nil {
				return fmt.Errorf("%s: %w; run the package target again", p.Path, err)
			}
		}
		return w.Close()
	})
}

// readme says how to install the packages.
func (b Bundle) readme(signed bool) []byte {
	var text strings.Builder
	fmt.Fprintf(&text, "GitLab Runner helper images for %s hosts.\nNo network is needed.\n\nCheck the files, then install them, in this directory:\n\n    sha256sum -c %s\n", b.Arch, release.SumsName)
	if b.Format == release.Deb {
		text.WriteString("    sudo apt install ./*.deb\n")
	} else {
		if signed {
			fmt.Fprintf(&text, "    sudo rpm --import %s\n", release.KeyName)
		}
		allow := " --allow-unsigned-rpm"
		if signed {
			allow = ""
		}
		fmt.Fprintf(&text, "    sudo dnf install ./*.rpm\n\nor, on SUSE:\n\n    sudo zypper --no-refresh install%s ./*.rpm\n", allow)
	}
	if signed {
		fmt.Fprintf(&text, "\n%s is the signature of %s, and %s the public key.\nCompare its fingerprint with the one that the publisher gave you.\n", release.SignatureName, release.SumsName, release.KeyName)
	}
	return []byte(text.String())
}
