package verify

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"pretag/build/catalogue"
	"pretag/build/provenance"
	"pretag/build/release"
	"pretag/build/sbom"
	"pretag/build/testutil"
	"pretag/build/testutil/archivetest"
)

// A delivered is a directory as package leaves it, with two archives and one deb.
type delivered struct {
	release.Manifest
	out  string
	deb  string
	info string // the record of the second archive
}

func (d *delivered) path(name ...string) string {
	return filepath.Join(append([]string{d.out}, name...)...)
}

// deliver makes a small delivery.
func deliver(t *testing.T) *delivered {
	t.Helper()
	d := &delivered{out: t.TempDir()}
	images := d.path(release.ArchivesDir)
	d.deb = d.path(release.Deb, "helpers.deb")
	for _, dir := range []string{images, filepath.Dir(d.deb)} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	d.Archives = archivetest.Archives(t, images, "alpine-x86_64", "alpine-arm")
	d.info = d.Archives[1].Path + release.InfoSuffix
	if _, err := sbom.Build(t.Context(), d.path(release.SBOMDir), d.Archives, 1); err != nil {
		t.Fatal(err)
	}
	d.Version, d.Tools = testutil.Version, map[string]string{"pretag": "1"}
	p := release.Package{File: "helpers.deb", Format: release.Deb}
	for _, f := range d.Archives {
		p.Archives = append(p.Archives, f.Name)
	}
	d.Packages = []release.Package{p}
	d.pack(t, d.files(t))
	d.describe(t)
	return d
}

// files returns what the deb holds.
func (d *delivered) files(t *testing.T) map[string]string {
	t.Helper()
	files := map[string]string{"/usr/share/doc/helpers/copyright": "not an archive"}
	for _, f := range d.Archives {
		for _, name := range []string{f.Name, f.Name + release.InfoSuffix} {
			content, err := os.ReadFile(d.path(release.ArchivesDir, name))
			if err != nil {
				t.Fatal(err)
			}
			files[path.Join(catalogue.HostDir, name)] = string(content)
		}
	}
	return files
}

// pack writes the deb and its record.
func (d *delivered) pack(t *testing.T, files map[string]string) {
	t.Helper()
	var entries []testutil.Entry
	for _, name := range slices.Sorted(maps.Keys(files)) {
		entries = append(entries, testutil.File("."+name, files[name]))
	}
	deb := testutil.Deb(t, entries...)
	write(t, d.deb, deb)
	d.Packages[0].Size, d.Packages[0].SHA256 = int64(len(deb)), fmt.Sprintf("%x", sha256.Sum256(deb))
}

