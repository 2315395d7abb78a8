package verify

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pretag/build/catalogue"
	"pretag/build/release"
	"pretag/build/testutil"
	"pretag/build/testutil/archivetest"
)

// delivery is a small one whose packages are lists of files, see readList.
func delivery(t *testing.T) Delivery {
	t.Helper()
	d := Delivery{Dir: t.TempDir(), Sums: map[string]string{}, Read: readList}
	images := filepath.Join(d.Dir, "helper-images")
	for _, dir := range []string{images, filepath.Join(d.Dir, "deb"), filepath.Join(d.Dir, "verify")} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	d.Archives = archivetest.Archives(t, images, "alpine-x86_64", "alpine-arm")
	packed := map[string][]byte{}
	p := release.Package{Path: filepath.Join(d.Dir, "deb", "helpers.deb"), File: "helpers.deb", Format: "deb"}
	for _, f := range d.Archives {
		p.Archives = append(p.Archives, f.Name)
		for _, name := range []string{f.Name, f.Name + release.InfoSuffix} {
			content, err := os.ReadFile(filepath.Join(images, name))
			if err != nil {
				t.Fatal(err)
			}
			packed[path.Join(catalogue.HostDir, name)] = content
		}
	}
	packed["/usr/share/doc/helpers/copyright"] = []byte("not an archive")
	var body bytes.Buffer
	for _, name := range slices.Sorted(maps.Keys(packed)) {
		body.WriteString(name + "\x00" + string(packed[name]) + "\x00\x00\x00\x00\x00\x00\x00\x00\n")
	}
	write(t, p.Path, body.Bytes())
	write(t, filepath.Join(d.Dir, "manifest.json"), []byte("{}"))
	write(t, filepath.Join(d.Dir, "SHA256SUMS"), nil)
	write(t, filepath.Join(d.Dir, "verify", "report.json"), nil)
	d.Packages = []release.Package{p}
	d.record(t)
	return d
}

