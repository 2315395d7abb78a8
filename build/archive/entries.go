package archive

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"pretag/build/internal/stricttar"
	"pretag/build/tarball"
)

// maxNames bounds the names in the layers of an image, bytes.
const maxNames = 64 << 20

// A Visitor is called for each entry of a layer, with the number of the layer,
// from 0. Whiteouts are entries like any other. The body need not be read.
type Visitor func(layer int, header *tar.Header, body io.Reader) error

// An entryCheck validates the tar entries of an image's layers, and keeps the tree
// of its files, in which the programs of the image are looked up.
type entryCheck struct {
	rootfs  bool
	goarch  string  // of the image; "" if it does not matter
	visit   Visitor // gets the bodies if it is set; programs are not looked at then
	tree    *Tree   // of all layers
	names   int     // bytes of names so far
	size    int64   // bytes that the files claim
	right   int     // programs in program directories, of the right machine
	foreign string  // describes one that is for another machine
}

func newEntryCheck(rootfs bool, goarch string) *entryCheck {
	return &entryCheck{rootfs: rootfs, goarch: goarch, tree: NewTree()}
}

// layer reads one layer to its end.
func (c *entryCheck) layer(ctx context.Context, r io.Reader) error {
	tr := stricttar.NewReader(r)
	n := 0
	for ; ; n++ {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		header, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if errors.Is(err, tar.ErrHeader) && n == 0 {
			return errors.New("not a tar file")
		}
		if err != nil {
			return fmt.Errorf("entry %d: %w", n+1, err)
		}
		if err := c.entry(header, tr); err != nil {
			return fmt.Errorf("entry %.200q: %w", header.Name, err)
		}
	}
	// A layer of an image may be empty: builders write one for a step that
	// changes no file, such as WORKDIR on an existing directory (BuildKit,
	// buildah commit). An empty root filesystem is an error.
	if c.rootfs && n == 0 {
		return errors.New("no entries")
	}
	c.tree.layer++
	if c.rootfs {
		return c.looksLikeRootfs()
	}
	return nil
}

// looksLikeRootfs refuses an image archive that was not recognized as one,
// because its manifest is lost or its members are in an unusual order.
func (c *entryCheck) looksLikeRootfs() error {
	for _, dir := range []string{"usr", "etc", "bin"} {
		if c.tree.root.children[dir] != nil {
			return nil
		}
	}
	for n := range c.tree.Files() {
		if name := n.Path(); tarball.IsImageMember(name) {
			return fmt.Errorf("not a root filesystem: it holds %s, as image archives do, but no usr, etc or bin. "+
				"If it is an image archive, its manifest.json or oci-layout is missing, or its members are in an unusual order: decompress it first", name)
		}
	}
	return nil
}

func (c *entryCheck) entry(header *tar.Header, body io.Reader) error {
	if header.Typeflag == tar.TypeXGlobalHeader { // engines pass over it
		return nil
	}
	if c.names += len(header.Name) + len(header.Linkname); c.names > maxNames {
		return fmt.Errorf("names of more than %d bytes together", maxNames)
	}
	if c.size += header.Size; c.size > MaxLayer || c.size < 0 {
		return fmt.Errorf("the files claim more than %d bytes", int64(MaxLayer))
	}
	n, err := c.tree.Add(header)
	if err != nil {
		return err
	}
	if c.rootfs && strings.HasPrefix(n.name, whiteout) {
		return errors.New("whiteout in a root filesystem")
	}
	if c.visit != nil {
		return c.visit(c.tree.layer, header, body)
	}
	if header.Typeflag == tar.TypeReg && n.File != nil {
		if n.File.program, err = readProgram(body); err != nil {
			return err
		}
		c.note(n)
	}
	return nil
}