// describe writes the files that describe what is there.
func (d *delivered) describe(t *testing.T) {
	t.Helper()
	names := d.Outputs()
	for _, f := range d.Archives {
		names = append(names, path.Join(release.SBOMDir, sbom.Name(f.Name)))
	}
	sums := map[string]string{}
	sum := func(name string) {
		var err error
		if sums[name], err = release.SHA256File(t.Context(), d.path(name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range names {
		sum(name)
	}
	statement, err := provenance.Build{Outputs: sums}.Statement().JSON()
	if err != nil {
		t.Fatal(err)
	}
	write(t, d.path(release.ProvenanceName), statement)
	manifest, err := release.JSON(d.Manifest)
	if err != nil {
		t.Fatal(err)
	}
	write(t, d.path(release.ManifestName), manifest)
	sum(release.ProvenanceName)
	sum(release.ManifestName)
	write(t, d.path(release.SumsName), release.Sums(sums))
}

func write(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o644); err != nil {
		t.Fatal(err)
	}
}

func replaceIn(t *testing.T, path, old, replacement string) {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(content, []byte(old)) {
		t.Fatalf("%s does not hold %q", path, old)
	}
	write(t, path, bytes.Replace(content, []byte(old), []byte(replacement), 1))
}

// A good delivery passes every check.
func TestOnDisk(t *testing.T) {
	d := deliver(t)
	report, err := OnDisk(t.Context(), d.out)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range report.Disk {
		got = append(got, fmt.Sprintf("%s: %s: %s %q", r.Subject, r.Check, r.Status, r.Problems))
	}
	want := []string{
		"helper-images/prebuilt-alpine-x86_64.docker.tar.zst: archive: passed []",
		"helper-images/prebuilt-alpine-arm.docker.tar.zst: archive: passed []",
		"deb/helpers.deb: package: passed []",
		"manifest.json: files: passed []",
		"SHA256SUMS: sums: passed []",
		"provenance.json: provenance: passed []",
		"sbom/prebuilt-alpine-x86_64.spdx.json: sbom: passed []",
		"sbom/prebuilt-alpine-arm.spdx.json: sbom: passed []",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// Everything that can be wrong in a delivery, and the check that must report it.
func TestOnDiskReports(t *testing.T) {
	const name = "prebuilt-alpine-arm.docker.tar.zst"
	const archive, pkg, files, sums = "helper-images/" + name + ": archive", "deb/helpers.deb: package", "manifest.json: files", "SHA256SUMS: sums"
	packed := func(change func(files map[string]string)) func(*testing.T, *delivered) {
		return func(t *testing.T, d *delivered) {
			files := d.files(t)
			change(files)
			d.pack(t, files)
			d.describe(t)
		}
	}
	record := func(old, replacement string) func(*testing.T, *delivered) {
		return func(t *testing.T, d *delivered) {
			replaceIn(t, d.info, old, replacement)
			d.describe(t)
		}
	}
	const inDeb = catalogue.HostDir + "/" + name
	for _, test := range []struct {
		name, check, says string
		spoil             func(*testing.T, *delivered)
	}{
		{"damaged archive", archive, "corrupt zstd stream", func(t *testing.T, d *delivered) {
			content, err := os.ReadFile(d.Archives[1].Path)
			if err != nil {
				t.Fatal(err)
			}
			content[len(content)/2] ^= 0xff
			write(t, d.Archives[1].Path, content)
		}},
		{"wrong tag in the record", archive, "RepoTags is [" + testutil.Repository + ":arm-v19.3.0], ", func(t *testing.T, d *delivered) {
			d.Archives[1].RepoTag = testutil.Repository + ":arm64-v19.3.0"
			d.describe(t)
		}},
		{"another record next to the archive", archive, name + ".info has platform=linux/arm64\n" + name + ".info lacks platform=linux/arm/v7", record("linux/arm/v7", "linux/arm64")},
		{"record lacks a line", archive, name + ".info lacks compression=zstd:fastest", record("compression=zstd:fastest\n", "")},
		{"record has one line more", archive, name + ".info has warning=x", record("compression=", "warning=x\ncompression=")},
		{"record in another form", archive, name + ".info has the right lines, but in another form than pretag writes", record("\n", "\r\n")},
		{"record with an unknown line", archive, name + `.info: line 1: unknown or repeated key "x"`, record("helper=", "x=1\nhelper=")},
		{"no record next to the archive", archive, "no such file", func(t *testing.T, d *delivered) { remove(t, d.info) }},
		{"package changed after the manifest", pkg, "manifest.json says", func(t *testing.T, d *delivered) { replaceIn(t, d.deb, "not an", "not one") }},
		{"package with another archive", pkg, inDeb + ": sha256 is ", packed(func(files map[string]string) { files[inDeb] = "x" + files[inDeb][1:] })},
		{"package with a longer archive", pkg, inDeb + ": sha256 is ", packed(func(files map[string]string) { files[inDeb] += "x" })},
		{"package without an archive", pkg, "does not contain " + name, packed(func(files map[string]string) { delete(files, inDeb) })},
		{"package without a record", pkg, "does not contain " + name + ".info", packed(func(files map[string]string) { delete(files, inDeb+".info") })},
		{"archive in another directory", pkg, name + " is in /usr/lib, want " + catalogue.HostDir, packed(func(files map[string]string) {
			files["/usr/lib/"+name] = files[inDeb]
			delete(files, inDeb)
		})},
		{"package with one archive more", pkg, "contains /srv/prebuilt-x.docker.tar.zst, which is not in manifest.json", packed(func(files map[string]string) {
			files["/srv/prebuilt-x.docker.tar.zst"] = "x"
		})},
		{"not a package", pkg, "neither", func(t *testing.T, d *delivered) { write(t, d.deb, []byte("x")) }},
		{"package missing", pkg, "no such file", func(t *testing.T, d *delivered) { remove(t, d.deb) }},
		{"archive of a former build", files, "helper-images/prebuilt-alpine-s390x.docker.tar.zst was left by a former build and is not in manifest.json", func(t *testing.T, d *delivered) {
			archivetest.Archives(t, d.path(release.ArchivesDir), "alpine-s390x")
		}},
		{"listed archive missing", files, "is in manifest.json and does not exist", func(t *testing.T, d *delivered) { remove(t, d.Archives[0].Path) }},
		{"wrong sum", sums, "manifest.json: sha256 is ", func(t *testing.T, d *delivered) { replaceIn(t, d.path("manifest.json"), "\n", " \n") }},
		{"no sum", sums, "deb/helpers.deb has no sum", func(t *testing.T, d *delivered) {
			replaceIn(t, d.path("SHA256SUMS"), d.Packages[0].SHA256+"  deb/helpers.deb\n", "")
		}},
		{"sum of a missing file", sums, "no such file", func(t *testing.T, d *delivered) { replaceIn(t, d.path("SHA256SUMS"), "helpers.deb", "gone.deb") }},
		{"SBOM of another image", "sbom/prebuilt-alpine-arm.spdx.json: sbom", "for this archive", func(t *testing.T, d *delivered) {
			other, err := os.ReadFile(d.path("sbom", "prebuilt-alpine-x86_64.spdx.json"))
			if err != nil {
				t.Fatal(err)
			}
			write(t, d.path("sbom", "prebuilt-alpine-arm.spdx.json"), other)
		}},
		{"provenance of other files", "provenance.json: provenance", "deb/helper5.deb: is missing, but the provenance lists it", func(t *testing.T, d *delivered) {
			replaceIn(t, d.path("provenance.json"), "deb/helpers.deb", "deb/helper5.deb")
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			d := deliver(t)
			test.spoil(t, d)
			report, err := OnDisk(t.Context(), d.out)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range report.Disk {
				if r.Subject+": "+r.Check == test.check {
					if r.Status != Failed || !strings.Contains(strings.Join(r.Problems, "\n"), test.says) {
						t.Errorf("%s: %s %q, want failed with %q", test.check, r.Status, r.Problems, test.says)
					}
					return
				}
			}
			t.Errorf("no result for %s in %v", test.check, report.Disk)
		})
	}
}

// Only archives that are right on disk are sound.
func TestSound(t *testing.T) {
	d := deliver(t)
	remove(t, d.info)
	report, err := OnDisk(t.Context(), d.out)
	sound := report.sound()
	if err != nil || len(sound) != 1 || sound[0].Name != d.Archives[0].Name {
		t.Errorf("got %v, %v; want %s alone", sound, err, d.Archives[0].Name)
	}
}

func TestOnDiskStops(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("stop")
	cancel(stop)
	if _, err := OnDisk(ctx, deliver(t).out); !errors.Is(err, stop) {
		t.Errorf("got %v, want %v", err, stop)
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
}
