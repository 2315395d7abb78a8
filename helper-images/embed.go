// Package helperimages holds the tables that the project ships. Input tarballs
// land in the same directory; they are not in git.
package helperimages

import _ "embed"

// Catalogue is catalogue.yaml: the helper images of each Runner version.
//
//go:embed catalogue.yaml
var Catalogue []byte

// Revisions is revisions.tsv: the git revision of each released Runner version.
//
//go:embed revisions.tsv
var Revisions string
