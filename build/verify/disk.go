package verify

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"pretag/build/archive"
	"pretag/build/catalogue"
	"pretag/build/internal/decompress"
	"pretag/build/release"
)

// A ReadPackage reads the rpm or deb at path and passes each regular file in it
// to visit, by its absolute name on the host.
type ReadPackage func(ctx context.Context, path string, visit func(name string, content io.Reader) error) error

// A Delivery is a directory that was built, with what its manifest says.
type Delivery struct {
	Dir      string            // OUT
	Archives []release.Archive // below helper-images/
	Packages []release.Package // below rpm/ and deb/
	Former   []string          // files that a former build left, relative to Dir
	Sums     map[string]string // by file, relative to Dir: sha256 in hex, as SHA256SUMS has them
	Read     ReadPackage
	More     []Check // made after the others
}

// A Check is one check of a delivery. Joined errors are a problem each.
type Check struct {
	Subject string // a file below OUT
	Name    string
	Do      func(context.Context) error
}

// Disk checks every file: each archive against its record; each package by
// reading it back and comparing the archives in it byte by byte with those in
// OUT; the sums against the files; and that no file is missing or left over.
// An error is only ctx's.
func Disk(ctx context.Context, d Delivery) ([]Result, error) {
	run := diskRun{Delivery: d, decoder: &decoder{}}
	archives, err := run.checkArchives(ctx)
	if err != nil {
		return nil, err
	}
	others, err := run.checkOthers(ctx)
	return append(archives, others...), err
}

// A decoder is the memory for decompression, which is as large as an archive's
// window (128 MiB by default). Whoever uses it holds the lock, so that the memory
// does not grow with the number of engines.
type decoder struct {
	sync.Mutex
	decompress.Decoders
}

// A diskRun is a delivery while it is checked. Each file is read once.
type diskRun struct {
	Delivery
	signer  string // ID of the key of a signed delivery, or ""
	decoder *decoder
	sums    map[string]string        // by path: sha256 of files that were read, in hex
	configs map[string]v1.ConfigFile // by path: of archives
}

// checkArchives makes the checks of archives.
func (d *diskRun) checkArchives(ctx context.Context) ([]Result, error) {
	d.sums, d.configs = map[string]string{}, map[string]v1.ConfigFile{}
	var checks []Check
	for _, f := range d.Archives {
		checks = append(checks, Check{path.Join(release.ArchivesDir, f.Name), "archive", func(ctx context.Context) error { return d.checkArchive(ctx, f) }})
	}
	return do(ctx, checks)
}

// checkOthers makes the other checks.
func (d *diskRun) checkOthers(ctx context.Context) ([]Result, error) {
	var checks []Check
	for _, p := range d.Packages {
		checks = append(checks, Check{path.Join(p.Format, p.File), "package", func(ctx context.Context) error { return d.checkPackage(ctx, p) }})
	}
	results, err := do(ctx, slices.Concat(checks, []Check{
		{release.ManifestName, "files", d.checkFiles},
		{release.SumsName, "sums", d.checkSums},
	}, d.More))
	if err != nil {
		return nil, err
	}
	signed, err := rpmkeys(ctx, d.Dir, d.signer, d.Packages)
	return append(results, signed...), err
}

// do makes the checks. Its error is only ctx's.
func do(ctx context.Context, checks []Check) ([]Result, error) {
	results := make([]Result, 0, len(checks))
	for _, c := range checks {
		start := time.Now()
		r := Result{Subject: c.Subject, Check: c.Name}
		r.judge(lines(c.Do(ctx)))
		if err := context.Cause(ctx); err != nil {
			return nil, err
		}
		r.Seconds = time.Since(start).Seconds()
		results = append(results, r)
	}
	return results, nil
}

// lines splits an error into its problems, one a line.
func lines(err error) []string {
	if err == nil {
		return nil
	}
	return strings.Split(err.Error(), "\n")
}

// problems is the error of a check that found them.
func problems(found []string) error {
	if len(found) == 0 {
		return nil
	}
	return errors.New(strings.Join(found, "\n"))
}

// checkArchive reads the archive and compares it, and the record next to it, with
// the record in the manifest.
func (d *diskRun) checkArchive(ctx context.Context, f release.Archive) error {
	return errors.Join(d.readArchive(ctx, f), compareInfo(f))
}

func (d *diskRun) readArchive(ctx context.Context, f release.Archive) error {
	file, err := os.Open(f.Path)
	if err != nil {
		return err
	}
	defer file.Close()
	d.decoder.Lock()
	defer d.decoder.Unlock()
	contents, err := archive.ReadFrom(ctx, file, archive.ReadOptions{Decoders: &d.decoder.Decoders})
	if err != nil {
		return fmt.Errorf("%s: %w", f.Path, err)
	}
	d.sums[f.Path], d.configs[f.Path] = contents.SHA256, contents.Config
	var found []string
	for _, problem := range append(contents.Problems, lines(archive.Compare(contents, f))...) {
		found = append(found, fmt.Sprintf("%s: %s", f.Path, problem))
	}
	return problems(found)
}

