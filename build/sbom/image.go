package sbom

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"debug/buildinfo"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"runtime/debug"
	"strings"

	"pretag/build/archive"
)

// Bounds of what is read of one image.
const (
	maxKept    = 256 << 20 // databases and copyright files together, bytes, in memory
	maxListed  = 256 << 20 // paths of the packages' files together, bytes, in memory
	maxPath    = 4096      // one of them (PATH_MAX of Linux, limits.h)
	maxProgram = 1 << 30   // one program, bytes, in a temporary file
)

// An image is what its layers, one above the other, hold of interest: paths
// have no leading slash.
type image struct {
	kept     map[string][]byte
	links    map[string]string // symbolic, at the root and among the documentation: their targets
	programs map[string]program
	layers   map[string]int             // the layer of each path in the three maps
	folders  map[string]map[string]bool // of these paths: what of them, or which folder of theirs, is right below
	size     int64                      // of all in kept

	scratch *os.File // the program at hand
}

// A program is a file that may be executed.
type program struct {
	sha1, sha256 string
	kind         string           // as SPDX has it
	info         *debug.BuildInfo // nil where Go did not build it
}

// readImage reads the layers of an archive once.
func readImage(ctx context.Context, file string) (i *image, err error) {
	i = &image{
		kept: map[string][]byte{}, links: map[string]string{}, programs: map[string]program{},
		layers: map[string]int{}, folders: map[string]map[string]bool{},
	}
	if i.scratch, err = os.CreateTemp("", "pretag-sbom-*"); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, i.scratch.Close()) }()
	if err := os.Remove(i.scratch.Name()); err != nil { // at once, so that no kill leaves it behind
		return nil, err
	}
	return i, archive.Walk(ctx, file, i.entry)
}

func (i *image) entry(layer int, h *tar.Header, body io.Reader) error {
	name := clean(h.Name)
	dir, base := path.Split(name)
	dir = path.Clean(dir)
	// whiteouts hide what is below them (image-spec v1.1, layer.md)
	if base == ".wh..wh..opq" {
		i.hide(dir, layer)
		return nil
	}
	if hidden, ok := strings.CutPrefix(base, ".wh."); ok {
		i.hide(path.Join(dir, hidden), layer)
		return nil
	}
	if h.Typeflag == tar.TypeDir { // in a lower layer's place, unless that is a folder too
		i.forget(name)
		return nil
	}
	i.hide(name, layer)
	var err error
	switch {
	case h.Typeflag == tar.TypeSymlink && (dir == docs || dir == "."):
		target := h.Linkname
		if !path.IsAbs(target) {
			target = path.Join("/", dir, target)
		}
		i.links[name] = clean(target)
		i.record(name, layer)
	case h.Typeflag == tar.TypeLink:
		i.record(name, layer)
		target := clean(h.Linkname)
		if data, ok := i.kept[target]; ok {
			i.kept[name], i.size = data, i.size+int64(len(data))
		}
	case h.Typeflag != tar.TypeReg:
	case wanted(name):
		i.record(name, layer)
		i.kept[name], err = i.keep(body)
	case h.Mode&0o111 != 0 && dir != dpkgInfo:
		i.record(name, layer)
		i.programs[name], err = i.program(body)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

func clean(name string) string { return strings.TrimPrefix(path.Join("/", name), "/") }

// record notes the layer of a path, and the folders that lead to it.
func (i *image) record(name string, layer int) {
	i.layers[name] = layer
	for at := name; at != "."; at = path.Dir(at) {
		folder := path.Dir(at)
		if i.folders[folder][at] {
			return
		}
		if i.folders[folder] == nil {
			i.folders[folder] = map[string]bool{}
		}
		i.folders[folder][at] = true
	}
}

// hide forgets what lower layers have at a path and below it.
func (i *image) hide(name string, layer int) {
	if layer == 0 {
		return
	}
	if from, ok := i.layers[name]; ok && from < layer {
		i.forget(name)
	}
	for at := range i.folders[name] {
		i.hide(at, layer)
		if _, ok := i.layers[at]; !ok && i.folders[at] == nil {
			delete(i.folders[name], at)
		}
	}
	if len(i.folders[name]) == 0 {
		delete(i.folders, name)
	}
}

func (i *image) forget(name string) {
	i.size -= int64(len(i.kept[name]))
	delete(i.layers, name)
	delete(i.kept, name)
	delete(i.links, name)
	delete(i.programs, name)
}

func (i *image) keep(body io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(body, maxKept-i.size+1))
	if i.size += int64(len(data)); err == nil && i.size > maxKept {
		err = fmt.Errorf("package databases of more than %d bytes", maxKept)
	}
	return data, err
}

// program reads a program, by way of a file: build information may stand anywhere in it.
func (i *image) program(body io.Reader) (p program, err error) {
	sum1, sum256 := sha1.New(), sha256.New()
	var head [4]byte
	n, err := io.ReadFull(body, head[:])
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return p, err
	}
	out := io.MultiWriter(sum1, sum256)
	binary := string(head[:n]) == elf.ELFMAG
	if binary {
		if _, err = i.scratch.Seek(0, io.SeekStart); err == nil {
			err = i.scratch.Truncate(0)
		}
		if err != nil {
			return p, err
		}
		out = io.MultiWriter(sum1, sum256, i.scratch)
	}
	size, err := io.Copy(out, io.MultiReader(bytes.NewReader(head[:n]), io.LimitReader(body, maxProgram)))
	if err == nil && size > maxProgram {
		err = fmt.Errorf("a program of more than %d bytes", maxProgram)
	}
	if err != nil {
		return p, err
	}
	p = program{sha1: fmt.Sprintf("%x", sum1.Sum(nil)), sha256: fmt.Sprintf("%x", sum256.Sum(nil)), kind: "OTHER"}
	switch {
	case binary:
		p.kind = "BINARY"
		p.info, _ = buildinfo.Read(i.scratch) // an error: not built by Go
	case string(head[:min(n, 2)]) == "#!":
		p.kind = "SOURCE"
	}
	return p, nil
}

// resolve follows the links at a path's start, such as bin -> usr/bin: databases
// keep the paths that packages came with.
func (i *image) resolve(name string) string {
	first, rest, ok := strings.Cut(name, "/")
	if target, linked := i.links[first]; ok && linked {
		return path.Join(target, rest)
	}
	return name
}
