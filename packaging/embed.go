// Package packaging holds what the packages say and carry: package definitions,
// scriptlets, documents, license texts, and the root/ overlay of the loader's package.
package packaging

import "embed"

// Files is this directory.
//
//go:embed *.yaml doc lint licenses root/etc root/usr/lib root/usr/share all:scriptlets
var Files embed.FS
