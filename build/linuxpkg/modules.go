package linuxpkg

import (
	"cmp"
	"debug/buildinfo"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"runtime/debug"
	"slices"
	"strings"
)

// A loader is the program that runs on hosts of one architecture.
type loader struct {
	goarch  string
	path    string
	modules []module
}

// A module is a Go module that is linked into a loader, or Go itself.
type module struct {
	Path, Version string
	License       string // its text
}

// licenses is the folder of license texts: for each module one file, named by its path.
const licenses = "licenses"

// standardLibrary stands for Go's own packages among the modules.
const standardLibrary = "std"

// readLoaders returns the loaders by architecture. Their modules are those that
// the Go command has recorded in the program.
func readLoaders(opts Options) ([]loader, error) {
	var (
		all  []loader
		errs []error
	)
	for goarch, file := range opts.Loaders {
		info, err := buildinfo.ReadFile(file)
		if err != nil {
			errs = append(errs, fmt.Errorf("loader for %s: %s: %w", goarch, file, err))
			continue
		}
		l := loader{goarch: goarch, path: file}
		for _, dep := range append([]*debug.Module{{Path: standardLibrary, Version: info.GoVersion}}, info.Deps...) {
			if dep.Replace != nil {
				dep = dep.Replace
			}
			text, err := fs.ReadFile(opts.Files, path.Join(licenses, dep.Path))
			if err != nil {
				errs = append(errs, fmt.Errorf("loader for %s: license of %s: %w", goarch, dep.Path, err))
			}
			l.modules = append(l.modules, module{dep.Path, dep.Version, string(text)})
		}
		all = append(all, l)
	}
	slices.SortFunc(all, func(a, b loader) int { return cmp.Compare(a.goarch, b.goarch) })
	return all, errors.Join(errs...)
}

// Field returns the license text as the value of a field of a Debian control file
// (Debian Policy 5.6.13): each line indented, an empty one a full stop.
func (m module) Field() string {
	var b strings.Builder
	for line := range strings.Lines(strings.ReplaceAll(m.License, "\r\n", "\n")) {
		if line = strings.TrimRight(line, " \t\f\n"); line == "" {
			line = "."
		}
		b.WriteString(" " + line + "\n")
	}
	return strings.TrimRight(b.String(), "\n")
}
