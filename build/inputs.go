package build

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

// An input is where a helper's image comes from: a tarball, or an archive that
// an earlier run left in OUT.
type input struct {
	helper catalogue.Helper
	path   string // of the tarball; "" where only the archive is there
	size   int64  // of the tarball, bytes
	stamp  filestamp.Stamp
}

// inputs finds the tarball of each selected helper. All that are missing or
// ambiguous are reported together. unknown lists tarballs that no row knows.
func (c Config) inputs() (found []input, unknown []string, err error) {
	entries, err := os.ReadDir(c.Inputs)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, err
	}
	files := map[string]fs.FileInfo{}
	for _, entry := range entries {
		info, err := os.Stat(filepath.Join(c.Inputs, entry.Name()))
		if err != nil {
			info, err = entry.Info() // of a link that leads nowhere; gone meanwhile is gone
		}
		if err == nil {
			files[entry.Name()] = info
		}
	}
	var errs []error
	for _, h := range c.Helpers {
		names := present(h, files)
		if standIn, ok := c.Catalogue.Lookup(h.StandIn(c.Version)); ok && len(names) == 0 {
			names = present(standIn, files)
		}
		switch {
		case len(names) == 1 && files[names[0]].Mode()&fs.ModeSymlink != 0:
			errs = append(errs, fmt.Errorf("%s: %s: a link that leads nowhere", h, filepath.Join(c.Inputs, names[0])))
		case len(names) == 1 && !files[names[0]].Mode().IsRegular():
			errs = append(errs, fmt.Errorf("%s: %s: not a file", h, filepath.Join(c.Inputs, names[0])))
		case len(names) == 1:
			info := files[names[0]]
			found = append(found, input{h, filepath.Join(c.Inputs, names[0]), info.Size(), filestamp.Of(info)})
		case len(names) > 1:
			errs = append(errs, fmt.Errorf("%s: %d tarballs in %s, want one: %s", h, len(names), c.Inputs, strings.Join(names, ", ")))
		default:
			found = append(found, input{helper: h})
		}
	}
	return found, c.unknown(files), errors.Join(errs...)
}

// present lists the names of h's tarballs that are there.
func present(h catalogue.Helper, files map[string]fs.FileInfo) []string {
	return slices.DeleteFunc(h.Inputs(), func(name string) bool { _, ok := files[name]; return !ok })
}

// unknown lists the tarballs that belong to no row of the catalogue.
func (c Config) unknown(files map[string]fs.FileInfo) []string {
	known := map[string]bool{}
	for _, h := range c.Catalogue.Helpers() {
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

// missing says which helpers have neither tarball nor archive.
func (c Config) missing(helpers []catalogue.Helper) error {
	if len(helpers) == 0 {
		return nil
	}
	var b strings.Builder
	b.WriteString(c.Inputs)
	if _, err := os.Stat(c.Inputs); err != nil {
		b.WriteString(" is not there")
	}
	fmt.Fprintf(&b, ": no tarball for %d of %d helpers:", len(helpers), len(c.Helpers))
	for _, h := range helpers {
		fmt.Fprintf(&b, "\n  %s (%s.tar or prebuilt-%s.tar.xz)", h, h, h)
	}
	b.WriteString("\nput them there, choose others with HELPERS, or fetch them with the pull or unpack target")
	return errors.New(b.String())
}
