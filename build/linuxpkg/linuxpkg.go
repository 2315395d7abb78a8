// Package linuxpkg makes rpm and deb packages of archives; pkgread reads them
// back. Definitions (packaging/*.yaml) say what the packages are called, hold and
// require. This package fills them in, has nfpm write them, and works around
// nfpm's faults. It builds no archive and runs no program.
package linuxpkg

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"time"

	"github.com/goreleaser/nfpm/v2"
	_ "github.com/goreleaser/nfpm/v2/deb" // the packagers that Formats names
	_ "github.com/goreleaser/nfpm/v2/rpm"

	"pretag/build/catalogue"
	"pretag/build/internal/atomicfile"
	"pretag/build/release"
)

// The layouts: a package per host architecture and one for each other helper, or
// all archives in one package.
const (
	Split  = "split"
	Single = "single"
)

// Options is what packages are made with. Temp, Loaders, Documents and Sign are optional.
type Options struct {
	Files      fs.FS              // the definitions and what they name: packaging.Files
	Formats    []string           // RPM, Deb
	Layout     string             // Split, Single
	Version    catalogue.Version  // GitLab Runner's
	Release    string             // of the packages, as release.ParseIteration takes it
	MTime      time.Time          // of every file in the packages, and when they were built
	Out        string             // folder; a package lands in its subfolder <format>
	Temp       string             // folder for unfinished files, "" for the system's
	Helpers    []catalogue.Helper // rows for the archives' helpers; more do no harm
	Maintainer string             // Name <mail@example.com>
	Vendor     string
	Homepage   string // URL

	// Loaders are the paths of the program that runs on hosts, by architecture in
	// Go's words. Each becomes a package. Hosts lists those that hosts need.
	Loaders map[string]string

	// Documents are files about an archive, by the archive's base name, that
	// are installed next to the texts of its package. Nil: none.
	Documents map[string][]Document

	// Sign makes a binary detached OpenPGP signature of all it reads. Equal
	// packages need equal signatures of equal bytes. Nil: unsigned.
	Sign func(io.Reader) ([]byte, error)
}

// A Document is a file about an archive.
type Document struct {
	Kind string // SBOM, Licences: the src of the tree that takes it
	Path string
}

// The kinds of documents.
const (
	SBOM     = "sbom"     // what is in the image
	Licences = "licences" // what its parts are licensed under
)

// A Result is what Build made and what the user should know about it.
type Result struct {
	Packages []release.Package
	Warnings []string
}

// maxContents is the most bytes that a package may hold. rpmpack 0.7.1
// (rpm.go, writeSignatures) counts payload and header in an int32; the
// difference is room for both's framing.
const maxContents = math.MaxInt32 - 16<<20

// Build makes the packages of archives in every format, one after another, in
// the order of the definitions' file names. Everything is checked before the
// first is written; a package that fails leaves no file.
func Build(ctx context.Context, opts Options, archives []release.Archive) (Result, error) {
	stage, err := os.MkdirTemp(opts.Temp, ".packages.*.pretag-tmp")
	if err != nil {
		return Result{}, err
	}
	defer os.RemoveAll(stage)

	plan, err := newPlan(opts, archives, stage)
	if err != nil {
		return Result{}, err
	}
	result := Result{Warnings: plan.warnings}
	for _, p := range plan.packages {
		if err := ctx.Err(); err != nil {
			return Result{}, err
		}
		made, err := p.write(opts, stage)
		if err != nil {
			return Result{}, fmt.Errorf("%s: %s: %w", p.format, p.info.Name, err)
		}
		result.Packages = append(result.Packages, made)
		// nfpm holds a package in memory several times over: hand that back
		// before the next one, or the peak would depend on when the collector runs.
		debug.FreeOSMemory()
	}
	return result, nil
}

// List returns the packages that Build would make of these archives, without path, size
// and sha256. It reads neither archives nor loaders, so they need not exist.
func List(opts Options, archives []release.Archive) (Result, error) {
	rows, err := match(opts, archives)
	if err := errors.Join(opts.check(), err); err != nil {
		return Result{}, err
	}
	var all []loader
	for _, goarch := range slices.Sorted(maps.Keys(opts.Loaders)) {
		all = append(all, loader{goarch: goarch})
	}
	result := Result{Warnings: hostWarnings(opts, rows)}
	err = each(opts, rows, all, func(common, s source, i instance) error {
		info, err := render(common, s, i.values)
		if err != nil {
			return err
		}
		var names []string
		for _, r := range i.rows {
			names = append(names, r.file.Name)
		}
		listed, err := record(i.values.Format, info, names)
		result.Packages = append(result.Packages, listed)
		return err
	})
	return result, err
}

// record returns the record of a package that is not written yet.
func record(format string, info *nfpm.Info, archives []string) (release.Package, error) {
	packager, err := nfpm.Get(format)
	if err != nil {
		return release.Package{}, err
	}
	return release.Package{
		File: packager.ConventionalFileName(info), Format: format,
		Name: info.Name, Version: info.Version + "-" + info.Release, Arch: info.Arch, Archives: archives,
	}, nil
}

// write has nfpm write the package into opts.Out/<format>.
func (p planned) write(opts Options, stage string) (release.Package, error) {
	packager, err := nfpm.Get(p.format)
	if err != nil {
		return release.Package{}, err
	}
	dir := filepath.Join(opts.Out, p.format)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return release.Package{}, err
	}
	made, err := record(p.format, p.info, p.archives)
	if err != nil {
		return release.Package{}, err
	}
	made.Path = filepath.Join(dir, made.File)
	digest := sha256.New()
	err = atomicfile.Write(made.Path, func(f *os.File) error {
		w := io.MultiWriter(f, digest)
		if p.format == release.RPM {
			err = writeRPM(w, packager, p.info, stage, opts.Sign)
		} else {
			err = packager.Package(p.info, w)
		}
		if err != nil {
			return err
		}
		made.Size, err = f.Seek(0, io.SeekCurrent)
		return err
	})
	made.SHA256 = hex.EncodeToString(digest.Sum(nil))
	return made, err
}
