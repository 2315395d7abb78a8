package sbom

import (
	"archive/tar"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
)

// Limits on the tree of an image.
const (
	maxPath  = 4096    // bytes of a path (PATH_MAX of Linux, limits.h)
	maxHops  = 40      // symbolic links in one path (MAXSYMLINKS of Linux 6.1, include/linux/namei.h)
	maxNodes = 1 << 20 // a helper image has about 10,000
	maxSteps = 1 << 24 // path components that are followed or hidden, for the whole image
)

// A tree is what the layers of an image show, one on top of the other. Paths have
// no leading slash.
type tree struct {
	root  *node
	nodes int // ever made
	steps int // left
	files int // entries so far
}

// A node is a file, a directory or a link.
type node struct {
	children map[string]*node // nil unless it is a directory
	target   string           // of a symbolic link
	file     *file            // of a regular file, the same for all of its hard links
	layer    int              // that it is from
}

func newTree() *tree {
	return &tree{root: &node{children: map[string]*node{}}, steps: maxSteps}
}

func clean(name string) string { return strings.TrimPrefix(path.Join("/", name), "/") }

// add adds an entry of a layer. Entries are numbered from 0 in the order of add.
func (t *tree) add(layer int, h *tar.Header) error {
	number := t.files
	t.files++
	name := clean(h.Name)
	if len(name) > maxPath || len(h.Linkname) > maxPath {
		return fmt.Errorf("path of more than %d bytes", maxPath)
	}
	if name == "" { // the root itself
		return nil
	}
	dir, base := path.Split(name)
	// whiteouts hide what lower layers have (image-spec v1.1, layer.md)
	if hidden, ok := strings.CutPrefix(base, ".wh."); ok {
		if base != ".wh..wh..opq" {
			dir = path.Join(dir, hidden)
		}
		if n := t.find(dir); n != nil && t.hide(n, layer) && base != ".wh..wh..opq" {
			delete(t.find(path.Dir(dir)).children, hidden)
		}
		return t.check()
	}
	parent := t.root
	for part := range strings.SplitSeq(strings.TrimSuffix(dir, "/"), "/") {
		if part != "" {
			parent = t.directory(parent, part, layer)
		}
	}
	if h.Typeflag == tar.TypeDir {
		t.directory(parent, base, layer).layer = layer
		return t.check()
	}
	n := &node{layer: layer}
	switch h.Typeflag {
	case tar.TypeReg:
		n.file = &file{number: number, executable: h.Mode&0o111 != 0}
	case tar.TypeSymlink:
		n.target = h.Linkname
	case tar.TypeLink:
		if to := t.find(h.Linkname); to != nil {
			n.file, n.target = to.file, to.target
		}
	}
	parent.children[base] = n
	t.nodes++
	return t.check()
}

// directory returns the child of that name, made a directory if it is not one.
func (t *tree) directory(parent *node, name string, layer int) *node {
	n := parent.children[name]
	if n == nil || n.children == nil {
		n = &node{children: map[string]*node{}, layer: layer}
		parent.children[name] = n
		t.nodes++
	}
	return n
}

// hide removes what layers below have at n, and reports whether nothing is left.
func (t *tree) hide(n *node, layer int) bool {
	if t.steps--; t.steps < 0 {
		return false
	}
	for name, child := range n.children {
		if t.hide(child, layer) {
			delete(n.children, name)
		}
	}
	return n.layer < layer && len(n.children) == 0
}

// check reports a limit that was exceeded.
func (t *tree) check() error {
	if t.nodes > maxNodes {
		return fmt.Errorf("image of more than %d files and directories", maxNodes)
	}
	if t.steps < 0 {
		return errors.New("following the paths and links of the image takes too many steps")
	}
	return nil
}

// find returns the node at a path, links not followed; nil if there is none.
func (t *tree) find(name string) *node {
	n := t.root
	for part := range strings.SplitSeq(clean(name), "/") {
		if part != "" && n != nil {
			n = n.children[part]
		}
	}
	return n
}

// lookup returns the node at a path as a program in the image would see it: links
// in it are followed, and so is a last one if follow is set. It returns nil if there
// is none, or too many links, or no steps are left.
func (t *tree) lookup(name string, follow bool) *node {
	if len(name) > maxPath {
		return nil
	}
	way := []*node{t.root} // from the root to where we are
	hops := 0
	for rest, more := name, true; more; {
		var part string
		part, rest, more = strings.Cut(rest, "/")
		if t.steps--; t.steps < 0 {
			return nil
		}
		if part == "" || part == "." {
			continue
		}
		if part == ".." {
			way = way[:max(1, len(way)-1)]
			continue
		}
		n := way[len(way)-1].children[part]
		if n == nil {
			return nil
		}
		if n.target == "" || !more && !follow {
			way = append(way, n)
			continue
		}
		if hops++; hops > maxHops || len(rest) > maxHops*maxPath {
			return nil
		}
		if path.IsAbs(n.target) {
			way = way[:1]
		}
		if !more {
			rest = n.target
		} else {
			rest = n.target + "/" + rest
		}
		more = true
		t.steps -= len(rest) / 64
	}
	return way[len(way)-1]
}

// content returns the content of the file at a path, nil if there is none.
func (t *tree) content(name string) []byte {
	if n := t.lookup(name, true); n != nil && n.file != nil {
		return n.file.content
	}
	return nil
}

// list returns the paths of what is in a directory, sorted.
func (t *tree) list(dir string) []string {
	var all []string
	if n := t.lookup(dir, true); n != nil {
		for name := range n.children {
			all = append(all, path.Join(dir, name))
		}
	}
	slices.Sort(all)
	return all
}

// walk calls visit for each regular file under its real path.
func (n *node) walk(dir string, visit func(name string, n *node)) {
	for name, child := range n.children {
		if name = path.Join(dir, name); child.file != nil {
			visit(name, child)
		}
		child.walk(name, visit)
	}
}
