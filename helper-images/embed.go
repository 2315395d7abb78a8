// Package helperimages carries the catalogue that the project ships. The folder
// is also where the input tarballs land; those are not in git.
package helperimages

import _ "embed"

// Catalogue is catalogue.yaml: which helpers there are.
//
//go:embed catalogue.yaml
var Catalogue []byte
