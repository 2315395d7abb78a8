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

// An image is the tree of a docker-archive with what was read of its files.
type image struct {
	*archive.Tree
	contents map[*archive.File][]byte // of databases
	programs []program
	warnings []string
}

// A program is an executable file under one of its names.
type program struct {
	*executable
	file  *archive.File
	name  string
	layer int
}

// An executable is the content of a program, under however many names.
type executable struct {
	kind         string // as SPDX has it
	sha1, sha256 string
	info         *debug.BuildInfo // nil unless Go built the program
}

// readImage reads an archive twice: the first time for the tree of its layers, the
// second for the files that the SBOM needs, which are known once links are resolved.
func readImage(ctx context.Context, archivePath string, decoders *decompress.Decoders) (i *image, err error) {
	i = &image{contents: map[*archive.File][]byte{}}
	if i.Tree, err = archive.Walk(ctx, archivePath, decoders, nil); err != nil {
		return nil, err
	}
	files, executables := map[int]*archive.File{}, map[int]*executable{} // to be read, by number
	for _, name := range i.wanted() {
		if n := i.Lookup(name, true); n != nil && n.File != nil {
			files[n.File.Number] = n.File
		}
	}
	for n := range i.Files() {
		number, name := n.File.Number, n.Path()
		if !n.File.Executable || files[number] != nil || path.Dir(name) == dpkgInfo {
			continue
		}
		if executables[number] == nil {
			executables[number] = &executable{}
		}
		i.programs = append(i.programs, program{executables[number], n.File, name, n.Layer})
	}
	if err := i.Err(); err != nil {
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
	_, err = archive.Walk(ctx, archivePath, decoders, func(_ int, h *tar.Header, body io.Reader) (err error) {
		number++
		body = contextio.NewReader(ctx, body)
		if f := files[number]; f != nil {
			i.contents[f], err = readContent(body, h.Size, &contentLeft)
		} else if e := executables[number]; e != nil {
			err = e.read(body, &programLeft, scratch)
		}
		if err != nil {
			return fmt.Errorf("%.200q: %w", h.Name, err)
		}
		return nil
	})
	return i, err
}

// readContent reads a file of that size, which the first reading of the archive has
// compared with what is there.
func readContent(body io.Reader, size int64, left *int64) ([]byte, error) {
	if *left -= size; *left < 0 {
		return nil, fmt.Errorf("package databases of more than %d bytes", maxContent)
	}
	content := make([]byte, size)
	_, err := io.ReadFull(body, content)
	return content, err
}

// content returns the content of the file at a path, nil if there is none.
func (i *image) content(name string) []byte {
	if n := i.Lookup(name, true); n != nil {
		return i.contents[n.File]
	}
	return nil
}

// list returns the paths of what is in a directory, sorted.
func (i *image) list(dir string) (all []string) {
	if n := i.Lookup(dir, true); n != nil {
		for _, name := range n.Names() {
			all = append(all, path.Join(dir, name))
		}
	}
	return all
}

// read hashes a program. One that Go may have built goes through a file,
// because the build information can be anywhere in it.
func (e *executable) read(body io.Reader, left *int64, scratch *os.File) error {
	sum1, sum256 := sha1.New(), sha256.New()
	var head [4]byte
	n, err := io.ReadFull(body, head[:])
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	}
	out := io.MultiWriter(sum1, sum256)
	isELF := string(head[:n]) == elf.ELFMAG
	if isELF {
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
	e.sha1, e.sha256, e.kind = fmt.Sprintf("%x", sum1.Sum(nil)), fmt.Sprintf("%x", sum256.Sum(nil)), "OTHER"
	switch {
	case isELF:
		e.kind = "BINARY"
		e.info, _ = buildinfo.Read(scratch) // an error: not built by Go
	case string(head[:min(n, 2)]) == "#!":
		e.kind = "SOURCE"
	}
	return nil
}
