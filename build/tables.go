package build

import (
	"fmt"
	"path/filepath"
	"strings"

	"pretag/build/archive"
	"pretag/build/fetch"
	"pretag/build/internal/text"
	"pretag/build/release"
)

// outcome describes how work on an archive ended, in a few words.
func outcome(o archive.Outcome) string {
	switch {
	case isInterrupt(o.Err):
		return "interrupted"
	case o.Err != nil:
		return "failed"
	case o.Kept:
		return "kept " + o.Archive.Name
	}
	return fmt.Sprintf("%s, %s in %.1f s", o.Archive.Name, text.Bytes(o.Archive.Size), o.Took.Seconds())
}

func archiveTable(outcomes []archive.Outcome) [][]string {
	rows := [][]string{{"HELPER", "PLATFORM", "IMAGE ID", "INPUT", "UNPACKED", "ARCHIVE", "TIME", "REPOTAG"}}
	for _, o := range outcomes {
		f, took := o.Archive, fmt.Sprintf("%.1f s", o.Took.Seconds())
		if o.Kept {
			took = "kept"
		}
		id := strings.TrimPrefix(f.ImageID, "sha256:")
		rows = append(rows, []string{
			f.Helper, f.Platform, id[:min(12, len(id))], text.Bytes(f.Input.Size), text.Bytes(f.UnpackedSize), text.Bytes(f.Size), took, f.RepoTag,
		})
	}
	return rows
}

func packageTable(packages []release.Package) [][]string {
	rows := [][]string{{"SIZE", "PACKAGE"}}
	for _, p := range packages {
		rows = append(rows, []string{text.Bytes(p.Size), filepath.Join(p.Format, p.File)})
	}
	return rows
}

func tarballTable(tarballs []fetch.Tarball) [][]string {
	rows := [][]string{{"HELPER", "FILE", "SIZE", "SOURCE", ""}}
	for _, t := range tarballs {
		kept := ""
		if t.Kept {
			kept = "kept"
		}
		rows = append(rows, []string{t.Helper.String(), t.Path, text.Bytes(t.Origin.Size), t.Origin.Source, kept})
	}
	return rows
}
