package archive

import (
	"path"
	"strings"
)

// Whiteouts are files that remove what lower layers hold (OCI image-spec v1.1, layer.md).
const (
	whiteout = ".wh."
	opaque   = ".wh..wh..opq"
)

// maxHops bounds the symbolic links on the way to a file, as Linux does
// (v6.1, include/linux/namei.h, MAXSYMLINKS).
const maxHops = 40

// A node is what a path is.
type node struct {
	kind    kind
	layer   int      // that it comes from
	target  string   // of a symbolic link
	program *program // that the file is; nil if it is none
}

// kind is the kind of a node.
type kind byte

const (
	implied kind = iota + 1 // the directory of an entry, without an entry of its own
	directory
	file
	link // symbolic
)

// A tree is the file tree of an image. Removals by upper layers are not carried
// out, which could take time quadratic in the number of paths. They are looked at
// when a path is looked up.
type tree struct {
	nodes   map[string]node
	removed map[string]int // paths that a layer removed or replaced by something else than a directory
	emptied map[string]int // directories whose lower contents a layer removed
}

func newTree() tree {
	return tree{nodes: map[string]node{".": {kind: directory}}, removed: map[string]int{}, emptied: map[string]int{}}
}

func (t *tree) size() int { return len(t.nodes) + len(t.removed) + len(t.emptied) }

// add puts a layer on top of those below.
func (t *tree) add(layer int, nodes map[string]node) {
	for name, is := range nodes {
		dir, base := path.Split(name)
		switch {
		case base == opaque:
			t.emptied[path.Clean(dir)] = layer
			continue
		case strings.HasPrefix(base, whiteout):
			t.removed[path.Join(dir, strings.TrimPrefix(base, whiteout))] = layer
			continue
		}
		below, known := t.nodes[name]
		isDir := is.kind == directory || is.kind == implied
		wasDir := below.kind == directory || below.kind == implied
		if known && isDir && wasDir {
			continue // its contents are merged
		}
		if known {
			t.removed[name] = max(t.removed[name], layer)
		}
		is.layer = layer
		t.nodes[name] = is
	}
}

// get returns the node at a path whose parents are not symbolic links.
func (t *tree) get(name string) (node, bool) {
	is, ok := t.nodes[name]
	if !ok {
		return node{}, false
	}
	isDir := is.kind == directory || is.kind == implied
	if at, ok := t.removed[name]; ok && is.layer < at && !isDir {
		return node{}, false
	}
	for dir := name; dir != "."; {
		dir = path.Dir(dir)
		if at, ok := t.emptied[dir]; ok && is.layer < at && !isDir {
			return node{}, false
		}
		if at, ok := t.removed[dir]; ok && is.layer < at && !isDir {
			return node{}, false
		}
	}
	return is, true
}

// find looks a path up from the root, component by component, and follows
// symbolic links. It returns the path of what it found.
func (t *tree) find(name string) (string, node, bool) {
	at, is := ".", t.nodes["."]
	rest := strings.Split(path.Clean("/" + name)[1:], "/")
	for hops := 0; len(rest) > 0; {
		part := rest[0]
		rest = rest[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			at = path.Dir(at)
			continue
		}
		next := path.Join(at, part)
		var ok bool
		if is, ok = t.get(next); !ok {
			return next, node{}, false
		}
		if is.kind != link {
			at = next
			continue
		}
		if hops++; hops > maxHops {
			return next, node{}, false
		}
		if path.IsAbs(is.target) {
			at = "."
		}
		rest = append(strings.Split(is.target, "/"), rest...)
	}
	is, ok := t.get(at)
	return at, is, ok
}
