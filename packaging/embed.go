// Package packaging carries what the packages say and hold: package
// definitions, scriptlets, documents and the root/ overlay with the loader.
package packaging

import "embed"

// Files is this folder.
//
//go:embed *.yaml doc lint all:root all:scriptlets
var Files embed.FS
