package archive

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"regexp"
	"strings"

	"pretag/build/internal/stricttar"
)

// Bounds on what the layers of an image may hold. A helper image has some 10,000 entries.
const (
	maxNames = 64 << 20 // all names together, bytes
	maxName  = 4096     // one name, bytes (PATH_MAX of Linux, limits.h)
	maxPaths = 1 << 18  // of all layers, with the directories that they imply
)

// A Visitor is called for each entry of a layer, with the number of the layer,
// from 0. Whiteouts are entries like any other. The body need not be read.
type Visitor func(layer int, header *tar.Header, body io.Reader) error

// An entryCheck validates the tar entries of an image's layers. It refuses what
// engines unpack wrongly, outside of the image, or not at all, and it remembers
// what is needed to look up the programs of the image.
type entryCheck struct {
	rootfs bool
	goarch string  // of the image; "" if it does not matter
	visit  Visitor // gets the bodies if it is set; programs are not looked at then
	tree   tree    // of all layers
	names  int     // bytes of names so far
	size   int64   // bytes that the files claim

	layers  int
	seen    map[string]node // of the current layer
	right   int             // programs in program directories, of the right machine
	foreign string          // describes one that is for another machine
}

func newEntryCheck(rootfs bool, goarch string) *entryCheck {
	return &entryCheck{rootfs: rootfs, goarch: goarch, tree: newTree()}
}

// layer reads one layer to its end.
func (c *entryCheck) layer(ctx context.Context, r io.Reader) error {
	c.seen = map[string]node{}
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
	c.tree.add(c.layers, c.seen)
	c.layers++
	if c.rootfs {
		return c.looksLikeRootfs()
	}
	return nil
}

// imageMember matches the members of image archives: of an OCI layout, of docker
// save (moby v28.5.2, image/tarexport/save.go), of podman save, of
// go-containerregistry (v0.22.1, pkg/v1/tarball/write.go), and of our own archives.
var imageMember = regexp.MustCompile(`^(oci-layout|index\.json|blobs/sha256/[0-9a-f]{64}|manifest\.json|layer(-[0-9]+)?\.tar|(sha256:)?[0-9a-f]{64}(\.json|\.tar|\.tar\.gz|/layer\.tar|/json|/VERSION)?)$`)

// looksLikeRootfs refuses an image archive that was not recognized as one,
// because its manifest is lost or its members are in an unusual order.
func (c *entryCheck) looksLikeRootfs() error {
	for _, dir := range []string{"usr", "etc", "bin"} {
		if _, ok := c.seen[dir]; ok {
			return nil
		}
	}
	for name, is := range c.seen {
		if is.kind == file && imageMember.MatchString(name) {
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
	name, err := inside(header.Name)
	if err != nil {
		return err
	}
	if len(header.Linkname) > maxName {
		return fmt.Errorf("link of %d bytes, at most %d", len(header.Linkname), maxName)
	}
	if c.names += len(name) + len(header.Linkname); c.names > maxNames {
		return fmt.Errorf("names of more than %d bytes together", maxNames)
	}
	if c.size += header.Size; c.size > MaxLayer || c.size < 0 {
		return fmt.Errorf("the files claim more than %d bytes", int64(MaxLayer))
	}
	is := node{kind: file}
	switch header.Typeflag {
	case tar.TypeReg, tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
	case tar.TypeDir:
		is.kind = directory
	case tar.TypeLink:
		is, err = c.hardLink(header.Linkname)
	case tar.TypeSymlink:
		is = node{kind: link, target: header.Linkname}
		err = symlink(name, header.Linkname)
	case tar.TypeCont:
		err = errors.New("contiguous file (type 7), which docker and podman refuse")
	case tar.TypeGNUSparse:
		err = errors.New("old GNU sparse file")
	default:
		err = fmt.Errorf("unknown type %q", header.Typeflag)
	}
	if err != nil {
		return err
	}
	if c.rootfs && strings.HasPrefix(path.Base(name), whiteout) {
		return errors.New("whiteout in a root filesystem")
	}
	if c.visit == nil && header.Typeflag == tar.TypeReg {
		if is.program, err = readProgram(body); err != nil {
			return err
		}
		c.note(name, is.program)
	}
	if err := c.place(name, is); err != nil {
		return err
	}
	if c.tree.size()+len(c.seen) > maxPaths {
		return fmt.Errorf("more than %d paths", maxPaths)
	}
	if c.visit != nil {
		return c.visit(c.layers, header, body)
	}
	return nil
}

// inside cleans a path and refuses one that leads out of the root.
func inside(name string) (string, error) {
	switch {
	case name == "":
		return "", errors.New("empty name")
	case len(name) > maxName:
		return "", fmt.Errorf("name of %d bytes, at most %d", len(name), maxName)
	case path.Clean(name) == "/": // kaniko writes the root itself like this
		return ".", nil
	case strings.HasPrefix(name, "/"):
		return "", errors.New("absolute path")
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == ".." {
			return "", errors.New(`path contains ".."`)
		}
	}
	return path.Clean(name), nil
}

// place records what name is. Each path may be in a layer once, and none may
// lead through something that is not a directory.
func (c *entryCheck) place(name string, is node) error {
	switch before := c.seen[name].kind; {
	case name == "." && is.kind != directory:
		return errors.New("the root is not a directory")
	case before == 0, before == implied && is.kind == directory:
	case before == implied:
		return errors.New("earlier entries are below it, but it is not a directory")
	default:
		return errors.New("is in the layer twice")
	}
	c.seen[name] = is
	for end := strings.LastIndexByte(name, '/'); end >= 0; end = strings.LastIndexByte(name[:end], '/') {
		dir := name[:end]
		switch c.seen[dir].kind {
		case 0:
			c.seen[dir] = node{kind: implied}
		case implied, directory:
			return nil // the directories above were recorded before
		case link:
			return fmt.Errorf("leads through the symbolic link %q", dir)
		default:
			return fmt.Errorf("leads through %q, which is not a directory", dir)
		}
	}
	return nil
}

// hardLink returns the file that a hard link names. It refuses a target that is
// not in the layer before the link. A target in a lower layer does not do: the
// overlay drivers unpack each layer by itself
// (podman 4.3.1 and Docker 20.10.24: "link /a /l: no such file or directory").
func (c *entryCheck) hardLink(target string) (node, error) {
	name, err := inside(target)
	if err != nil {
		return node{}, fmt.Errorf("hard link to %q: %w", target, err)
	}
	is := c.seen[name]
	if is.kind != file && is.kind != link {
		return node{}, fmt.Errorf("dangling hard link to %q", target)
	}
	return is, nil
}

// symlink refuses a relative target that climbs out of the root. An absolute
// one is looked up in the root.
func symlink(name, target string) error {
	if target == "" {
		return errors.New("symbolic link to nothing")
	}
	if !path.IsAbs(target) && strings.HasPrefix(path.Join(path.Dir(name), target)+"/", "../") {
		return fmt.Errorf("symbolic link to %q leads out of the root", target)
	}
	return nil
}
