package sbom

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sync/errgroup"

	"pretag/build/catalogue"
	"pretag/build/internal/atomicfile"
	"pretag/build/release"
)

// Files are what Build writes for one archive.
type Files struct {
	Document string   // path of the SPDX document
	Licenses string   // path of the licenses of all packages, as text
	Warnings []string // why the document may lack packages
}

// Build writes the documents of the archives into dir, jobs at a time. The result has
// the order of the archives.
func Build(ctx context.Context, dir string, archives []release.Archive, jobs int) ([]Files, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	all := make([]Files, len(archives))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(jobs)
	for i, f := range archives {
		group.Go(func() error {
			files := &all[i]
			files.Document = filepath.Join(dir, Name(f.Name))
			files.Licenses = filepath.Join(dir, strings.TrimSuffix(f.Name, catalogue.Suffix)+".licences.txt")
			document, err := Write(ctx, files.Document, f)
			if err != nil {
				return fmt.Errorf("%s: %w", f.Helper, err)
			}
			files.Warnings = document.Summary().Warnings
			return atomicfile.WriteBytes(files.Licenses, document.Licenses())
		})
	}
	return all, group.Wait()
}
