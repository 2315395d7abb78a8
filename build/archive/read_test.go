package archive_test

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"pretag/build/archive"
	"pretag/build/release"
	"pretag/build/testutil"
	"pretag/build/testutil/archivetest"
)

const tag = "registry.example.com/helper:x86_64-v19.3.0"

// docker is a docker-archive in parts, to damage.
type docker struct {
	layer, config []byte
	configName    string
	manifest      string
	extra         []testutil.Entry
}

func goodDocker(t *testing.T) docker {
	t.Helper()
	d := docker{layer: testutil.Rootfs(t, "x")}
	d.config = fmt.Appendf(nil, `{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["sha256:%x"]}}`, sha256.Sum256(d.layer))
	d.configName = fmt.Sprintf("%x.json", sha256.Sum256(d.config))
	d.manifest = fmt.Sprintf(`[{"Config":%q,"RepoTags":[%q],"Layers":["layer.tar"]}]`, d.configName, tag)
	return d
}

func (d docker) bytes(t *testing.T) []byte {
	t.Helper()
	return testutil.Tar(t, append([]testutil.Entry{
		testutil.File("layer.tar", string(d.layer)),
		testutil.File(d.configName, string(d.config)),
		testutil.File("manifest.json", d.manifest),
	}, d.extra...)...)
}

func read(t *testing.T, b []byte) (*archive.Contents, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "a")
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
	return archive.Read(t.Context(), path)
}

func TestReadFindsProblems(t *testing.T) {
	if c, err := read(t, goodDocker(t).bytes(t)); err != nil || len(c.Problems) > 0 {
		t.Fatalf("the good one: %v %q", err, c.Problems)
	}
	for name, row := range map[string]struct {
		damage func(*docker)
		want   string
	}{
		"two images": {func(d *docker) {
			one := strings.TrimPrefix(strings.TrimSuffix(d.manifest, "]"), "[")
			d.manifest = "[" + one + "," + one + "]"
		}, "manifest.json: 2 images, want 1"},
		"no image":        {func(d *docker) { d.manifest = "[]" }, "manifest.json: 0 images"},
		"no manifest":     {func(d *docker) { d.manifest = "null" }, "manifest.json: 0 images"},
		"broken manifest": {func(d *docker) { d.manifest = "{" }, "manifest.json: "},
		"two tags":        {func(d *docker) { d.manifest = strings.Replace(d.manifest, tag, tag+`","example.com/b:c`, 1) }, "has 2 RepoTags, want 1"},
		"no tag":          {func(d *docker) { d.manifest = strings.Replace(d.manifest, `"`+tag+`"`, "", 1) }, "has 0 RepoTags"},
		"short tag":       {func(d *docker) { d.manifest = strings.Replace(d.manifest, tag, "helper", 1) }, `RepoTag "helper"`},
		"oci-layout":      {func(d *docker) { d.extra = append(d.extra, testutil.File("oci-layout", "{}")) }, "has oci-layout"},
		"index.json":      {func(d *docker) { d.extra = append(d.extra, testutil.File("index.json", "{}")) }, "has index.json"},
		"foreign member":  {func(d *docker) { d.extra = append(d.extra, testutil.File("repositories", "{}")) }, `does not name member "repositories"`},
		"foreign layer":   {func(d *docker) { d.extra = append(d.extra, testutil.File("b.tar", string(d.layer))) }, `does not name member "b.tar"`},
		"link":            {func(d *docker) { d.extra = append(d.extra, link("l", "layer.tar", tar.TypeSymlink)) }, `member "l" is not a regular file`},
		"layer missing":   {func(d *docker) { d.manifest = strings.Replace(d.manifest, "layer.tar", "other.tar", 1) }, `names layer "other.tar", which is missing`},
		"config missing":  {func(d *docker) { d.configName = "other.json" }, "which is missing"},
		"config misnamed": {func(d *docker) {
			d.manifest = strings.Replace(d.manifest, d.configName, "c.json", 1)
			d.configName = "c.json"
		}, "not named by its digest"},
		"config changed":     {func(d *docker) { d.config = bytes.Replace(d.config, []byte("linux"), []byte("Linux"), 1) }, "not named by its digest"},
		"other layer":        {func(d *docker) { d.layer[512*3+1] ^= 1 }, "layers have diff IDs"},
		"config no platform": {func(d *docker) { d.config = []byte(`{}`) }, "the config names no platform"},
	} {
		t.Run(name, func(t *testing.T) {
			d := goodDocker(t)
			row.damage(&d)
			c, err := read(t, d.bytes(t))
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(c.Problems, "\n"); !strings.Contains(got, row.want) {
				t.Errorf("problems %q, want one that holds %q", got, row.want)
			}
		})
	}
}