// record makes the delivery's records those of what is there.
func (d *Delivery) record(t *testing.T) {
	t.Helper()
	for n, p := range d.Packages {
		info, err := os.Stat(p.Path)
		if err != nil {
			t.Fatal(err)
		}
		sum, err := release.SHA256File(t.Context(), p.Path)
		if err != nil {
			t.Fatal(err)
		}
		d.Packages[n].Size, d.Packages[n].SHA256 = info.Size(), sum
	}
	for _, dir := range []string{"helper-images", "deb", "."} {
		entries, err := os.ReadDir(filepath.Join(d.Dir, dir))
		if err != nil {
			t.Fatal(err)
		}
		for _, entry := range entries {
			if entry.IsDir() {
				continue
			}
			name := path.Join(dir, entry.Name())
			if d.Sums[name], err = release.SHA256File(t.Context(), filepath.Join(d.Dir, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	delete(d.Sums, release.SumsName)
}

// readList reads what delivery packed.
func readList(_ context.Context, path string, visit func(string, io.Reader) error) error {
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	for member := range bytes.SplitSeq(content, []byte("\x00\x00\x00\x00\x00\x00\x00\x00\n")) {
		name, body, ok := bytes.Cut(member, []byte{0})
		if !ok {
			continue
		}
		if err := visit(string(name), bytes.NewReader(body)); err != nil {
			return err
		}
	}
	return nil
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

func TestDiskTakesAGoodDelivery(t *testing.T) {
	d := delivery(t)
	results, err := Disk(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"helper-images/" + d.Archives[0].Name, "helper-images/" + d.Archives[1].Name,
		"deb/helpers.deb", "manifest.json", "SHA256SUMS",
	}
	for n, r := range results {
		if r.Subject != want[n] || r.Status != Passed {
			t.Errorf("%s: %s %v, want %s passed", r.Subject, r.Status, r.Problems, want[n])
		}
	}
	if len(results) != len(want) {
		t.Errorf("%d results, want %d", len(results), len(want))
	}
}

// Everything that can be wrong in a delivery, and the only check that must report it.
func TestDiskReports(t *testing.T) {
	const name = "prebuilt-alpine-arm.docker.tar.zst"
	for _, test := range []struct {
		name, subject, says string
		spoil               func(*testing.T, *Delivery)
	}{
		{"damaged archive", "helper-images/" + name, "corrupt zstd stream", func(t *testing.T, d *Delivery) {
			content, err := os.ReadFile(d.Archives[1].Path)
			if err != nil {
				t.Fatal(err)
			}
			content[len(content)/2] ^= 0xff
			write(t, d.Archives[1].Path, content)
		}},
		{"wrong tag in the record", "helper-images/" + name, "RepoTags is [" + testutil.Repository + ":arm-v19.3.0], ", func(t *testing.T, d *Delivery) {
			d.Archives[1].RepoTag = testutil.Repository + ":arm64-v19.3.0"
		}},
		{"record next to the archive differs", "helper-images/" + name, name + `.info: platform is "linux/arm64", manifest.json has "linux/arm/v7"`, func(t *testing.T, d *Delivery) {
			replaceIn(t, d.Archives[1].Path+release.InfoSuffix, "linux/arm/v7", "linux/arm64")
		}},
		{"record lacks a line", "helper-images/" + name, name + ".info: no line compression=zstd:fastest, which manifest.json has", func(t *testing.T, d *Delivery) {
			replaceIn(t, d.Archives[1].Path+release.InfoSuffix, "compression=zstd:fastest\n", "")
		}},
		{"record has one line more", "helper-images/" + name, name + ".info: has warning=x, which manifest.json does not have", func(t *testing.T, d *Delivery) {
			replaceIn(t, d.Archives[1].Path+release.InfoSuffix, "compression=", "warning=x\ncompression=")
		}},
		{"record in another form", "helper-images/" + name, name + ".info: has the right lines, but in another form than pretag writes", func(t *testing.T, d *Delivery) {
			replaceIn(t, d.Archives[1].Path+release.InfoSuffix, "\n", "\r\n")
		}},
		{"record with an unknown line", "helper-images/" + name, name + `.info: line 1: unknown or repeated key "x"`, func(t *testing.T, d *Delivery) {
			replaceIn(t, d.Archives[1].Path+release.InfoSuffix, "helper=", "x=1\nhelper=")
		}},
		{"no record next to the archive", "helper-images/" + name, "no such file", func(t *testing.T, d *Delivery) {
			remove(t, d.Archives[1].Path+release.InfoSuffix)
		}},
		{"package changed after the manifest", "deb/helpers.deb", "manifest.json says", func(t *testing.T, d *Delivery) {
			replaceIn(t, d.Packages[0].Path, "not an", "not one")
		}},
		{"package with another archive", "deb/helpers.deb", "differs from ", func(t *testing.T, d *Delivery) {
			replaceIn(t, d.Packages[0].Path, "\x28\xb5\x2f\xfd", "\x28\xb5\x2f\xfe")
			d.record(t)
		}},
		{"package with a longer archive", "deb/helpers.deb", "differs from ", func(t *testing.T, d *Delivery) {
			replaceIn(t, d.Packages[0].Path, "\x00\x00\x00\x00\x00\x00\x00\x00\n", "x\x00\x00\x00\x00\x00\x00\x00\x00\n")
			d.record(t)
		}},
		{"package without an archive", "deb/helpers.deb", "does not contain " + name, func(t *testing.T, d *Delivery) {
			replaceIn(t, d.Packages[0].Path, catalogue.HostDir+"/"+name+"\x00", "/usr/share/other\x00")
			d.record(t)
		}},
		{"archive in another directory", "deb/helpers.deb", "where GitLab Runner looks", func(t *testing.T, d *Delivery) {
			replaceIn(t, d.Packages[0].Path, catalogue.HostDir+"/"+name+"\x00", "/usr/lib/gitlab-runner/"+name+"\x00")
			d.record(t)
		}},
		{"package with more than the manifest lists", "deb/helpers.deb", "which is not in manifest.json", func(_ *testing.T, d *Delivery) {
			d.Packages[0].Archives = d.Packages[0].Archives[:1]
		}},
		{"package gone", "deb/helpers.deb", "no such file", func(t *testing.T, d *Delivery) { remove(t, d.Packages[0].Path) }},
		{"package that cannot be read", "deb/helpers.deb", "no deb", func(_ *testing.T, d *Delivery) {
			d.Read = func(context.Context, string, func(string, io.Reader) error) error { return errors.New("no deb") }
		}},
		{"archive of a former build", "manifest.json", "helper-images/prebuilt-x.docker.tar.zst was left by a former build and is not in manifest.json", func(_ *testing.T, d *Delivery) {
			d.Former = []string{"helper-images/prebuilt-x.docker.tar.zst"}
		}},
		{"listed archive missing", "manifest.json", "is in manifest.json and does not exist", func(t *testing.T, d *Delivery) { remove(t, d.Archives[0].Path) }},
		{"wrong sum", "SHA256SUMS", "manifest.json: sha256 is ", func(t *testing.T, d *Delivery) {
			write(t, filepath.Join(d.Dir, "manifest.json"), []byte("{ }"))
		}},
		{"no sum", "SHA256SUMS", "deb/helpers.deb has no sum", func(_ *testing.T, d *Delivery) {
			delete(d.Sums, "deb/helpers.deb")
		}},
		{"sum of a missing file", "SHA256SUMS", "no such file", func(_ *testing.T, d *Delivery) { d.Sums["gone"] = "0" }},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := delivery(t)
			test.spoil(t, &d)
			results, err := Disk(t.Context(), d)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range results {
				if r.Subject == test.subject {
					if r.Status != Failed || !strings.Contains(strings.Join(r.Problems, "\n"), test.says) {
						t.Errorf("%s: %s %q, want failed with %q", r.Subject, r.Status, r.Problems, test.says)
					}
					return
				}
			}
			t.Errorf("no result for %s in %v", test.subject, results)
		})
	}
}

// Only archives that are right on disk are sound.
func TestSound(t *testing.T) {
	d := delivery(t)
	d.Archives[1].RepoTag = ""
	results, err := Disk(t.Context(), d)
	sound := Report{Archives: d.Archives, Disk: results}.Sound()
	if err != nil || len(sound) != 1 || sound[0].Name != d.Archives[0].Name {
		t.Errorf("got %v, %v; want %s alone", sound, err, d.Archives[0].Name)
	}
}

func TestDiskStops(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("stop")
	cancel(stop)
	if _, err := Disk(ctx, delivery(t)); !errors.Is(err, stop) {
		t.Errorf("got %v, want %v", err, stop)
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
}
