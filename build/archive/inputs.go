package archive

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"pretag/build/catalogue"
	"pretag/build/internal/filestamp"
	"pretag/build/release"
	"pretag/build/tarball"
)

// An input is where a helper's image comes from.
type input struct {
	helper catalogue.Helper
	path   string // of the tarball; "" if there is none: then the archive of an earlier build is needed
	size   int64  // of the tarball, bytes
	stamp  filestamp.Stamp
}

// Inputs returns the paths of the tarballs that Build would read. A helper
// that has neither a tarball nor an archive with its record is an error.
func Inputs(ctx context.Context, o Options) ([]string, error) {
	found, err := o.inputs(ctx)
	if err == nil {
		err = o.missing(found.inputs)
	}
	var paths []string
	for _, in := range found.inputs {
		if in.path != "" {
			paths = append(paths, in.path)
		}
	}
	return paths, err
}

// found is what is in the directory of the tarballs.
type found struct {
	inputs  []input
	unknown []string // tarballs that belong to no helper
	notes   []string // which tarball was taken of two
}

// inputs finds the tarball of each helper. Helpers with more than one are
// reported together.
func (o Options) inputs(ctx context.Context) (f found, err error) {
	files, err := listFiles(o.Inputs)
	if err != nil {
		return f, err
	}
	f.unknown = o.unknown(files)
	var errs []error
	for _, h := range o.Helpers {
		in, note, err := o.input(ctx, h, files)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", h, err))
		}
		f.inputs = append(f.inputs, in)
		if note != "" && !slices.Contains(f.notes, note) {
			f.notes = append(f.notes, note)
		}
	}
	return f, errors.Join(errs...)
}

// listFiles returns the files in a directory by name. Symbolic links are
// followed; a broken one is listed as a link.
func listFiles(dir string) (map[string]fs.FileInfo, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	files := map[string]fs.FileInfo{}
	for _, entry := range entries {
		info, err := os.Stat(filepath.Join(dir, entry.Name()))
		if err != nil {
			info, err = entry.Info()
		}
		if err == nil { // else it was removed in the meantime
			files[entry.Name()] = info
		}
	}
	return files, nil
}

// input finds the tarball of h, or else of its stand-in. note is empty unless there
// were two.
func (o Options) input(ctx context.Context, h catalogue.Helper, files map[string]fs.FileInfo) (_ input, note string, err error) {
	names, err := o.candidates(h, files)
	if standIn, ok := o.Catalogue.Lookup(h.StandIn(o.Version)); err == nil && ok && len(names) == 0 {
		names, err = o.candidates(standIn, files)
	}
	if err != nil || len(names) == 0 {
		return input{helper: h}, "", err
	}
	name := names[0]
	if len(names) > 1 {
		if name = o.withConfig(ctx, h, names); name == "" {
			return input{}, "", fmt.Errorf("%d tarballs in %s, want one: %s", len(names), o.Inputs, strings.Join(names, ", "))
		}
		names = slices.DeleteFunc(names, func(other string) bool { return other == name })
		note = fmt.Sprintf("%s: taking %s, which has the image's config, and not %s", o.Inputs, name, strings.Join(names, ", "))
	}
	path, info := filepath.Join(o.Inputs, name), files[name]
	switch mode := info.Mode(); {
	case mode&fs.ModeSymlink != 0:
		_, err := os.Stat(path)
		return input{}, "", fmt.Errorf("broken symbolic link: %w", err)
	case mode.IsDir():
		return input{}, "", fmt.Errorf("%s: is a directory, want a regular file", path)
	case !mode.IsRegular():
		return input{}, "", fmt.Errorf("%s: not a regular file", path)
	}
	return input{h, path, info.Size(), filestamp.Of(info)}, note, nil
}

// candidates returns the names of h's tarballs that exist. An archive that pretag wrote
// does not count next to a tarball, nor where archives are written.
func (o Options) candidates(h catalogue.Helper, files map[string]fs.FileInfo) ([]string, error) {
	names := present(h, files)
	at := slices.Index(names, h.File())
	if at < 0 || len(names) == 1 && !o.inPlace() || !files[h.File()].Mode().IsRegular() {
		return names, nil
	}
	own, err := Own(filepath.Join(o.Inputs, h.File()))
	if own {
		names = slices.Delete(names, at, at+1)
	}
	return names, err
}

// inPlace reports whether the archives are written into the directory of the tarballs.
func (o Options) inPlace() bool {
	in, err := os.Stat(o.Inputs)
	out, outErr := os.Stat(filepath.Join(o.Out, release.ArchivesDir))
	return err == nil && outErr == nil && os.SameFile(in, out)
}

// withConfig returns the one tarball that is an image with a config, if the others are
// flat root filesystems; else "".
func (o Options) withConfig(ctx context.Context, h catalogue.Helper, names []string) string {
	var found []string
	for _, name := range names {
		img, err := tarball.Open(ctx, filepath.Join(o.Inputs, name), h.Platform, "", nil)
		if err != nil {
			return "" // it is not known what it is
		}
		if img.Layout != tarball.Rootfs {
			found = append(found, name)
		}
		if err := img.Close(); err != nil {
			return ""
		}
	}
	if len(found) != 1 {
		return ""
	}
	return found[0]
}

// replaceable reports each archive that cannot be written because a file that pretag
// did not write has its name.
func (o Options) replaceable(inputs []input) error {
	var errs []error
	for _, in := range inputs {
		path := o.path(in.helper)
		own, err := Own(path)
		switch {
		case errors.Is(err, fs.ErrNotExist) || own:
			continue
		case err == nil && in.path != "" && o.inPlace() && filepath.Base(in.path) == filepath.Base(path):
			err = fmt.Errorf("%s is the input and would be replaced by the archive; move it to another directory and set HELPER_IMAGES", path)
		case err == nil:
			err = fmt.Errorf("%s already exists, and pretag did not write it or it was changed since; move it away, or set another OUT", path)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// present returns the names of h's tarballs that exist.
func present(h catalogue.Helper, files map[string]fs.FileInfo) []string {
	return slices.DeleteFunc(h.Inputs(), func(name string) bool { _, ok := files[name]; return !ok })
}

// unknown returns the names of tarballs that belong to no helper of the catalogue.
func (o Options) unknown(files map[string]fs.FileInfo) []string {
	known := map[string]bool{}
	for _, h := range o.Catalogue.Helpers() {
		for _, name := range h.Inputs() {
			known[name] = true
		}
	}
	var unknown []string
	for name := range files {
		tarball := strings.HasSuffix(name, ".tar") || strings.Contains(name, ".tar.")
		if tarball && !known[name] && !strings.HasPrefix(name, ".") && !strings.HasSuffix(name, release.InfoSuffix) && !strings.HasSuffix(name, release.OriginSuffix) {
			unknown = append(unknown, name)
		}
	}
	slices.Sort(unknown)
	return unknown
}
