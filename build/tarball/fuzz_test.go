package tarball_test

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pretag/build/tarball"
	"pretag/build/testutil"
)

// FuzzIndexes changes what image archives say of themselves, with digests and
// sizes that fit, so that it gets past their checks.
func FuzzIndexes(f *testing.F) {
	const descriptor = `{"mediaType":"application/vnd.oci.image.%s+json","digest":"DIGEST","size":SIZE}`
	f.Add(
		`{"schemaVersion":2,"manifests":[`+fmt.Sprintf(descriptor, "manifest.v1")+`]}`,
		`{"schemaVersion":2,"config":`+fmt.Sprintf(descriptor, "config.v1")+`,"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"LAYER","size":LSIZE}]}`,
		`{"os":"linux","architecture":"amd64","rootfs":{"diff_ids":["LAYER"]}}`,
		`[{"Config":"blobs/sha256/x","RepoTags":["a:b"],"Layers":["l"]}]`,
	)
	f.Add(`{"manifests":[`+fmt.Sprintf(descriptor, "index.v1")+`]}`, `{"manifests":[]}`, `{}`, `[]`)
	layer := string(testutil.Rootfs(f, "x"))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, index, manifest, config, docker string) {
		digest := func(s string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(s))) }
		fill := func(s, of string) string {
			return strings.NewReplacer("DIGEST", "sha256:"+digest(of), "LSIZE", fmt.Sprint(len(layer)), "SIZE", fmt.Sprint(len(of)), "LAYER", "sha256:"+digest(layer)).Replace(s)
		}
		config = fill(config, "")
		manifest = fill(manifest, config)
		entries := []testutil.Entry{
			testutil.File("manifest.json", docker), testutil.File("index.json", fill(index, manifest)), testutil.File("l", layer),
		}
		for _, blob := range []string{manifest, config, layer} {
			entries = append(entries, testutil.File("blobs/sha256/"+digest(blob), blob))
		}
		path := filepath.Join(dir, "input")
		for _, layout := range [][]testutil.Entry{nil, {testutil.File("oci-layout", `{"imageLayoutVersion":"1.0.0"}`)}} {
			if err := os.WriteFile(path, testutil.Tar(t, append(layout, entries...)...), 0o644); err != nil {
				t.Fatal(err)
			}
			img, err := tarball.Open(t.Context(), path, amd64(), dir, nil)
			if err != nil {
				continue
			}
			if len(img.Layers) == 0 || img.Config == nil {
				t.Error("no layers or no config, and no error")
			}
			_, _ = layers(img) // must return
			img.Close()
		}
	})
}
