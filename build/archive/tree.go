package archive

import (
	"archive/tar"
	"errors"
	"fmt"
	"iter"
	"maps"
	"path"
	"slices"
	"strings"
)

// Limits on the tree of an image. A helper image has some 10,000 entries.
const (
	maxName  = 4096    // bytes of a path, or of a link's target (PATH_MAX of Linux, limits.h)
	maxNodes = 1 << 18 // of all layers, with the directories that paths imply
	maxHops  = 40      // symbolic links in one path (MAXSYMLINKS of Linux 6.1, include/linux/namei.h)
	maxSteps = 1 << 24 // path components that are followed or hidden, for the whole image
)

// Whiteouts are entries that hide what lower layers have (OCI image-spec v1.1, layer.md).
const (
	whiteout = ".wh."
	opaque   = ".wh..wh..opq"
)

// A Tree is what the layers of an image show, one on top of the other.
type Tree struct {
	root    *Node
	layer   int // that entries are added to
	entries int // added so far
	nodes   int // ever made
	steps   int // left
}

// A Node is a file, a directory or a symbolic link. Whiteouts are nodes without a File.
type Node struct {
	File  *File // of a regular file, the same for all of its hard links
	Layer int   // the topmost one that has the path or something below it

	name     string
	parent   *Node            // the root is its own parent
	children map[string]*Node // nil unless it is a directory
	target   string           // of a symbolic link
	entry    bool             // Layer has an entry for it; else it is a directory that paths imply
}

// A File is the content of a regular file.
type File struct {
	Number     int // of the entry with the content, from 0 over all layers
	Executable bool

	program *program // nil if it is none or was not looked at
}

// NewTree returns an empty tree, ready for the entries of the lowest layer.
func NewTree() *Tree {
	root := &Node{children: map[string]*Node{}, Layer: -1}
	root.parent = root
	return &Tree{root: root, steps: maxSteps}
}

// Add adds an entry of the current layer. It refuses what engines unpack wrongly,
// outside of the image, or not at all: each path may be in a layer once, and none
// may lead through something that is not a directory.
func (t *Tree) Add(header *tar.Header) (*Node, error) {
	name, err := inside(header.Name)
	if err != nil {
		return nil, err
	}
	if len(header.Linkname) > maxName {
		return nil, fmt.Errorf("link of %d bytes, at most %d", len(header.Linkname), maxName)
	}
	n := &Node{entry: true, Layer: t.layer}
	switch header.Typeflag {
	case tar.TypeReg:
		n.File = &File{Number: t.entries, Executable: header.Mode&0o111 != 0}
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
	case tar.TypeDir:
		n.children = map[string]*Node{}
	case tar.TypeLink:
		n.File, n.target, err = t.hardLink(header.Linkname)
	case tar.TypeSymlink:
		n.target = header.Linkname
		err = symlink(name, header.Linkname)
	case tar.TypeCont:
		err = errors.New("contiguous file (type 7), which docker and podman refuse")
	case tar.TypeGNUSparse:
		err = errors.New("old GNU sparse file")
	default:
		err = fmt.Errorf("unknown type %q", header.Typeflag)
	}
	if err != nil {
		return nil, err
	}
	t.entries++
	if n, err = t.place(name, n); err != nil {
		return nil, err
	}
	return n, t.Err()
}

