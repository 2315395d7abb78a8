// Package unpack takes helper tarballs out of existing rpm and deb packages, to
// rebuild them. It leaves the tarballs as they are and opens none; rpm and dpkg
// are not needed.
package unpack

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"pretag/build/catalogue"
	"pretag/build/internal/decompress"
	"pretag/build/internal/stricttar"
	"pretag/build/linuxpkg/pkgread"
	"pretag/build/release"
)

// Options say what a helper is and where it goes.
type Options struct {
	Catalogue *catalogue.Catalogue
	Folder    string // of the tarballs, made where it is missing

	// Progress, if set, is told how many bytes of a helper's tarball are here,
	// out of how many.
	Progress func(helper string, done, total int64)
}

// A Package is what was found in a package.
type Package struct {
	Name     string
	Version  string // of GitLab Runner, where the package is Runner's
	Release  string
	Revision string // GitLab Runner's git revision, 8 hex digits; "" where no program in the package tells
	Tarballs []Tarball
	Unknown  []string // paths of tarballs that belong to no row of the catalogue; not taken
}

// A Tarball is one that is in the folder now.
type Tarball struct {
	Helper catalogue.Helper
	Path   string
	Origin release.Origin
	Kept   bool // was there already with the same bytes
}

// tempFolder is where tarballs are until the whole package has been read.
const tempFolder = ".unpack"

// Unpack takes the helper tarballs out of the package at file. They get their
// names once the package has been read to its end and all of its digests have
// been checked; until then an error leaves the folder as it was. One while they
// get their names leaves those that have theirs, and at most one side file that is
// ahead of its tarball. Tarballs there that have no side file, or another's, are
// never replaced. The caller lets no other write to the folder.
func Unpack(ctx context.Context, file string, opts Options) (_ Package, err error) {
	reader, err := pkgread.Open(ctx, file)
	if err != nil {
		return Package{}, err
	}
	defer func() { err = errors.Join(err, reader.Close()) }()
	_, sum, err := reader.Sum()
	if err != nil {
		return Package{}, fmt.Errorf("%s: %w", file, err)
	}
	temp := filepath.Join(opts.Folder, tempFolder)
	if err := errors.Join(os.RemoveAll(temp), os.MkdirAll(temp, 0o755)); err != nil {
		return Package{}, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(temp)) }()

	u := unpacking{opts: opts, temp: temp, source: filepath.Base(file) + "@sha256:" + sum}
	u.pkg.Name, u.pkg.Version, u.pkg.Release = reader.Name, reader.Version, reader.Release
	for entry, err := range reader.Contents() {
		if err == nil {
			err = u.take(ctx, entry)
		}
		if err != nil {
			return Package{}, err
		}
	}
	if len(u.pkg.Tarballs) == 0 {
		return Package{}, fmt.Errorf("%s: %w", file, u.nothing())
	}
	if err := u.check(); err != nil {
		return Package{}, err
	}
	return u.pkg, u.publish()
}

// An unpacking is a package that is being read.
type unpacking struct {
	opts   Options
	temp   string
	source string
	pkg    Package
	seen   []string // what is in the package
}

// take looks at one file of the package.
func (u *unpacking) take(ctx context.Context, e pkgread.Entry) error {
	u.seen = append(u.seen, e.Path)
	base := path.Base(e.Path)
	if base == "gitlab-runner" && e.Mode.IsRegular() && e.Body != nil && u.pkg.Revision == "" {
		revision, err := findRevision(&input{Reader: e.Body, ctx: ctx})
		if err != nil {
			return fmt.Errorf("%s: %w", e.Path, err)
		}
		u.pkg.Revision = revision
		return nil
	}
	isTarball := strings.HasSuffix(base, ".tar") || strings.Contains(base, ".tar.")
	if !strings.HasPrefix(base, "prebuilt-") || !isTarball || strings.HasSuffix(base, release.InfoSuffix) {
		return nil
	}
	if !e.Mode.IsRegular() || e.Body == nil {
		return fmt.Errorf("%s: want a file, the package has a link or something else (%v %s)", e.Path, e.Mode.Type(), e.Link)
	}
	helpers := u.opts.Catalogue.Helpers()
	i := slices.IndexFunc(helpers, func(h catalogue.Helper) bool { return slices.Contains(h.Inputs(), base) })
	if i < 0 {
		u.pkg.Unknown = append(u.pkg.Unknown, e.Path)
		return nil
	}
	helper := helpers[i]
	for _, other := range u.pkg.Tarballs {
		if other.Helper.String() == helper.String() {
			return fmt.Errorf("%s: %s is the tarball of %s already", e.Path, filepath.Base(other.Path), helper)
		}
	}
	o, err := u.copy(ctx, filepath.Join(u.temp, base), e, helper)
	if err != nil {
		return fmt.Errorf("%s: %w", e.Path, err)
	}
	u.pkg.Tarballs = append(u.pkg.Tarballs, Tarball{Helper: helper, Path: filepath.Join(u.opts.Folder, base), Origin: o})
	return nil
}

