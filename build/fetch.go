package build

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"pretag/build/catalogue"
	"pretag/build/registry"
	"pretag/build/release"
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
	meter := ui.Meter()
	images, err := registry.Pull(ctx, registry.Options{Repository: c.Repository, Jobs: c.Jobs, Progress: meter.At}, requests)
	meter.Close()
	rows := [][]string{{"HELPER", "FILE", "SIZE", "DIGEST", ""}}
	for _, image := range images {
		rows = append(rows, []string{image.Helper, image.Path, Bytes(image.Origin.Size), image.Origin.Digest, keptWord(!image.Fetched)})
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
	meter := ui.Meter()
	found, err := unpack.Unpack(ctx, file, unpack.Options{Catalogue: c.Catalogue, Folder: c.Inputs, Progress: meter.At})
	meter.Close()
	if err != nil {
		return err
	}
	rows := [][]string{{"HELPER", "FILE", "SIZE", "SHA256", ""}}
	for _, t := range found.Tarballs {
		rows = append(rows, []string{t.Helper.String(), t.Path, Bytes(t.Origin.Size), t.Origin.SHA256, keptWord(t.Kept)})
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
	text := "RUNNER_VERSION=" + version
	v, err := catalogue.ParseVersion(version, "")
	if err == nil && v.Revision() != "" && found.Revision != "" && found.Revision != v.Revision() { // a patched Runner's
		text += " RUNNER_REVISION=" + found.Revision
	}
	if err != nil { // below 16.8.0, and not a released version
		text += " RUNNER_REVISION=" + cmp.Or(found.Revision, "<first 8 digits of the commit>")
		v, err = catalogue.ParseVersion(version, cmp.Or(found.Revision, "00000000"))
	}
	if err != nil { // the package's word, fit for no shell
		text = "RUNNER_VERSION=<version of GitLab Runner>"
	}
	if regexp.MustCompile(`^[1-9][0-9]*$`).MatchString(found.Release) {
		text += " PACKAGES_ITERATION=" + found.Release
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
		text += " HELPERS=" + strings.Join(names, ",")
	}
	return text
}

func keptWord(kept bool) string {
	if kept {
		return "was there"
	}
	return ""
}

// inputSource says where the input came from, where its side file speaks of
// these bytes.
func inputSource(path string, in release.Input) (string, error) {
	o, err := release.ReadOrigin(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", nil
	case err != nil:
		return "", err
	case o.SHA256 != in.SHA256:
		return "", nil
	case o.Digest != "" && o.Digest != in.Digest:
		return "", fmt.Errorf("%s: digest is %s, %s%s says %s", path, in.Digest, path, release.OriginSuffix, o.Digest)
	}
	return o.Source, nil
}

// pulledFor reports a tarball that was pulled for another version of Runner: its
// archive would bear a tag that belongs to another image.
func (c Config) pulledFor(in input) error {
	o, err := release.ReadOrigin(in.path)
	reference, _, _ := strings.Cut(o.Source, "@")
	if err != nil || o.Size != in.size || !strings.Contains(reference, "/") { // another's, or a package's file name
		return nil
	}
	tag := reference[strings.LastIndex(reference, ":")+1:]
	standIn, _ := c.Catalogue.Lookup(in.helper.StandIn(c.Version))
	if want := in.helper.Tag(c.Version); tag != want && tag != standIn.Tag(c.Version) {
		return fmt.Errorf("%s: was pulled as %s, want %s: remove it and pull again", in.path, tag, want)
	}
	return nil
}
