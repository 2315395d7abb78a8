package verify

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
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

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"pretag/build/archive"
	"pretag/build/catalogue"
	"pretag/build/internal/decompress"
	"pretag/build/linuxpkg/pkgread"
	"pretag/build/release"
	"pretag/build/sbom"
)

// A delivery is a directory that package wrote, while it is checked.
type delivery struct {
	release.Manifest
	out     string
	sums    map[string]string // by file below out: sha256 in hex, as SHA256SUMS has it
	former  []string          // files below out that a former build left
	decoder *decoder

	// What checks have found, so that each file is read once.
	found   map[string]string        // by file below out: sha256 in hex
	configs map[string]v1.ConfigFile // by base name: of archives
}

// A decoder is the memory for decompression, which is as large as an archive's
// window (128 MiB by default). Whoever uses it holds the lock, so that the memory
// does not grow with the number of engines.
type decoder struct {
	sync.Mutex
	decompress.Decoders
}

// readDelivery reads what the files in out say of it.
func readDelivery(ctx context.Context, out string) (*delivery, error) {
	d := &delivery{out: out, decoder: &decoder{}, found: map[string]string{}, configs: map[string]v1.ConfigFile{}}
	var err error
	if d.Manifest, err = release.ReadManifest(out); err != nil {
		return nil, err
	}
	if d.sums, err = release.ReadSums(out); err != nil {
		return nil, err
	}
	owned, err := release.ReadOwned(ctx, out)
	if err != nil {
		return nil, err
	}
	d.former, err = owned.Former(ctx, slices.Collect(maps.Keys(d.sums)), release.DeliveryDirs()...)
	return d, err
}

// checkArchives checks each archive: against its record, and the record next to it
// against the manifest.
func (d *delivery) checkArchives(ctx context.Context) (results []Result, err error) {
	for _, f := range d.Archives {
		name := path.Join(release.ArchivesDir, f.Name)
		err := timed(&results, Result{Subject: name, Check: "archive"}, func(r *Result) error {
			r.judge(append(d.archive(ctx, name, f), compareInfo(f)...))
			return context.Cause(ctx)
		})
		if err != nil {
			return results, err
		}
	}
	return results, nil
}

// checkOthers checks everything else: each package; the sums; that no file is missing
// or left over; and the signatures, SBOMs and provenance.
func (d *delivery) checkOthers(ctx context.Context) (results []Result, err error) {
	check := func(subject, name string, problems func() []string) {
		if err != nil {
			return
		}
		err = timed(&results, Result{Subject: subject, Check: name}, func(r *Result) error {
			r.judge(problems())
			return context.Cause(ctx)
		})
	}
	for _, p := range d.Packages {
		check(path.Join(p.Format, p.File), "package", func() []string { return d.pkg(ctx, p) })
	}
	check(release.ManifestName, "files", d.files)
	check(release.SumsName, "sums", func() []string { return d.compareSums(ctx) })
	if d.Signer != "" {
		check(release.SumsName, "signature", func() []string { return lines(d.sumsSignature(ctx)) })
		for _, p := range d.Packages {
			check(path.Join(p.Format, p.File), "signature", func() []string { return lines(d.signatures(ctx, p)) })
		}
	}
	check(release.ProvenanceName, "provenance", func() []string { return lines(d.provenance()) })
	for _, f := range d.Archives {
		name := path.Join(release.SBOMDir, sbom.Name(f.Name))
		check(name, "sbom", func() []string { return lines(d.sbom(ctx, name, f)) })
	}
	if err == nil {
		err = d.rpmkeys(ctx, &results)
	}
	return results, err
}

// lines splits an error into its problems, one a line.
func lines(err error) []string {
	if err == nil {
		return nil
	}
	return strings.Split(err.Error(), "\n")
}

// archive reads an archive and compares it with its record.
func (d *delivery) archive(ctx context.Context, name string, f release.Archive) []string {
	file, err := os.Open(f.Path)
	if err != nil {
		return lines(err)
	}
	defer file.Close()
	d.decoder.Lock()
	defer d.decoder.Unlock()
	contents, err := archive.ReadFrom(ctx, file, archive.ReadOptions{Decoders: &d.decoder.Decoders})
	if err != nil {
		return lines(err)
	}
	d.found[name], d.configs[f.Name] = contents.SHA256, contents.Config
	return append(contents.Problems, lines(archive.Compare(contents, f))...)
}