// One changed byte anywhere, or a missing end, is reported in every compression.
func TestCheckReportsEveryByte(t *testing.T) {
	for _, compression := range []string{"zstd:fastest", "gzip", "none"} {
		t.Run(compression, func(t *testing.T) {
			f, err := write(t, compression, spec(t, testutil.Rootfs(t, strings.Repeat("0123456789abcdef", 200)), testutil.Tar(t, testutil.File("two", "2"))))
			if err != nil {
				t.Fatal(err)
			}
			body, err := os.ReadFile(f.Path)
			if err != nil {
				t.Fatal(err)
			}
			damaged := f
			damaged.Path = filepath.Join(t.TempDir(), "a")
			check := func(b []byte, what string, at int) {
				if err := os.WriteFile(damaged.Path, b, 0o644); err != nil {
					t.Fatal(err)
				}
				if archive.Check(t.Context(), damaged) == nil {
					t.Errorf("%s at %d of %d: not reported", what, at, len(body))
				}
			}
			for at := 0; at < len(body); at += 1 + len(body)/97 {
				check(flip(body, at), "flipped bit", at)
				check(body[:at], "cut", at)
			}
		})
	}
}

func TestCheckComparesTheRecord(t *testing.T) {
	f, err := write(t, "none", spec(t, testutil.Rootfs(t, "x")))
	if err != nil {
		t.Fatal(err)
	}
	f.Compression, f.RepoTag, f.Size, f.Platform = "zstd:best", "other", 1, "linux/arm"
	f.ImageID, f.SHA256, f.UnpackedSize, f.DiffIDs = "sha256:0", "0", 1, nil
	err = archive.Check(t.Context(), f)
	for _, want := range []string{"compression is none, its record says zstd", "RepoTags", "size is ", "platform is linux/amd64, its record says linux/arm", "image ID", "sha256 is ", "unpacked size", "diff IDs"} {
		testutil.WantError(t, err, want)
	}
}

func TestInfo(t *testing.T) {
	f := archivetest.Archives(t, t.TempDir(), "alpine-arm")[0]
	got, err := release.ParseInfo(bytes.NewReader(f.Info()))
	if err != nil {
		t.Fatal(err)
	}
	good := string(f.Info())
	f.Path = ""
	if diff := cmp.Diff(f, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for text, want := range map[string]string{
		"":                               "no line helper=",
		"helper":                         `line 1: "helper" is not KEY=value`,
		"helper=a\nhelper=b":             `line 2: unknown or repeated key "helper"`,
		"colour=red":                     `line 1: unknown or repeated key "colour"`,
		"size=many":                      `line 1: size="many": want a number`,
		strings.Repeat("x", 1<<20):       "token too long",
		string(f.Info()) + "size=1\n":    "unknown or repeated",
		string(f.Info()[:len("helper")]): "is not KEY=value",
		"<html>":                         "is not KEY=value",
		strings.Replace(good, "helper=", "helper\x00=", 1): "unknown or repeated key",
		good + "\n": "is not KEY=value",
		strings.Replace(good, "\nsize=", "\nsize=-", 1):                    "want a number",
		strings.Replace(good, "\nsize=", "\nsize=99999999999999999999", 1): "want a number",
		strings.ReplaceAll(good, "=", " = "):                               "unknown or repeated key",
		strings.Replace(good, "image_id=", "image=", 1):                    "unknown or repeated key",
	} {
		_, err := release.ParseInfo(strings.NewReader(text))
		testutil.WantError(t, err, want)
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte("not a tar file"))
	f.Add(testutil.Tar(f, testutil.File("manifest.json", `[{"Config":"c.json","RepoTags":["a/b:c"],"Layers":["layer.tar"]}]`), testutil.File("c.json", "{}")))
	path := filepath.Join(f.TempDir(), "a")
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
		if c, err := archive.Read(t.Context(), path); err == nil && c.ImageID == "" && len(c.Problems) == 0 {
			t.Error("no image and no problem")
		}
	})
}