// copy writes a tarball to the temporary file at path.
func (u *unpacking) copy(ctx context.Context, path string, e pkgread.Entry, helper catalogue.Helper) (o release.Origin, err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return o, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	hash := sha256.New()
	body := &input{Reader: e.Body, ctx: ctx}
	if u.opts.Progress != nil {
		body.report = func(done int64) { u.opts.Progress(helper.String(), done, e.Size) }
	}
	size, err := io.Copy(io.MultiWriter(f, hash), body)
	if err != nil {
		return o, err
	}
	if err := f.Sync(); err != nil {
		return o, err
	}
	if err := looksLikeTarball(f); err != nil {
		return o, err
	}
	return release.Origin{Source: u.source, Size: size, SHA256: hex.EncodeToString(hash.Sum(nil))}, nil
}

// looksLikeTarball reads the first entry of a tarball. Who builds from it reads
// the rest.
func looksLikeTarball(f *os.File) error {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	plain, err := decompress.NewReader(f)
	if err != nil {
		return err
	}
	defer plain.Close()
	if _, err := stricttar.NewReader(plain).Next(); err != nil {
		return fmt.Errorf("not a helper tarball: %w", err)
	}
	return nil
}

// nothing says why a package has no tarballs to take.
func (u *unpacking) nothing() error {
	if len(u.pkg.Unknown) > 0 {
		return fmt.Errorf("no row of the catalogue knows %s", strings.Join(u.pkg.Unknown, ", "))
	}
	const most = 10
	holds := strings.Join(u.seen[:min(most, len(u.seen))], ", ")
	if len(u.seen) > most {
		holds += ", ..."
	}
	hint := ""
	if u.pkg.Name == "gitlab-runner" {
		hint = "; from 17.7.0 on they are in the package gitlab-runner-helper-images"
	}
	return fmt.Errorf("no helper tarballs (prebuilt-*.tar*) in %s %s%s; it holds %d files and folders: %s", u.pkg.Name, u.pkg.Version, hint, len(u.seen), holds)
}

// check compares with what is in the folder.
func (u *unpacking) check() error {
	var errs []error
	for i := range u.pkg.Tarballs {
		t := &u.pkg.Tarballs[i]
		before, err := release.OriginOf(t.Path)
		errs = append(errs, err)
		if before.SHA256 == t.Origin.SHA256 {
			t.Kept, t.Origin = true, before
		}
	}
	return errors.Join(errs...)
}

// publish gives the tarballs their names, and their side files.
func (u *unpacking) publish() error {
	for _, t := range u.pkg.Tarballs {
		if t.Kept {
			continue
		}
		if err := t.Origin.Write(t.Path); err != nil {
			return err
		}
		if err := os.Rename(filepath.Join(u.temp, filepath.Base(t.Path)), t.Path); err != nil {
			return err
		}
	}
	folder, err := os.Open(u.opts.Folder)
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}

// revisionFlag is how GitLab Runner's build sets its revision (v15.8.0,
// Makefile: GO_LDFLAGS); Go 1.18 and later keep the flag in the program.
const revisionFlag = "gitlab.com/gitlab-org/gitlab-runner/common.REVISION="

// findRevision looks for Runner's revision in its program, "" where there is none.
func findRevision(program io.Reader) (string, error) {
	const digits = 8 // git rev-parse --short=8
	var window []byte
	chunk := make([]byte, 1<<20)
	for {
		n, err := program.Read(chunk)
		window = append(window, chunk[:n]...)
		for {
			i := bytes.Index(window, []byte(revisionFlag))
			if i < 0 || len(window) < i+len(revisionFlag)+digits {
				break
			}
			window = window[i+len(revisionFlag):]
			revision := string(window[:digits])
			if strings.Trim(revision, "0123456789abcdef") == "" {
				return revision, nil
			}
		}
		if err == io.EOF {
			return "", nil
		}
		if err != nil {
			return "", err
		}
		window = window[max(0, len(window)-len(revisionFlag)-digits):]
	}
}

// An input is what comes out of a package: it counts, and ends with its context.
type input struct {
	io.Reader
	ctx    context.Context
	done   int64
	report func(done int64) // may be nil
}

func (r *input) Read(p []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx)
	}
	n, err := r.Reader.Read(p)
	r.done += int64(n)
	if r.report != nil {
		r.report(r.done)
	}
	return n, err
}
