// Package fetch brings helper tarballs into the input directory: from a registry,
// without an engine, or from an existing rpm or deb. It changes none of their
// bytes, and it writes next to each one a record of where it came from. It does
// not push, list tags or choose versions.
package fetch

import (
	"pretag/build/catalogue"
	"pretag/build/release"
)

// A Tarball is a helper tarball that is in the input directory now.
type Tarball struct {
	Helper  catalogue.Helper
	Path    string
	Origin  release.Origin // from a registry, the source is <reference>@<digest that the tag names>
	Kept    bool           // it was there already, with the same content
	Missing string         // why another tag was pulled than the one Runner asks for; "" if none was
}
