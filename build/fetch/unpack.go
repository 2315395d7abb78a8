package fetch

import (
	"bytes"
	"cmp"
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
	"pretag/build/internal/atomicfile"
	"pretag/build/internal/decompress"
	"pretag/build/internal/stricttar"
	"pretag/build/linuxpkg/pkgread"
	"pretag/build/release"
)

// UnpackOptions say what a helper is and where its tarball goes.
type UnpackOptions struct {
	Dir       string // of the tarballs; made if it is missing
	Catalogue *catalogue.Catalogue

	// Progress, if set, receives how many bytes of a helper's tarball are on the
	// disk, out of how many.
	Progress func(helper string, done, total int64)
}

// Unpacked is what Unpack found in a package.
type Unpacked struct {
	Name     string
	Version  string // of GitLab Runner, if the package is Runner's
	Release  string
	Revision string // GitLab Runner's git revision, 8 hex digits; "" if no program in the package shows it
	Tarballs []Tarball
	Unknown  []string // paths of tarballs for which the catalogue has no row; they are left in the package
}

// unpackDir is the directory of the tarballs until the whole package has been read.
const unpackDir = ".unpack"

// Unpack takes the helper tarballs out of an rpm or a deb, without rpm or dpkg.
// It does not change them.
//
// The tarballs get their names when the whole package has been read and all of
// its digests have been checked: an error before that leaves the directory as it
// was. If a rename fails, files already renamed stay; at most one record may
// exist without its tarball. A file that Pull or Unpack did not write is never
// replaced. The caller locks the directory.
func Unpack(ctx context.Context, file string, opts UnpackOptions) (_ Unpacked, err error) {
	reader, err := pkgread.Open(ctx, file)
	if err != nil {
		return Unpacked{}, err
	}
	defer func() { err = errors.Join(err, reader.Close()) }()
	_, sum, err := reader.Sum()
	if err != nil {
		return Unpacked{}, fmt.Errorf("%s: %w", file, err)
	}
	temp := filepath.Join(opts.Dir, unpackDir)
	if err := errors.Join(os.RemoveAll(temp), os.MkdirAll(temp, 0o755)); err != nil {
		return Unpacked{}, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(temp)) }()

	u := unpacker{opts: opts, temp: temp, source: filepath.Base(file) + "@sha256:" + sum}
	u.found.Name, u.found.Version, u.found.Release = reader.Name, reader.Version, reader.Release
	for entry, err := range reader.Contents() {
		if err == nil {
			if err = u.take(entry); err != nil {
				err = fmt.Errorf("%s: %w", file, err)
			}
		}
		if err != nil {
			return Unpacked{}, err
		}
	}
	if len(u.found.Tarballs) == 0 {
		return Unpacked{}, fmt.Errorf("%s: %w", file, u.nothing())
	}
	if err := u.compare(ctx); err != nil {
		return Unpacked{}, err
	}
	return u.found, u.publish()
}

// An unpacker reads one package.
type unpacker struct {
	opts   UnpackOptions
	temp   string
	source string // of all tarballs, as their records have it
	found  Unpacked
	seen   []string // the paths in the package
}

// take takes one file of the package if it is a tarball, and looks for Runner's
// revision if it is Runner's program.
func (u *unpacker) take(e pkgread.Entry) error {
	u.seen = append(u.seen, e.Path)
	base := path.Base(e.Path)
	if base == "gitlab-runner" && e.Mode.IsRegular() && e.Body != nil && u.found.Revision == "" {
		revision, err := findRevision(e.Body)
		if err != nil {
			return fmt.Errorf("%s: %w", e.Path, err)
		}
		u.found.Revision = revision
		return nil
	}
	isTarball := strings.HasSuffix(base, ".tar") || strings.Contains(base, ".tar.")
	if !strings.HasPrefix(base, "prebuilt-") || !isTarball || strings.HasSuffix(base, release.InfoSuffix) {
		return nil
	}
	if !e.Mode.IsRegular() || e.Body == nil {
		return fmt.Errorf("%s: want a regular file, the package has %v %s", e.Path, e.Mode.Type(), e.Link)
	}
	helpers := u.opts.Catalogue.Helpers()
	i := slices.IndexFunc(helpers, func(h catalogue.Helper) bool { return slices.Contains(h.Inputs(), base) })
	if i < 0 {
		u.found.Unknown = append(u.found.Unknown, e.Path)
		return nil
	}
	helper := helpers[i]
	for _, other := range u.found.Tarballs {
		if other.Helper.String() == helper.String() {
			return fmt.Errorf("%s: a second tarball of %s, besides %s", e.Path, helper, filepath.Base(other.Path))
		}
	}
	o, err := u.copy(filepath.Join(u.temp, base), e, helper)
	if err != nil {
		return fmt.Errorf("%s: %w", e.Path, err)
	}
	u.found.Tarballs = append(u.found.Tarballs, Tarball{Helper: helper, Path: filepath.Join(u.opts.Dir, base), Origin: o})
	return nil
}

