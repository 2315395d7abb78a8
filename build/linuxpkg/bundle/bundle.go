// Package bundle collects the packages that one host needs in a tar file, to be carried
// to hosts without a network.
package bundle

import (
	"archive/tar"
	"bytes"
	"cmp"
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
	hosts := map[string]string{} // architecture in the format's words, by format and platform
	for _, f := range m.Archives {
		for _, format := range []string{release.RPM, release.Deb} {
			hosts[format+" "+f.Name] = linuxpkg.HostArch(format, f.Platform)
		}
	}
	bundles := map[string]*Bundle{}
	for _, p := range m.Packages {
		if p.Arch != linuxpkg.NoArch(p.Format) {
			key := p.Format + "-" + p.Arch
			bundles[key] = cmp.Or(bundles[key], &Bundle{Format: p.Format, Arch: p.Arch})
		}
	}
	for _, key := range slices.Sorted(maps.Keys(bundles)) {
		b := bundles[key]
		for _, p := range m.Packages {
			serves := func(archive string) bool { return hosts[p.Format+" "+archive] == b.Arch }
			if p.Format == b.Format && (p.Arch == b.Arch || p.Arch == linuxpkg.NoArch(p.Format) && slices.ContainsFunc(p.Archives, serves)) {
				b.Packages = append(b.Packages, p)
				b.Name = fmt.Sprintf("%s%s-%s-%s.tar", prefix, p.Version, b.Format, b.Arch)
			}
		}
	}
	var all []Bundle
	for _, key := range slices.Sorted(maps.Keys(bundles)) {
		all = append(all, *bundles[key])
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
		header := tar.Header{Typeflag: tar.TypeDir, Name: top + "/", Mode: 0o755, ModTime: mtime}
		if err := w.WriteHeader(&header); err != nil {
			return err
		}
		for _, name := range slices.Sorted(maps.Keys(small)) {
			header := tar.Header{Name: path.Join(top, name), Mode: 0o644, Size: int64(len(small[name])), ModTime: mtime}
			if err := w.WriteHeader(&header); err != nil {
				return err
			}
			if _, err := w.Write(small[name]); err != nil {
				return err
			}
		}
		for _, p := range b.Packages {
			if err := add(ctx, w, top, p, mtime); err != nil {
				return err
			}
		}
		return w.Close()
	})
}

// add adds a package.
func add(ctx context.Context, w *tar.Writer, top string, p release.Package, mtime time.Time) (err error) {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	f, err := os.Open(p.Path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := w.WriteHeader(&tar.Header{Name: path.Join(top, p.File), Mode: 0o644, Size: p.Size, ModTime: mtime}); err != nil {
		return err
	}
	sum := sha256.New()
	if _, err := io.Copy(io.MultiWriter(w, sum), contextio.NewReader(ctx, f)); err != nil {
		return fmt.Errorf("%s: %w; run the package target again", p.Path, err)
	}
	if got := fmt.Sprintf("%x", sum.Sum(nil)); got != p.SHA256 {
		return fmt.Errorf("%s: sha256 is %s, manifest.json says %s; run the package target again", p.Path, got, p.SHA256)
	}
	return nil
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
