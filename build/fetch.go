package build

import (
	"cmp"
	"context"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"pretag/build/catalogue"
	"pretag/build/internal/text"
	"pretag/build/registry"
	"pretag/build/unpack"
)

// Pull fetches the selected helpers from the registry into the input folder, as
// oci-archives.
func Pull(ctx context.Context, c Config, ui *UI) error {
	unlock, err := lockOut(c.Inputs)
	if err != nil {
		return err
	}
	defer unlock()
	var requests []registry.Request
	for _, h := range c.Helpers {
		requests = append(requests, registry.Request{
			Helper: h.String(), Tag: h.Tag(c.Version), Path: filepath.Join(c.Inputs, h.String()+".tar"), Platform: h.Platform,
		})
	}
	progress := ui.Progress(len(c.Helpers))
	images, err := registry.Pull(ctx, registry.Options{Repository: c.Repository, Jobs: c.Jobs, Progress: progress.At}, requests)
	progress.Close()
	rows := [][]string{{"HELPER", "FILE", "SIZE", "DIGEST", ""}}
	for _, image := range images {
		rows = append(rows, []string{image.Helper, image.Path, text.Bytes(image.Origin.Size), image.Origin.Digest, keptWord(!image.Fetched)})
	}
	if len(images) > 0 {
		ui.Table(rows)
	}
	return err
}

// Unpack takes the helper tarballs out of a package into the input folder, and
// says how to go on.
func Unpack(ctx context.Context, c Config, file string, ui *UI) error {
	unlock, err := lockOut(c.Inputs)
	if err != nil {
		return err
	}
	defer unlock()
	progress := ui.Progress(len(c.Helpers))
	found, err := unpack.Unpack(ctx, file, unpack.Options{Catalogue: c.Catalogue, Folder: c.Inputs, Progress: progress.At})
	progress.Close()
	if err != nil {
		return err
	}
	rows := [][]string{{"HELPER", "FILE", "SIZE", "SHA256", ""}}
	for _, t := range found.Tarballs {
		rows = append(rows, []string{t.Helper.String(), t.Path, text.Bytes(t.Origin.Size), t.Origin.SHA256, keptWord(t.Kept)})
	}
	ui.Table(rows)
	for _, unknown := range found.Unknown {
		ui.Warn("%s: no helper of the catalogue has a tarball of this name; left in the package", unknown)
	}
	what := strings.Join(strings.Fields(found.Name+" "+found.Version), " ") // in one line
	ui.Say("\n%s holds %s. To rebuild it:\n\n    %s go tool mage package\n", file, what, c.settings(found))
	return nil
}

// settings spells the variables that rebuild a package.
func (c Config) settings(found unpack.Package) string {
	version := found.Version
	if version == "0.0.0~"+catalogue.Latest { // as linuxpkg spells it
		version = catalogue.Latest
	}
	line := "RUNNER_VERSION=" + version
	v, err := catalogue.ParseVersion(version, "")
	if err == nil && v.Revision() != "" && found.Revision != "" && found.Revision != v.Revision() { // a patched Runner's
		line += " RUNNER_REVISION=" + found.Revision
	}
	if err != nil { // below 16.8.0, and not a released version
		line += " RUNNER_REVISION=" + cmp.Or(found.Revision, "<first 8 digits of the commit>")
		v, err = catalogue.ParseVersion(version, cmp.Or(found.Revision, "00000000"))
	}
	if err != nil { // the package's word, fit for no shell
		line = "RUNNER_VERSION=<version of GitLab Runner>"
	}
	if regexp.MustCompile(`^[1-9][0-9]*$`).MatchString(found.Release) {
		line += " PACKAGES_ITERATION=" + found.Release
	}
	var names, usual []string
	for _, t := range found.Tarballs {
		names = append(names, t.Helper.String())
	}
	for _, h := range c.Catalogue.Default(v) {
		usual = append(usual, h.String())
	}
	slices.Sort(names)
	slices.Sort(usual)
	if err != nil || !slices.Equal(names, usual) {
		line += " HELPERS=" + strings.Join(names, ",")
	}
	return line
}

func keptWord(kept bool) string {
	if kept {
		return "was there"
	}
	return ""
}
