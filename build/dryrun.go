package build

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"pretag/build/archive"
	"pretag/build/internal/text"
	"pretag/build/linuxpkg"
	"pretag/build/release"
)

// list shows the packages that Package would make, with the sizes that an earlier run
// left in OUT. It writes nothing. Tarballs that Package would miss are an error.
func (c Config) list(ctx context.Context, ui *UI) error {
	var archives []release.Archive
	sizes := map[string]int64{} // of the archives that exist
	for _, h := range c.Helpers {
		f, err := release.ReadArchive(filepath.Join(c.Out, release.ArchivesDir, h.File()))
		if info, statErr := os.Stat(f.Path); err == nil && statErr == nil && f.Version == c.Version.String() {
			sizes[h.File()] = info.Size()
		}
		archives = append(archives, release.Archive{Helper: h.String(), Name: h.File(), Version: c.Version.String(), Compression: c.Compression.String()})
	}
	options := c.packageOptions("", nil, nil)
	options.Loaders = map[string]string{}
	for _, goarch := range c.hostArches() {
		options.Loaders[goarch] = ""
	}
	result, err := linuxpkg.List(options, archives)
	if err != nil {
		return err
	}
	for _, warning := range result.Warnings {
		ui.Warn("%s", warning)
	}
	rows := [][]string{{"PACKAGE", "ARCH", "SIZE", "ARCHIVES", "SIZE OF ARCHIVES"}}
	for _, p := range result.Packages {
		size := "not built"
		file := filepath.Join(p.Format, p.File)
		if info, err := os.Stat(filepath.Join(c.Out, file)); err == nil {
			size = text.Bytes(info.Size())
		}
		var sum int64
		built := 0
		for _, name := range p.Archives {
			if size, ok := sizes[name]; ok {
				sum += size
				built++
			}
		}
		of := text.Bytes(sum)
		if built < len(p.Archives) {
			of = fmt.Sprintf("%d not built", len(p.Archives)-built)
		}
		rows = append(rows, []string{file, p.Arch, size, fmt.Sprint(len(p.Archives)), of})
	}
	ui.Table(rows)
	ui.Say("dry run: nothing was written; the sizes are those of files that an earlier run left in %s", c.Out)
	_, err = archive.Inputs(ctx, c.archiveOptions())
	return err
}
