package archive_test

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"pretag/build/archive"
	"pretag/build/testutil"
)

// What engines export is read with all their ways of laying it out.
func TestReadExported(t *testing.T) {
	one, two := testutil.Rootfs(t, "one"), make([]byte, 1024)
	config := fmt.Sprintf(`{"os":"linux","architecture":"amd64","rootfs":{"diff_ids":["sha256:%x","sha256:%x","sha256:%[1]x"]}}`, sha256.Sum256(one), sha256.Sum256(two))
	id := fmt.Sprintf("%x", sha256.Sum256([]byte(config)))
	manifest := func(config, tag string, layers ...string) testutil.Entry {
		return testutil.File("manifest.json", fmt.Sprintf(`[{"Config":%q,"RepoTags":[%s],"Layers":["%s"]}]`, config, tag, strings.Join(layers, `","`)))
	}
	file := testutil.File
	for name, members := range map[string][]testutil.Entry{
		"docker 20.10": {
			testutil.Dir("a/"), file("a/VERSION", "1.0"), file("a/json", `{"id":"a"}`), file("a/layer.tar", string(one)), file("b/layer.tar", string(two)),
			symbolic("c/layer.tar", "../a/layer.tar"), file(id+".json", config), manifest(id+".json", `"x:y"`, "a/layer.tar", "b/layer.tar", "c/layer.tar"), file("repositories", "{}"),
		},
		"docker 29": {
			file("oci-layout", "{}"), file("index.json", "{}"), manifest("blobs/sha256/"+id, `"x:y"`, "blobs/sha256/1", "blobs/sha256/2", "blobs/sha256/1"),
			file("blobs/sha256/"+id, config), file("blobs/sha256/1", string(testutil.Compress(t, "gzip", one))), file("blobs/sha256/2", string(two)),
		},
		"podman": {
			file("1.tar", string(one)), file("2.tar", string(two)), symbolic("x/layer.tar", "../1.tar"), symbolic("y/layer.tar", "../2.tar"),
			file(id+".json", config), file("x/json", "{}"), manifest(id+".json", "", "1.tar", "2.tar", "1.tar"),
		},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := archive.ReadFrom(t.Context(), bytes.NewReader(testutil.Tar(t, members...)), archive.ReadOptions{Exported: true})
			if err != nil {
				t.Fatal(err)
			}
			want := []string{fmt.Sprintf("sha256:%x", sha256.Sum256(one)), fmt.Sprintf("sha256:%x", sha256.Sum256(two)), fmt.Sprintf("sha256:%x", sha256.Sum256(one))}
			if diff := cmp.Diff(want, c.DiffIDs); diff != "" || len(c.Problems) > 0 || c.ImageID != "sha256:"+id {
				t.Errorf("image %s, problems %q, diff IDs (-want +got):\n%s", c.ImageID, c.Problems, diff)
			}
		})
	}
	for want, members := range map[string][]testutil.Entry{
		"has no manifest.json":      {file("1.tar", string(one))},
		`names layer "2.tar"`:       {file("1.tar", string(one)), file("c", config), manifest("c", "", "1.tar", "2.tar")},
		"the config says":           {file("1.tar", string(one)), file("c", config), manifest("c", "", "1.tar")},
		`names config "d"`:          {file("1.tar", string(one)), manifest("d", "", "1.tar")},
		"manifest.json: 0 images":   {file("manifest.json", "[]")},
		`names layer "l/layer.tar"`: {symbolic("l/layer.tar", "../../x"), file("c", config), manifest("c", "", "l/layer.tar")},
	} {
		c, err := archive.ReadFrom(t.Context(), bytes.NewReader(testutil.Tar(t, members...)), archive.ReadOptions{Exported: true})
		if err != nil || !strings.Contains(strings.Join(c.Problems, "\n"), want) {
			t.Errorf("%v, %v, want %q", c, err, want)
		}
	}
	for want, member := range map[string]testutil.Entry{
		`path contains ".."`: file("../x", ""), "absolute path": file("/x", ""),
		"more than 4194304 bytes": file("c", "{"+strings.Repeat(" ", 5<<20)),
	} {
		_, err := archive.ReadFrom(t.Context(), bytes.NewReader(testutil.Tar(t, member)), archive.ReadOptions{Exported: true})
		testutil.WantError(t, err, want)
	}
}

func FuzzReadExported(f *testing.F) {
	f.Add(testutil.Tar(f, testutil.File("manifest.json", `[{"Config":"c","Layers":["l"]}]`), testutil.File("c", `{}`), testutil.File("x", "x"),
		testutil.Entry{Header: tar.Header{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "x"}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := archive.ReadFrom(t.Context(), bytes.NewReader(b), archive.ReadOptions{Exported: true})
		if err == nil && len(c.Problems) == 0 && (len(c.DiffIDs) == 0 || c.ImageID == "") {
			t.Error("no image and no problem")
		}
	})
}