// compareInfo compares the record next to the archive with the manifest's, key by key.
func compareInfo(f release.Archive) error {
	content, err := os.ReadFile(f.Path + release.InfoSuffix)
	if err != nil {
		return err
	}
	if bytes.Equal(content, f.Info()) {
		return nil
	}
	name := f.Name + release.InfoSuffix
	if _, err := release.ParseInfo(bytes.NewReader(content)); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	var found []string
	got, want := fields(content), fields(f.Info())
	for _, key := range slices.Sorted(maps.Keys(want)) {
		if value, ok := got[key]; !ok {
			found = append(found, fmt.Sprintf("%s: no line %s=%s, which manifest.json has", name, key, want[key]))
		} else if value != want[key] {
			found = append(found, fmt.Sprintf("%s: %s is %q, manifest.json has %q", name, key, value, want[key]))
		}
		delete(got, key)
	}
	for _, key := range slices.Sorted(maps.Keys(got)) {
		found = append(found, fmt.Sprintf("%s: has %s=%s, which manifest.json does not have", name, key, got[key]))
	}
	if len(found) == 0 {
		found = append(found, name+": has the right lines, but in another form than pretag writes")
	}
	return problems(found)
}

// fields splits a record that ParseInfo accepts into its keys and values.
func fields(info []byte) map[string]string {
	m := map[string]string{}
	for line := range strings.Lines(string(info)) {
		key, value, _ := strings.Cut(strings.TrimRight(line, "\r\n"), "=")
		m[key] = value
	}
	return m
}

// checkPackage reads the package back. The archives that it should contain are
// compared with those in OUT, as are their records.
func (d *diskRun) checkPackage(ctx context.Context, p release.Package) error {
	info, err := os.Stat(p.Path)
	if err != nil {
		return err
	}
	sum, err := release.SHA256File(ctx, p.Path)
	if err != nil {
		return err
	}
	d.sums[p.Path] = sum
	var found []string
	if info.Size() != p.Size || sum != p.SHA256 {
		found = append(found, fmt.Sprintf("has %d bytes, sha256 %s; manifest.json says %d, %s", info.Size(), sum, p.Size, p.SHA256))
	}
	missing := map[string]bool{}
	for _, name := range p.Archives {
		missing[name], missing[name+release.InfoSuffix] = true, true
	}
	err = d.Read(ctx, p.Path, func(name string, content io.Reader) error {
		dir, base := path.Split(name)
		if dir = path.Clean(dir); dir != catalogue.HostDir && !strings.HasSuffix(strings.TrimSuffix(base, release.InfoSuffix), catalogue.Suffix) {
			return nil
		}
		if !missing[base] {
			found = append(found, fmt.Sprintf("contains %s, which is not in manifest.json", name))
			return nil
		}
		delete(missing, base)
		if dir != catalogue.HostDir {
			found = append(found, fmt.Sprintf("%s is in %s, want %s, where GitLab Runner looks", base, dir, catalogue.HostDir))
		}
		if err := equal(content, filepath.Join(d.Dir, release.ArchivesDir, base)); err != nil {
			found = append(found, lines(fmt.Errorf("%s: %w", name, err))...)
		}
		return nil
	})
	found = append(found, lines(err)...)
	for _, name := range slices.Sorted(maps.Keys(missing)) {
		found = append(found, "does not contain "+name)
	}
	return problems(found)
}

// equal compares content with the file at path, byte by byte.
func equal(content io.Reader, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	var a, b [64 << 10]byte
	for offset := int64(0); ; {
		n, errA := io.ReadFull(content, a[:])
		m, errB := io.ReadFull(f, b[:])
		if !bytes.Equal(a[:n], b[:m]) {
			at := 0
			for at < min(n, m) && a[at] == b[at] {
				at++
			}
			return fmt.Errorf("differs from %s at byte %d", path, offset+int64(at))
		}
		offset += int64(n)
		if errA != nil || errB != nil {
			return errors.Join(notEOF(errA), notEOF(errB))
		}
	}
}

func notEOF(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil
	}
	return err
}

// delivered lists the archives, their records and the packages, sorted.
func (d Delivery) delivered() []string {
	return slices.Sorted(slices.Values(release.Manifest{Archives: d.Archives, Packages: d.Packages}.Outputs()))
}

// checkFiles reports files that are missing, and those that a former build left.
// Files that pretag did not write are ignored.
func (d *diskRun) checkFiles(context.Context) error {
	var found []string
	for _, name := range d.Former {
		found = append(found, name+" was left by a former build and is not in manifest.json")
	}
	for _, name := range d.delivered() {
		if _, err := os.Lstat(filepath.Join(d.Dir, name)); errors.Is(err, os.ErrNotExist) {
			found = append(found, name+" is in manifest.json and does not exist")
		}
	}
	return problems(found)
}

// checkSums compares every sum with its file, and reports files of manifest.json
// without one.
func (d *diskRun) checkSums(ctx context.Context) error {
	var found []string
	for _, name := range slices.Sorted(maps.Keys(d.Sums)) {
		file := filepath.Join(d.Dir, name)
		got, ok := d.sums[file]
		if !ok {
			var err error
			if got, err = release.SHA256File(ctx, file); err != nil {
				found = append(found, lines(err)...)
				continue
			}
		}
		if want := d.Sums[name]; got != want {
			found = append(found, fmt.Sprintf("%s: sha256 is %s, want %s", name, got, want))
		}
	}
	for _, name := range append(d.delivered(), release.ManifestName) {
		if d.Sums[name] == "" {
			found = append(found, name+" has no sum")
		}
	}
	return problems(found)
}
