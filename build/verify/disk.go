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
	"time"

	"pretag/build/archive"
	"pretag/build/internal/contextio"
	"pretag/build/release"
)

// A ReadPackage reads the rpm or deb at path and hands over each regular file
// in it, by its absolute name on the host.
type ReadPackage func(path string, visit func(name string, content io.Reader) error) error

// A Delivery is a folder that was built, and what its manifest says of it.
type Delivery struct {
	Dir      string            // OUT
	Archives []release.Archive // below helper-images/
	Packages []release.Package // below rpm/ and deb/
	Former   []string          // files that a former build left, relative to Dir
	Sums     map[string]string // by file, relative to Dir: sha256 in hex, as SHA256SUMS has them
	Read     ReadPackage
	More     []Check // made after the others
}

// A Check is one more check of a delivery. Joined errors are a problem each.
type Check struct {
	Subject string // a file below OUT
	Name    string
	Do      func() error
}

// Disk checks every file: each archive against its record, each package by
// reading it back and comparing what it carries with the archives byte by byte,
// the sums against the files, and that nothing is missing and nothing is there
// that nothing tells of. An error is only ctx's.
func Disk(ctx context.Context, d Delivery) ([]Result, error) {
	checks := make([]diskCheck, 0, len(d.Archives)+len(d.Packages)+2)
	for _, f := range d.Archives {
		checks = append(checks, diskCheck{path.Join("helper-images", f.Name), "archive", func() []string { return checkArchive(ctx, f) }})
	}
	for _, p := range d.Packages {
		checks = append(checks, diskCheck{path.Join(p.Format, p.File), "package", func() []string { return d.checkPackage(ctx, p) }})
	}
	checks = append(
		checks,
		diskCheck{release.ManifestName, "files", d.checkFiles},
		diskCheck{release.SumsName, "sums", func() []string { return d.checkSums(ctx) }},
	)
	for _, c := range d.More {
		checks = append(checks, diskCheck{c.Subject, c.Name, func() []string { return lines(c.Do()) }})
	}
	results := make([]Result, 0, len(checks))
	for _, c := range checks {
		if err := context.Cause(ctx); err != nil {
			return nil, err
		}
		start := time.Now()
		r := Result{Subject: c.subject, Check: c.name}
		r.judge(c.check())
		r.Seconds = time.Since(start).Seconds()
		results = append(results, r)
	}
	return results, nil
}

type diskCheck struct {
	subject, name string
	check         func() []string
}

// lines takes an error apart, one problem a line.
func lines(err error) []string {
	if err == nil {
		return nil
	}
	return strings.Split(err.Error(), "\n")
}

func checkArchive(ctx context.Context, f release.Archive) []string {
	problems := lines(archive.Check(ctx, f))
	info, err := os.ReadFile(f.Path + release.InfoSuffix)
	if err != nil {
		return append(problems, lines(err)...)
	}
	got, want := strings.Split(string(info), "\n"), strings.Split(string(f.Info()), "\n")
	for n := range max(len(got), len(want)) {
		if g, w := line(got, n), line(want, n); g != w {
			problems = append(problems, fmt.Sprintf("%s: line %d is %q, manifest.json has %q", f.Name+release.InfoSuffix, n+1, g, w))
		}
	}
	return problems
}

func line(lines []string, n int) string {
	if n < len(lines) {
		return lines[n]
	}
	return ""
}

// checkPackage reads the package back. The archives that it should carry are
// compared with those in OUT, as are their records.
func (d Delivery) checkPackage(ctx context.Context, p release.Package) []string {
	var problems []string
	size, sum, err := digest(ctx, p.Path)
	if err != nil {
		return lines(err)
	}
	if size != p.Size || sum != p.SHA256 {
		problems = append(problems, fmt.Sprintf("has %d bytes, sha256 %s; manifest.json says %d, %s", size, sum, p.Size, p.SHA256))
	}
	missing := map[string]bool{}
	for _, name := range p.Archives {
		missing[name], missing[name+release.InfoSuffix] = true, true
	}
	err = d.Read(p.Path, func(name string, content io.Reader) error {
		base := path.Base(name)
		if !strings.HasSuffix(strings.TrimSuffix(base, release.InfoSuffix), ".docker.tar.zst") && path.Dir(name) != hostFolder {
			return nil
		}
		if !missing[base] {
			problems = append(problems, fmt.Sprintf("carries %s, which is not in manifest.json", name))
			return nil
		}
		delete(missing, base)
		if dir := path.Dir(name); dir != hostFolder {
			problems = append(problems, fmt.Sprintf("%s is in %s, want %s, where GitLab Runner looks", base, dir, hostFolder))
		}
		if err := equal(content, filepath.Join(d.Dir, "helper-images", base)); err != nil {
			problems = append(problems, lines(fmt.Errorf("%s: %w", name, err))...)
		}
		return nil
	})
	problems = append(problems, lines(err)...)
	for _, name := range slices.Sorted(maps.Keys(missing)) {
		problems = append(problems, fmt.Sprintf("does not carry %s", name))
	}
	return problems
}

// hostFolder is where GitLab Runner, as /usr/bin/gitlab-runner, looks for helper
// images (v19.3.0, executors/docker/internal/prebuilt/prebuilt.go, init).
const hostFolder = "/usr/lib/gitlab-runner/helper-images"

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

// checkFiles reports files that are missing, and those that a former build left. Files
// that pretag did not write are none of its business.
func (d Delivery) checkFiles() []string {
	var problems []string
	for _, name := range d.Former {
		problems = append(problems, fmt.Sprintf("%s was left by a former build and is not in manifest.json", name))
	}
	for _, name := range d.delivered() {
		if _, err := os.Lstat(filepath.Join(d.Dir, name)); errors.Is(err, os.ErrNotExist) {
			problems = append(problems, fmt.Sprintf("%s is in manifest.json and does not exist", name))
		}
	}
	return problems
}

// checkSums recomputes every sum, and reports files of manifest.json without one.
func (d Delivery) checkSums(ctx context.Context) []string {
	var problems []string
	for _, name := range slices.Sorted(maps.Keys(d.Sums)) {
		_, got, err := digest(ctx, filepath.Join(d.Dir, name))
		if err != nil {
			problems = append(problems, lines(err)...)
		} else if want := d.Sums[name]; got != want {
			problems = append(problems, fmt.Sprintf("%s: sha256 is %s, want %s", name, got, want))
		}
	}
	for _, name := range append(d.delivered(), release.ManifestName) {
		if d.Sums[name] == "" {
			problems = append(problems, fmt.Sprintf("%s has no sum", name))
		}
	}
	return problems
}

func digest(ctx context.Context, path string) (size int64, sum string, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, "", err
	}
	defer f.Close()
	h := sha256.New()
	size, err = io.Copy(h, contextio.NewReader(ctx, f))
	return size, hex.EncodeToString(h.Sum(nil)), err
}
