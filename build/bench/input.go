package bench

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"pretag/build/catalogue"
	"pretag/build/internal/atomicfile"
	"pretag/build/internal/ociarchive"
	"pretag/build/release"
)

// arches are those of the root filesystems, in Debian's words.
func arches() []string { return []string{"amd64", "arm64", "s390x"} }

// packages make a root filesystem of a helper's kind and size.
const packages = "git,dumb-init,ca-certificates"

const twenty = 20

// inputs are what the ways start from. There are three root filesystems, one of
// each architecture; further helpers have them under names of their own.
type inputs struct {
	flat, oci   []start // one helper of each architecture
	two, twenty []start // root filesystems
	eight       []start // oci-archives
	archives    []start // three, made by pretag
}

// lacksInputs says why there can be no root filesystems in dir, if so.
func lacksInputs(dir string) string {
	for _, arch := range arches() {
		_, there := os.Stat(filepath.Join(dir, arch+".tar"))
		if _, err := exec.LookPath("mmdebstrap"); err != nil && there != nil {
			return "no mmdebstrap, which makes the root filesystems"
		}
	}
	return ""
}

// inputs makes the tarballs that are not there yet in dir: root filesystems as
// Runner's packages carry them, and oci-archives as its release pipeline makes them.
func (o Options) inputs(ctx context.Context, dir string, env []string) (in inputs, err error) {
	flat, oci := filepath.Join(dir, "flat"), filepath.Join(dir, "oci")
	if err := errors.Join(os.MkdirAll(flat, 0o755), os.MkdirAll(oci, 0o755)); err != nil {
		return in, err
	}
	var helpers []string
	made := map[string]bool{}
	for _, h := range o.Catalogue.Helpers() {
		arch := h.Platform.Architecture
		if !slices.Contains(arches(), arch) || len(helpers) == twenty {
			continue
		}
		rootfs := filepath.Join(dir, arch+".tar")
		if !made[arch] {
			if err := errors.Join(
				o.once(rootfs, func(temp string) error {
					return command(ctx, "mmdebstrap", "--quiet", "--variant=extract", "--architectures="+arch, "--include="+packages, "--format=tar", "bookworm", temp)
				}),
				o.once(rootfs+".xz", func(temp string) error { return xz(ctx, rootfs, temp) }),
				o.once(filepath.Join(dir, arch+".oci.tar"), func(temp string) error { return ociArchive(rootfs, temp, h) }),
			); err != nil {
				return in, err
			}
			made[arch] = true
			in.flat, in.oci = append(in.flat, start{flat, h.String()}), append(in.oci, start{oci, h.String()})
		}
		if err := errors.Join(
			o.once(filepath.Join(flat, "prebuilt-"+h.String()+".tar.xz"), func(temp string) error { return os.Symlink(rootfs+".xz", temp) }),
			o.once(filepath.Join(oci, h.String()+".tar"), func(temp string) error { return os.Symlink(filepath.Join(dir, arch+".oci.tar"), temp) }),
		); err != nil {
			return in, err
		}
		helpers = append(helpers, h.String())
	}
	if len(helpers) < twenty {
		return in, fmt.Errorf("the catalogue has %d helpers for %s, want %d", len(helpers), strings.Join(arches(), ", "), twenty)
	}
	some := func(dir string, n int) []start { return []start{{dir, strings.Join(helpers[:n], ",")}} }
	in.two, in.twenty, in.eight = some(flat, 2), some(flat, twenty), some(oci, 8)
	in.archives = some(filepath.Join(dir, release.ArchivesDir), 3)
	return in, command(ctx, "env", slices.Concat(env, []string{"HELPER_IMAGES=" + flat, "OUT=" + dir, "HELPERS=" + in.archives[0].helpers, o.Program, "archives"})...)
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