// Err reports a limit that was exceeded.
func (t *Tree) Err() error {
	if t.nodes > maxNodes {
		return fmt.Errorf("more than %d paths", maxNodes)
	}
	if t.steps < 0 {
		return errors.New("following the paths and links of the image takes too many steps")
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

// hardLink returns what a hard link leads to. It refuses a target that is not in
// the layer before the link. A target in a lower layer does not do: the overlay
// drivers unpack each layer by itself
// (podman 4.3.1 and Docker 20.10.24: "link /a /l: no such file or directory").
func (t *Tree) hardLink(target string) (_ *File, symlink string, err error) {
	name, err := inside(target)
	if err != nil {
		return nil, "", fmt.Errorf("hard link to %q: %w", target, err)
	}
	n := t.root
	for part := range strings.SplitSeq(name, "/") {
		if n = n.children[part]; n == nil {
			break
		}
	}
	if n == nil || n.Layer != t.layer || n.children != nil {
		return nil, "", fmt.Errorf("dangling hard link to %q", target)
	}
	return n.File, n.target, nil
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

// place puts n at a path and returns the node that is there then: a directory of
// a lower layer stays, with what is in it.
func (t *Tree) place(name string, n *Node) (*Node, error) {
	if name == "." {
		if n.children == nil {
			return nil, errors.New("the root is not a directory")
		}
		return t.put(t.root, t.root, name, n)
	}
	parent := t.root
	dir, base := path.Split(name)
	for part := range strings.SplitSeq(strings.TrimSuffix(dir, "/"), "/") {
		if part == "" { // dir is the root
			break
		}
		next := parent.children[part]
		switch {
		case next == nil || next.children == nil && next.Layer < t.layer:
			next = t.link(parent, part, &Node{children: map[string]*Node{}, Layer: t.layer})
		case next.target != "":
			return nil, fmt.Errorf("leads through the symbolic link %q", next.Path())
		case next.children == nil:
			return nil, fmt.Errorf("leads through %q, which is not a directory", next.Path())
		case next.Layer < t.layer:
			next.Layer, next.entry = t.layer, false
		}
		parent = next
	}
	n, err := t.put(parent, parent.children[base], base, n)
	if hidden, ok := strings.CutPrefix(base, whiteout); ok && err == nil {
		n.File = nil
		if base == opaque {
			t.hide(parent)
		} else if below := parent.children[hidden]; below != nil && t.hide(below) {
			delete(parent.children, hidden)
		}
	}
	return n, err
}

// put puts n below parent, where before is now.
func (t *Tree) put(parent, before *Node, name string, n *Node) (*Node, error) {
	switch {
	case before == nil || before.Layer < t.layer && (before.children == nil || n.children == nil):
		return t.link(parent, name, n), nil
	case before.Layer == t.layer && before.entry:
		return nil, errors.New("is in the layer twice")
	case n.children == nil:
		return nil, errors.New("earlier entries are below it, but it is not a directory")
	}
	before.Layer, before.entry = t.layer, true
	return before, nil
}

func (t *Tree) link(parent *Node, name string, n *Node) *Node {
	n.name, n.parent = name, parent
	parent.children[name] = n
	t.nodes++
	return n
}

// hide removes what lower layers have at n and below it, and reports whether
// nothing is left.
func (t *Tree) hide(n *Node) bool {
	if t.steps--; t.steps < 0 {
		return false
	}
	for name, child := range n.children {
		if t.hide(child) {
			delete(n.children, name)
		}
	}
	return n.Layer < t.layer && len(n.children) == 0
}

// Lookup returns the node at a path as a program in the image would see it: links
// in the path are followed, and so is a last one if follow is set. It returns nil if
// there is none, if the path has too many links, or if no steps are left (see Err).
func (t *Tree) Lookup(name string, follow bool) *Node {
	if len(name) > maxName {
		return nil
	}
	n, hops := t.root, 0
	for rest, more := name, true; more; {
		var part string
		part, rest, more = strings.Cut(rest, "/")
		if t.steps--; t.steps < 0 {
			return nil
		}
		switch part {
		case "", ".":
			continue
		case "..":
			n = n.parent
			continue
		}
		next := n.children[part]
		if next == nil {
			return nil
		}
		if next.target == "" || !more && !follow {
			n = next
			continue
		}
		if hops++; hops > maxHops || len(rest) > maxHops*maxName {
			return nil
		}
		if path.IsAbs(next.target) {
			n = t.root
		}
		rest, more = next.target+"/"+rest, true
		t.steps -= len(rest) / 64
	}
	return n
}

// Files yields the regular files, in no order.
func (t *Tree) Files() iter.Seq[*Node] {
	return func(yield func(*Node) bool) { t.root.files(yield) }
}

func (n *Node) files(yield func(*Node) bool) bool {
	for _, child := range n.children {
		if child.File != nil && !yield(child) || !child.files(yield) {
			return false
		}
	}
	return true
}

// Names returns the names in a directory, sorted.
func (n *Node) Names() []string { return slices.Sorted(maps.Keys(n.children)) }

// Path returns the path of the node itself, without a leading slash.
func (n *Node) Path() string {
	if n.parent == n {
		return ""
	}
	return path.Join(n.parent.Path(), n.name)
}
