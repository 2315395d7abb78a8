package archive

import (
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
)

// An input is where a helper's image comes from.
type input struct {
	helper catalogue.Helper
	path   string // of the tarball; "" if there is none, and an earlier build's archive must serve
	size   int64  // of the tarball, bytes
	stamp  filestamp.Stamp
}

// Inputs returns the paths of the tarballs that Build would read.
func Inputs(o Options) ([]string, error) {
	found, _, err := o.inputs()
	var paths []string
	for _, in := range found {
		if in.path != "" {
			paths = append(paths, in.path)
		}
	}
	return paths, err
}

// inputs finds the tarball of each helper. Helpers with more than one are
// reported together. unknown lists the tarballs that belong to no helper.
func (o Options) inputs() (found []input, unknown []string, err error) {
	files, err := listFiles(o.Inputs)
	if err != nil {
		return nil, nil, err
	}
	var errs []error
	for _, h := range o.Helpers {
		in, err := o.input(h, files)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", h, err))
		}
		found = append(found, in)
	}
	return found, o.unknown(files), errors.Join(errs...)
}

// listFiles returns the files in a directory by name. Symbolic links are
// followed; one that leads nowhere is listed as a link.
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

func (o Options) input(h catalogue.Helper, files map[string]fs.FileInfo) (input, error) {
	names := present(h, files)
	if standIn, ok := o.Catalogue.Lookup(h.StandIn(o.Version)); ok && len(names) == 0 {
		names = present(standIn, files)
	}
	if len(names) == 0 {
		return input{helper: h}, nil
	}
	if len(names) > 1 {
		return input{}, fmt.Errorf("%d tarballs in %s, want one: %s", len(names), o.Inputs, strings.Join(names, ", "))
	}
	path, info := filepath.Join(o.Inputs, names[0]), files[names[0]]
	if info.Mode()&fs.ModeSymlink != 0 {
		return input{}, fmt.Errorf("%s: the target of this symbolic link does not exist", path)
	}
	if !info.Mode().IsRegular() {
		return input{}, fmt.Errorf("%s: not a regular file", path)
	}
	return input{h, path, info.Size(), filestamp.Of(info)}, nil
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
