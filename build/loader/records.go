package loader

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"pretag/build/catalogue"
	"pretag/build/internal/contextio"
	"pretag/build/internal/decompress"
	"pretag/build/internal/nearest"
	"pretag/build/release"
)

const (
	maxRecord   = 64 << 10 // bytes of one record
	maxConfigOf = 4 << 20  // bytes of an image's config; podman's limit too (containers/image v5, manifest)
)

// A record is one installed archive. archive.Path is the file that it describes.
type record struct {
	release.Archive
	goarch string
}

// hex64 is a SHA-256 in hex: an image's ID, a digest.
var hex64 = regexp.MustCompile(`^[0-9a-f]{64}$`)

var (
	helperForm   = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,120}$`)
	platformForm = regexp.MustCompile(`^linux/([a-z0-9]{1,16})(/[a-z0-9]{1,16})?$`)
	numberForm   = regexp.MustCompile(`^(0|[1-9][0-9]{0,17})$`)
	// referenceForm is a host, a path and a tag (distribution/reference v0.6, regexp.go).
	referenceForm = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]*(:[0-9]+)?(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)+:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$`)
)

// parseRecord reads a record and validates every value that is used. Keys that only
// later versions know are skipped, as one loader serves images of all versions.
func parseRecord(data []byte) (record, error) {
	var known bytes.Buffer
	for line := range strings.Lines(string(data)) {
		key, value, _ := strings.Cut(strings.TrimRight(line, "\n"), "=")
		switch key {
		case "size", "unpacked_size":
			if !numberForm.MatchString(value) {
				return record{}, fmt.Errorf("%s=%q: want a number", key, value)
			}
			fallthrough
		case "helper", "file", "repo_tag", "image_id", "diff_ids", "platform", "sha256", "runner_version":
			known.WriteString(line)
		}
	}
	a, err := release.ParseInfo(&known)
	if err != nil {
		return record{}, fmt.Errorf("invalid record: %w", err)
	}
	r := record{Archive: a}
	for _, check := range []struct {
		key, value string
		ok         bool
	}{
		{"helper", a.Helper, helperForm.MatchString(a.Helper)},
		{"file", a.Name, a.Name == "prebuilt-"+a.Helper+catalogue.Suffix},
		{"repo_tag", a.RepoTag, referenceForm.MatchString(a.RepoTag)},
		{"image_id", a.ImageID, isDigest(a.ImageID)},
		{"diff_ids", strings.Join(a.DiffIDs, ","), len(a.DiffIDs) > 0 && !slices.ContainsFunc(a.DiffIDs, func(id string) bool { return !isDigest(id) })},
		{"platform", a.Platform, platformForm.MatchString(a.Platform)},
		{"sha256", a.SHA256, hex64.MatchString(a.SHA256)},
		{"unpacked_size", "", a.UnpackedSize > 0},
	} {
		if !check.ok {
			return record{}, fmt.Errorf("%s=%q: not valid", check.key, check.value)
		}
	}
	r.goarch = platformForm.FindStringSubmatch(a.Platform)[1]
	return r, nil
}

func isDigest(s string) bool {
	id, ok := strings.CutPrefix(s, "sha256:")
	return ok && hex64.MatchString(id)
}

// id returns the image ID without its algorithm, as engines and the state spell it.
func (r record) id() string { return strings.TrimPrefix(r.ImageID, "sha256:") }

