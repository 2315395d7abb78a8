// Package demo makes sample inputs: small helper images of every architecture, with a
// program that runs.
package demo

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/ulikunitz/xz"

	"pretag/build/catalogue"
	"pretag/build/internal/atomicfile"
	"pretag/build/internal/gobuild"
	"pretag/build/internal/ociarchive"
)

// program is the sample's Go package.
const program = "./build/demo/sample"

// OCIFlavor is the flavor whose samples are oci-archives of two layers, as in GitLab
// Runner's release pipeline. All others are flat root filesystems in xz, as in its
// packages.
const OCIFlavor = "ubuntu"

// Samples makes the input tarball of each helper in dir, with files of the given
// time. It compiles their program once for each architecture.
func Samples(ctx context.Context, b gobuild.Builder, dir string, helpers []catalogue.Helper, mtime time.Time) error {
	programs := map[string][]byte{}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, h := range helpers {
		key := h.Platform.String()
		if programs[key] == nil {
			var err error
			if programs[key], err = compile(ctx, b, h.Platform); err != nil {
				return fmt.Errorf("%s: %w", h, err)
			}
		}
		if err := sample(dir, h, programs[key], mtime); err != nil {
			return fmt.Errorf("%s: %w", h, err)
		}
	}
	return nil
}

// compile builds the sample's program for a platform.
func compile(ctx context.Context, b gobuild.Builder, platform v1.Platform) ([]byte, error) {
	dir, err := os.MkdirTemp("", "pretag-demo-*")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	path, goarm := filepath.Join(dir, "sample"), ""
	if platform.Architecture == "arm" {
		goarm = strings.TrimPrefix(platform.Variant, "v")
	}
	if err := b.Compile(ctx, program, platform.Architecture, goarm, path); err != nil {
		return nil, err
	}
	return os.ReadFile(path)
}

// sample writes one helper's tarball.
func sample(dir string, h catalogue.Helper, program []byte, mtime time.Time) error {
	if h.Flavor == OCIFlavor {
		img, err := oci(h, mtime, system(h), helper(program))
		if err != nil {
			return err
		}
		return atomicfile.Write(filepath.Join(dir, h.String()+".tar"), func(f *os.File) error {
			return ociarchive.Write(f, img, h.String(), mtime)
		})
	}
	flat, err := layer(mtime, append(system(h), helper(program)...))
	if err != nil {
		return err
	}
	return atomicfile.Write(filepath.Join(dir, "prebuilt-"+h.String()+".tar.xz"), func(f *os.File) error {
		z, err := xz.NewWriter(f)
		if err != nil {
			return err
		}
		if _, err := z.Write(flat); err != nil {
			return err
		}
		return z.Close()
	})
}

// system returns the files of the sample's operating system.
func system(h catalogue.Helper) []entry {
	return []entry{
		{tar.Header{Name: "etc/", Typeflag: tar.TypeDir, Mode: 0o755}, nil},
		{tar.Header{Name: "etc/os-release", Mode: 0o644}, []byte("ID=pretag-demo\nPRETTY_NAME=\"pretag demo, " + h.Flavor + "\"\n")},
		{tar.Header{Name: "etc/passwd", Mode: 0o644}, []byte("root:x:0:0:root:/root:/bin/sh\n")},
		{tar.Header{Name: "root/", Typeflag: tar.TypeDir, Mode: 0o700}, nil},
		{tar.Header{Name: "tmp/", Typeflag: tar.TypeDir, Mode: 0o1777}, nil},
	}
}

// helper returns the program under all names that GitLab Runner calls.
func helper(program []byte) []entry {
	return []entry{
		{tar.Header{Name: "bin/", Typeflag: tar.TypeDir, Mode: 0o755}, nil},
		{tar.Header{Name: "usr/", Typeflag: tar.TypeDir, Mode: 0o755}, nil},
		{tar.Header{Name: "usr/bin/", Typeflag: tar.TypeDir, Mode: 0o755}, nil},
		{tar.Header{Name: "usr/bin/gitlab-runner-helper", Mode: 0o755}, program},
		{tar.Header{Name: "usr/bin/dumb-init", Typeflag: tar.TypeLink, Linkname: "usr/bin/gitlab-runner-helper", Mode: 0o755}, nil},
		{tar.Header{Name: "bin/sh", Typeflag: tar.TypeSymlink, Linkname: "../usr/bin/gitlab-runner-helper", Mode: 0o777}, nil},
		{tar.Header{Name: "entrypoint", Typeflag: tar.TypeSymlink, Linkname: "usr/bin/gitlab-runner-helper", Mode: 0o777}, nil},
	}
}

type entry struct {
	header tar.Header
	body   []byte
}

// layer returns a tar file.
func layer(mtime time.Time, entries []entry) ([]byte, error) {
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	for _, e := range entries {
		e.header.Size, e.header.ModTime, e.header.Format = int64(len(e.body)), mtime, tar.FormatUSTAR
		if err := tw.WriteHeader(&e.header); err != nil {
			return nil, err
		}
		if _, err := tw.Write(e.body); err != nil {
			return nil, err
		}
	}
	err := tw.Close()
	return buf.Bytes(), err
}

// oci returns an image with the config of a real one.
func oci(h catalogue.Helper, created time.Time, layers ...[]entry) (v1.Image, error) {
	img, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{
		OS: h.Platform.OS, Architecture: h.Platform.Architecture, Variant: h.Platform.Variant,
		Created: v1.Time{Time: created},
		Config: v1.Config{
			Entrypoint: h.Config.Entrypoint, Cmd: h.Config.Cmd, Env: h.Config.Env,
			Labels: map[string]string{"org.opencontainers.image.title": "pretag demo " + h.String()},
		},
	})
	if err != nil {
		return nil, err
	}
	for _, entries := range layers {
		body, err := layer(created, entries)
		if err != nil {
			return nil, err
		}
		l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil })
		if err != nil {
			return nil, err
		}
		addendum := mutate.Addendum{Layer: l, History: v1.History{Created: v1.Time{Time: created}, CreatedBy: gobuild.Module + strings.TrimPrefix(program, ".")}}
		if img, err = mutate.Append(img, addendum); err != nil {
			return nil, err
		}
	}
	return img, nil
}
