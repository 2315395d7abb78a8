package bench

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"pretag/build/catalogue"
	"pretag/build/internal/atomicfile"
	"pretag/build/internal/ociarchive"
)

// helpers are those that are measured, with Debian's word for the architecture.
func helpers() map[string]string {
	return map[string]string{"alpine-x86_64": "amd64", "alpine-arm64": "arm64", "alpine-s390x": "s390x"}
}

// packages make a root filesystem of a helper's kind and size.
const packages = "git,dumb-init,ca-certificates"

// inputs makes the tarballs that are not there yet in dir: root filesystems as
// Runner's packages carry them, and oci-archives as its release pipeline makes them.
func (o Options) inputs(ctx context.Context, dir string) (flat, oci []start, err error) {
	for _, sub := range []string{"rootfs", "flat", "oci"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return nil, nil, err
		}
	}
	for _, h := range o.Catalogue.Helpers() {
		arch, ok := helpers()[h.String()]
		if !ok {
			continue
		}
		rootfs := filepath.Join(dir, "rootfs", arch+".tar")
		f := start{h.String(), filepath.Join(dir, "flat", "prebuilt-"+h.String()+".tar.xz")}
		i := start{h.String(), filepath.Join(dir, "oci", h.String()+".tar")}
		if err := errors.Join(
			o.once(rootfs, func(temp string) error {
				return command(ctx, "mmdebstrap", "--quiet", "--variant=extract", "--architectures="+arch, "--include="+packages, "--format=tar", "bookworm", temp)
			}),
			o.once(f.path, func(temp string) error { return xz(ctx, rootfs, temp) }),
			o.once(i.path, func(temp string) error { return ociArchive(rootfs, temp, h) }),
		); err != nil {
			return nil, nil, err
		}
		flat, oci = append(flat, f), append(oci, i)
	}
	return flat, oci, nil
}

// once makes a file unless it is there.
func (o Options) once(path string, make func(temp string) error) error {
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	o.Say("making %s", path)
	temp := path + ".part"
	if err := errors.Join(os.RemoveAll(temp), make(temp)); err != nil {
		return fmt.Errorf("make %s: %w", path, errors.Join(err, os.RemoveAll(temp)))
	}
	return os.Rename(temp, path)
}

// xz compresses as Runner's pipeline does, or nearly so.
func xz(ctx context.Context, from, to string) error {
	if _, err := exec.LookPath("7z"); err == nil {
		return command(ctx, "7z", "a", "-txz", "-mx8", "-bd", to, from)
	}
	return command(ctx, "sh", "-c", `xz -8 --stdout "$1" >"$2"`, "sh", from, to)
}

// ociArchive makes an oci-archive whose one layer is the root filesystem, gzipped.
func ociArchive(rootfs, path string, h catalogue.Helper) error {
	layer, err := tarball.LayerFromFile(rootfs)
	if err != nil {
		return err
	}
	img, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{
		OS: h.Platform.OS, Architecture: h.Platform.Architecture, Variant: h.Platform.Variant,
		Config: v1.Config{Entrypoint: []string{"/usr/bin/dumb-init", "/entrypoint"}},
	})
	if err != nil {
		return err
	}
	if img, err = mutate.AppendLayers(img, layer); err != nil {
		return err
	}
	return atomicfile.Write(path, func(f *os.File) error { return ociarchive.Write(f, img, "latest", time.Unix(0, 0)) })
}

func command(ctx context.Context, name string, args ...string) error {
	if out, err := exec.CommandContext(ctx, name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, out)
	}
	return nil
}
