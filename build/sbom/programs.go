package sbom

import (
	"archive/tar"
	"bytes"
	"cmp"
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
	"slices"

	"pretag/build/archive"
	"pretag/build/internal/contextio"
	"pretag/build/internal/decompress"
)

// Limits on the files that are read of one image.
const (
	maxContent  = 256 << 20 // databases and copyright files together, bytes, in memory
	maxProgram  = 1 << 30   // one program, bytes, in a temporary file
	maxPrograms = 16 << 30  // all programs, bytes; sparse files can claim more than the image has
)

// A file is a regular file of the image, with one or more names.
type file struct {
	number     int // of the entry that has the body
	executable bool
	content    []byte // of databases

	kind         string // of programs, as SPDX has it
	sha1, sha256 string
	info         *debug.BuildInfo // nil unless Go built the program
}

// An image is the tree of a docker-archive with what was read of its files.
type image struct {
	*tree
	programs []program
	warnings []string
}

// A program is an executable file under one of its names.
type program struct {
	*file
	name  string
	layer int
}

// readImage reads an archive twice: the first time for the tree of its layers, the
// second for the files that the SBOM needs, which are known once links are resolved.
func readImage(ctx context.Context, archivePath string, decoders *decompress.Decoders) (i *image, err error) {
	i = &image{tree: newTree()}
	err = archive.Walk(ctx, archivePath, decoders, func(layer int, h *tar.Header, _ io.Reader) error {
		if err := i.add(layer, h); err != nil {
			return fmt.Errorf("%.200q: %w", h.Name, err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	contents, programs := map[int]*file{}, map[int]*file{}
	for _, name := range i.wanted() {
		if n := i.lookup(name, true); n != nil && n.file != nil {
			contents[n.file.number] = n.file
		}
	}
	i.root.walk("", func(name string, n *node) {
		if n.file.executable && contents[n.file.number] == nil && path.Dir(name) != dpkgInfo {
			i.programs = append(i.programs, program{n.file, name, n.layer})
			programs[n.file.number] = n.file
		}
	})
	if err := i.check(); err != nil {
		return nil, fmt.Errorf("%s: %w", archivePath, err)
	}
	slices.SortFunc(i.programs, func(a, b program) int { return cmp.Compare(a.name, b.name) })

	scratch, err := os.CreateTemp("", "pretag-sbom-*")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, scratch.Close()) }()
	if err := os.Remove(scratch.Name()); err != nil { // at once, so that no kill leaves it behind
		return nil, err
	}
	number, contentLeft, programLeft := -1, int64(maxContent), int64(maxPrograms)
	return i, archive.Walk(ctx, archivePath, decoders, func(_ int, h *tar.Header, body io.Reader) (err error) {
		number++
		body = contextio.NewReader(ctx, body)
		if f := contents[number]; f != nil {
			err = f.readContent(body, h.Size, &contentLeft)
		} else if f := programs[number]; f != nil {
			err = f.readProgram(body, &programLeft, scratch)
		}
		if err != nil {
			return fmt.Errorf("%.200q: %w", h.Name, err)
		}
		return nil
	})
}

// readContent reads a file of that size, which the first reading of the archive has
// compared with what is there.
func (f *file) readContent(body io.Reader, size int64, left *int64) error {
	if *left -= size; *left < 0 {
		return fmt.Errorf("package databases of more than %d bytes", maxContent)
	}
	f.content = make([]byte, size)
	_, err := io.ReadFull(body, f.content)
	return err
}

// readProgram hashes a program. One that Go may have built goes through a file,
// because the build information can be anywhere in it.
func (f *file) readProgram(body io.Reader, left *int64, scratch *os.File) error {
	sum1, sum256 := sha1.New(), sha256.New()
	var head [4]byte
	n, err := io.ReadFull(body, head[:])
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	}
	out := io.MultiWriter(sum1, sum256)
	binary := string(head[:n]) == elf.ELFMAG
	if binary {
		if _, err := scratch.Seek(0, io.SeekStart); err != nil {
			return err
		}
		if err := scratch.Truncate(0); err != nil {
			return err
		}
		out = io.MultiWriter(sum1, sum256, scratch)
	}
	most := min(maxProgram, *left)
	size, err := io.Copy(out, io.MultiReader(bytes.NewReader(head[:n]), io.LimitReader(body, most)))
	if err != nil {
		return err
	}
	if *left -= size; size > most {
		return fmt.Errorf("program of more than %d bytes, or programs of more than %d in all", maxProgram, int64(maxPrograms))
	}
	f.sha1, f.sha256, f.kind = fmt.Sprintf("%x", sum1.Sum(nil)), fmt.Sprintf("%x", sum256.Sum(nil)), "OTHER"
	switch {
	case binary:
		f.kind = "BINARY"
		f.info, _ = buildinfo.Read(scratch) // an error: not built by Go
	case string(head[:min(n, 2)]) == "#!":
		f.kind = "SOURCE"
	}
	return nil
}