// copy writes a tarball to the temporary file at path.
func (u *unpacker) copy(path string, e pkgread.Entry, helper catalogue.Helper) (o release.Origin, err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return o, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	hash := sha256.New()
	counted := &meter{Writer: io.MultiWriter(f, hash), report: func(done int64) {
		if u.opts.Progress != nil {
			u.opts.Progress(helper.String(), done, e.Size)
		}
	}}
	if _, err := io.Copy(counted, e.Body); err != nil {
		return o, err
	}
	if err := f.Sync(); err != nil {
		return o, err
	}
	if err := looksLikeTarball(f); err != nil {
		return o, err
	}
	return release.Origin{Source: u.source, Size: counted.n, SHA256: hex.EncodeToString(hash.Sum(nil))}, nil
}

// looksLikeTarball reads the first entry of a tarball. The stage that builds from
// it reads the rest.
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

// nothing returns why there are no tarballs to take.
func (u *unpacker) nothing() error {
	if len(u.found.Unknown) > 0 {
		return fmt.Errorf("the catalogue has no row for %s", strings.Join(u.found.Unknown, ", "))
	}
	const most = 10
	holds := strings.Join(u.seen[:min(most, len(u.seen))], ", ")
	if len(u.seen) > most {
		holds += ", ..."
	}
	hint := ""
	if u.found.Name == "gitlab-runner" {
		hint = "; from 17.7.0 on they are in the package gitlab-runner-helper-images"
	}
	return fmt.Errorf("no helper tarballs (prebuilt-*.tar*) in %s %s%s; it has %d files and directories: %s", u.found.Name, u.found.Version, hint, len(u.seen), holds)
}

// compare compares the tarballs with those that are in the directory already.
func (u *unpacker) compare(ctx context.Context) error {
	var errs []error
	for i := range u.found.Tarballs {
		t := &u.found.Tarballs[i]
		before, err := release.OriginOf(ctx, t.Path)
		errs = append(errs, err)
		if before.SHA256 == t.Origin.SHA256 {
			t.Kept, t.Origin = true, before
		}
	}
	return errors.Join(errs...)
}

// publish gives the tarballs their names and their records.
func (u *unpacker) publish() error {
	for _, t := range u.found.Tarballs {
		if t.Kept {
			continue
		}
		if err := t.Origin.Write(t.Path); err != nil {
			return err
		}
		if err := atomicfile.Rename(filepath.Join(u.temp, filepath.Base(t.Path)), t.Path); err != nil {
			return err
		}
	}
	return nil
}

// revisionFlag is how GitLab Runner's build sets its revision (v15.8.0,
// Makefile: GO_LDFLAGS); Go 1.18 and later keep the flag in the program.
const revisionFlag = "gitlab.com/gitlab-org/gitlab-runner/common.REVISION="

// findRevision looks for Runner's revision in its program. It returns "" if there is none.
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

// Settings returns the variables that rebuild the package, in a form that can be
// pasted into a shell.
func (u Unpacked) Settings(c *catalogue.Catalogue) string {
	version := u.Version
	if version == "0.0.0~"+catalogue.Latest { // the package version of a development build (linuxpkg)
		version = catalogue.Latest
	}
	text := "RUNNER_VERSION=" + version
	v, err := catalogue.ParseVersion(version, "")
	if err == nil && v.Revision() != "" && u.Revision != "" && u.Revision != v.Revision() { // a patched Runner
		text += " RUNNER_REVISION=" + u.Revision
	}
	if err != nil { // below 16.8.0, and not a released version
		text += " RUNNER_REVISION=" + cmp.Or(u.Revision, "<first 8 digits of the commit>")
		v, err = catalogue.ParseVersion(version, cmp.Or(u.Revision, "00000000"))
	}
	if err != nil { // the version could be anything, so it is not offered to a shell
		text = "RUNNER_VERSION=<version of GitLab Runner>"
	}
	if _, err := release.ParseIteration(u.Release); err == nil {
		text += " PACKAGES_ITERATION=" + u.Release
	}
	var names, usual []string
	for _, t := range u.Tarballs {
		names = append(names, t.Helper.String())
	}
	for _, h := range c.Default(v) {
		usual = append(usual, h.String())
	}
	slices.Sort(names)
	slices.Sort(usual)
	if err != nil || !slices.Equal(names, usual) {
		text += " HELPERS=" + strings.Join(names, ",")
	}
	return text
}
