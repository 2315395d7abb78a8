//go:build acceptance

package verify

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"pretag/build/release"
	"pretag/build/testutil"
)

// controlTag is the tag that every control should get. It names no helper and no real host.
const controlTag = "registry.invalid/pretag/control:expected"

// A control is an archive, and whether the checks must find something wrong with it.
type control struct {
	name  string
	bad   bool
	image expected
}

// controls makes a good archive, and one for each thing that engines do not report.
func controls(t *testing.T) []control {
	t.Helper()
	const content = "the layer of a control\n"
	layer, damaged := testutil.Tar(t, testutil.File("etc/control", content)), testutil.Tar(t, testutil.File("etc/control", strings.ToUpper(content)))
	config := v1.ConfigFile{
		OS: "linux", Architecture: runtime.GOARCH,
		Config: v1.Config{Entrypoint: []string{"/etc/control"}, Env: []string{"CONTROL=1"}},
		RootFS: v1.RootFS{Type: "layers", DiffIDs: []v1.Hash{{Algorithm: "sha256", Hex: fmt.Sprintf("%x", sha256.Sum256(layer))}}},
	}
	raw, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	id := fmt.Sprintf("%x", sha256.Sum256(raw))
	var made []control
	for _, c := range []struct {
		name  string
		bad   bool
		layer []byte
		tags  []string
	}{
		{"good archive", false, layer, []string{controlTag}},
		{"wrong tag", true, layer, []string{"registry.invalid/pretag/control:other"}},
		{"two tags", true, layer, []string{controlTag, "registry.invalid/pretag/control:second"}},
		{"damaged layer", true, damaged, []string{controlTag}},
	} {
		manifest, err := json.Marshal([]any{map[string]any{"Config": id + ".json", "RepoTags": c.tags, "Layers": []string{"layer.tar"}}})
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), "archive")
		write(t, path, testutil.Tar(t, testutil.File("layer.tar", string(c.layer)), testutil.File(id+".json", string(raw)), testutil.File("manifest.json", string(manifest))))
		made = append(made, control{c.name, c.bad, expected{release.Archive{
			Path: path, Helper: c.name, RepoTag: controlTag, ImageID: "sha256:" + id,
			DiffIDs: []string{config.RootFS.DiffIDs[0].String()}, Compression: "none",
		}, config}})
	}
	return made
}

// The checks can fail: in every way to load, they report an archive that is broken on
// purpose, and pass a good one.
func TestControls(t *testing.T) {
	made := controls(t)
	for _, e := range installed(t) {
		t.Run(string(e.Kind), func(t *testing.T) {
			t.Parallel() // engines mostly wait
			instance, err := e.Start(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := instance.Close(); err != nil {
					t.Error(err)
				}
			})
			run := engineRun{session{decoder: &decoder{}}, instance, &EngineResult{}}
			for _, c := range made {
				for _, w := range []way{byRunner, byPipe, byLoad} {
					t.Run(c.name+"/"+string(w), func(t *testing.T) {
						var r Result
						if _, err := run.loadAlone(t.Context(), w, c.image, &r); err != nil {
							t.Fatal(err)
						}
						if r.Status == Passed {
							run.stored(t.Context(), c.image, &r)
						}
						if (r.Status == Failed) != c.bad {
							t.Errorf("%s %q, want failed: %t", r.Status, r.Problems, c.bad)
						}
					})
				}
			}
		})
	}
}