// compareInfo compares the record next to the archive with the manifest's.
func compareInfo(f release.Archive) []string {
	content, err := os.ReadFile(f.Path + release.InfoSuffix)
	if err != nil {
		return lines(err)
	}
	if bytes.Equal(content, f.Info()) {
		return nil
	}
	name := f.Name + release.InfoSuffix
	got, err := release.ParseInfo(bytes.NewReader(content))
	if err != nil {
		return lines(fmt.Errorf("%s: %w", name, err))
	}
	var problems []string
	for _, side := range []struct {
		says        string
		lines, than []byte
	}{{"has", got.Info(), f.Info()}, {"lacks", f.Info(), got.Info()}} {
		for line := range strings.Lines(string(side.lines)) {
			if !slices.Contains(slices.Collect(strings.Lines(string(side.than))), line) {
				problems = append(problems, fmt.Sprintf("%s %s %s", name, side.says, strings.TrimSpace(line)))
			}
		}
	}
	if problems == nil {
		problems = append(problems, name+" has the right lines, but in another form than pretag writes")
	}
	return problems
}

// pkg reads a package back. The archives and records that it should contain must be
// those in out.
func (d *delivery) pkg(ctx context.Context, p release.Package) []string {
	sum, err := d.sum(ctx, path.Join(p.Format, p.File))
	if err != nil {
		return lines(err)
	}
	var problems []string
	report := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	if sum != p.SHA256 {
		report("sha256 is %s, manifest.json says %s", sum, p.SHA256)
	}
	missing := map[string]bool{}
	for _, name := range p.Archives {
		missing[name], missing[name+release.InfoSuffix] = true, true
	}
	err = readPackage(ctx, p.Path, func(name string, content io.Reader) error {
		dir, base := path.Dir(name), path.Base(name)
		if dir != catalogue.HostDir && !strings.HasSuffix(strings.TrimSuffix(base, release.InfoSuffix), catalogue.Suffix) {
			return nil
		}
		if !missing[base] {
			report("contains %s, which is not in manifest.json", name)
			return nil
		}
		delete(missing, base)
		if dir != catalogue.HostDir {
			report("%s is in %s, want %s, where GitLab Runner looks", base, dir, catalogue.HostDir)
		}
		got := sha256.New()
		if _, err := io.Copy(got, content); err != nil {
			return err
		}
		want, err := d.sum(ctx, path.Join(release.ArchivesDir, base))
		if got := hex.EncodeToString(got.Sum(nil)); got != want {
			report("%s: sha256 is %s, that of %s/%s is %s", name, got, release.ArchivesDir, base, want)
		}
		return err
	})
	problems = append(problems, lines(err)...)
	for _, name := range slices.Sorted(maps.Keys(missing)) {
		report("does not contain %s", name)
	}
	return problems
}

// sum returns the sha256, in hex, of a file below out. It reads each file once.
func (d *delivery) sum(ctx context.Context, name string) (string, error) {
	if d.found[name] == "" {
		sum, err := release.SHA256File(ctx, filepath.Join(d.out, name))
		if err != nil {
			return "", err
		}
		d.found[name] = sum
	}
	return d.found[name], nil
}

// readPackage passes each regular file of an rpm or deb to visit.
func readPackage(ctx context.Context, path string, visit func(name string, content io.Reader) error) error {
	p, err := pkgread.Open(ctx, path)
	if err != nil {
		return err
	}
	defer p.Close()
	for entry, err := range p.Contents() {
		if err != nil {
			return err
		}
		if entry.Mode.IsRegular() && !entry.Hard {
			if err := visit(entry.Path, entry.Body); err != nil {
				return err
			}
		}
	}
	return nil
}

// files reports files that are missing, and those that a former build left. Files that
// pretag did not write are ignored.
func (d *delivery) files() []string {
	var problems []string
	for _, name := range d.former {
		problems = append(problems, name+" was left by a former build and is not in manifest.json")
	}
	for _, name := range slices.Sorted(slices.Values(d.Outputs())) {
		if _, err := os.Lstat(filepath.Join(d.out, name)); errors.Is(err, os.ErrNotExist) {
			problems = append(problems, name+" is in manifest.json and does not exist")
		}
	}
	return problems
}

// compareSums compares every sum with its file, and reports files of manifest.json
// without one.
func (d *delivery) compareSums(ctx context.Context) []string {
	var problems []string
	for _, name := range slices.Sorted(maps.Keys(d.sums)) {
		got, err := d.sum(ctx, name)
		if err != nil {
			problems = append(problems, lines(err)...)
		} else if want := d.sums[name]; got != want {
			problems = append(problems, fmt.Sprintf("%s: sha256 is %s, want %s", name, got, want))
		}
	}
	for _, name := range append(d.Outputs(), release.ManifestName) {
		if d.sums[name] == "" {
			problems = append(problems, name+" has no sum")
		}
	}
	return problems
}