// scan reads all records of the archives' directory. Those that are damaged go
// into r.damaged, and archives without a record into r.unlisted. The result
// identifies what was read.
func (r *run) scan() (fingerprint string, err error) {
	r.records, r.damaged, r.unlisted, r.verdicts = nil, nil, nil, map[string]error{}
	entries, err := os.ReadDir(r.archives)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	sum := sha256.New()
	for _, entry := range entries {
		name, isRecord := strings.CutSuffix(entry.Name(), release.InfoSuffix)
		if !strings.HasPrefix(name, "prebuilt-") || !strings.HasSuffix(name, catalogue.Suffix) {
			continue
		}
		if !isRecord {
			r.unlisted = append(r.unlisted, name) // its record, if any, comes later
			continue
		}
		r.unlisted = slices.DeleteFunc(r.unlisted, func(archive string) bool { return archive == name })
		data, err := readSmall(filepath.Join(r.archives, entry.Name()), maxRecord)
		fmt.Fprintf(sum, "%q %x\n", name, sha256.Sum256(data))
		var rec record
		if err == nil {
			rec, err = parseRecord(data)
		}
		if err == nil && rec.Name != name {
			err = fmt.Errorf("file=%q: not the name of this archive", rec.Name)
		}
		if err != nil {
			r.damaged = append(r.damaged, fmt.Errorf("%s: damaged: %w", entry.Name(), err))
			continue
		}
		rec.Path = filepath.Join(r.archives, name)
		r.records = append(r.records, rec)
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// chosen returns the records of this host's architecture that HELPER selects,
// and reports those that are damaged.
func (r *run) chosen() []record {
	for _, err := range r.damaged {
		r.refuse(exitDataErr, "%s", err)
	}
	var chosen []record
	for _, rec := range r.records {
		if r.fits(rec) && r.selected(rec.Helper) {
			chosen = append(chosen, rec)
		}
	}
	return chosen
}

// fits reports whether the image is for this host. With --all every one is.
func (r *run) fits(rec record) bool {
	return r.all || r.name == "verify" || rec.goarch == goArch(r.machine())
}

// reportNone reports why no archive was chosen: there is none, or none that fits.
func (r *run) reportNone() {
	if len(r.records) == 0 {
		if len(r.damaged) == 0 {
			r.refuse(exitNoInput, "no archive: %s has none", r.archives)
		}
		return
	}
	var here, elsewhere []string
	for _, rec := range r.records {
		if r.fits(rec) {
			here = append(here, rec.Helper)
		} else {
			elsewhere = append(elsewhere, rec.Helper+" for "+rec.Platform)
		}
	}
	arch := goArch(r.machine())
	globs := strings.Join(r.globs, ",")
	switch {
	case len(here) == 0:
		r.refuse(exitUnfit, "no archive: %s has none for linux/%s; it has %s", r.archives, arch, strings.Join(elsewhere, ", "))
	default:
		hint := ""
		if near, close := nearest.Word(globs, here); close {
			hint = fmt.Sprintf(" (did you mean %s?)", near)
		}
		r.refuse(exitUnfit, "no archive: %s has none for linux/%s that matches %s; it has %s%s", r.archives, arch, globs, strings.Join(here, " "), hint)
	}
}

// machine is the kernel's word for this host's architecture.
func (r *run) machine() string {
	if r.root != "" { // tests
		return "x86_64"
	}
	return kernelMachine()
}

// goArch returns Go's word for the kernel's.
func goArch(machine string) string {
	switch {
	case machine == "x86_64":
		return "amd64"
	case machine == "aarch64":
		return "arm64"
	case strings.HasPrefix(machine, "arm"):
		return "arm"
	case machine == "loongarch64":
		return "loong64"
	}
	return machine
}

// open opens the archive of a record.
func (rec record) open() (*os.File, error) {
	f, size, err := openRegular(rec.Path)
	if err != nil {
		return nil, err
	}
	if size != rec.Size {
		return nil, errors.Join(fmt.Errorf("%d bytes, want %d", size, rec.Size), f.Close())
	}
	return f, nil
}

// sound compares an archive with its record, once in a run.
func (r *run) sound(ctx context.Context, rec record) error {
	if verdict, known := r.verdicts[rec.Path]; known {
		return verdict
	}
	f, err := rec.open()
	if err == nil {
		sum := sha256.New()
		_, err = io.Copy(sum, contextio.NewReader(ctx, f))
		err = errors.Join(err, f.Close())
		if got := hex.EncodeToString(sum.Sum(nil)); err == nil && got != rec.SHA256 {
			err = fmt.Errorf("sha256 %s, want %s", got, rec.SHA256)
		}
	}
	if ctx.Err() == nil {
		r.verdicts[rec.Path] = err
	}
	return err
}

// config returns the config in the archive. The archive is read up to it.
func (rec record) config(ctx context.Context) (*imageConfig, error) {
	f, err := rec.open()
	if err != nil {
		return nil, err
	}
	defer f.Close()
	plain, err := decompress.NewReader(contextio.NewReader(ctx, f))
	if err != nil {
		return nil, err
	}
	defer plain.Close()
	members := tar.NewReader(plain)
	for {
		header, err := members.Next()
		if err != nil {
			return nil, fmt.Errorf("no config %s.json: %w", rec.id(), err)
		}
		if header.Name != rec.id()+".json" {
			continue
		}
		data, err := io.ReadAll(io.LimitReader(members, maxConfigOf+1))
		if err != nil {
			return nil, err
		}
		if len(data) > maxConfigOf {
			return nil, fmt.Errorf("config larger than %d bytes", maxConfigOf)
		}
		var document struct {
			Config imageConfig `json:"config"`
		}
		err = json.Unmarshal(data, &document)
		return &document.Config, err
	}
}
