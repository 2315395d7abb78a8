//go:build acceptance

package verify

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"pretag/build/engine"
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
func controls() ([]control, error) {
	layer := tarOf("etc/control", []byte("the layer of a control\n"))
	damaged := bytes.Replace(layer, []byte("the layer"), []byte("The layer"), 1)
	config := v1.ConfigFile{
		OS: "linux", Architecture: runtime.GOARCH,
		Config: v1.Config{Entrypoint: []string{"/etc/control"}, Env: []string{"CONTROL=1"}},
		RootFS: v1.RootFS{Type: "layers", DiffIDs: []v1.Hash{{Algorithm: "sha256", Hex: fmt.Sprintf("%x", sha256.Sum256(layer))}}},
	}
	raw, err := json.Marshal(config)
	if err != nil {
		return nil, err
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
			return nil, err
		}
		content := tarOf("layer.tar", c.layer, id+".json", raw, "manifest.json", manifest)
		made = append(made, control{c.name, c.bad, expected{
			release.Archive{
				Helper: c.name, RepoTag: controlTag, ImageID: "sha256:" + id,
				DiffIDs: []string{config.RootFS.DiffIDs[0].String()}, Compression: "none",
			},
			config, inMemory(content),
		}})
	}
	return made, nil
}

// tarOf is a tar file of names, each followed by its content.
func tarOf(members ...any) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for n := 0; n < len(members); n += 2 {
		content := members[n+1].([]byte)
		w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: members[n].(string), Mode: 0o755, Size: int64(len(content))})
		w.Write(content)
	}
	w.Close() // a bytes.Buffer takes everything
	return b.Bytes()
}

// The checks can fail: in every way to load, an archive that is wrong on purpose
// is reported, and a good one is not.
func TestControls(t *testing.T) {
	made, err := controls()
	if err != nil {
		t.Fatal(err)
	}
	found, _, err := engine.Find(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(found) == 0 {
		testutil.Missing(t, "podman", "nor any other engine")
	}
	for _, e := range found {
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
			run := engineRun{Instance: instance, decoder: &decoder{}, result: &EngineResult{}}
			for _, c := range made {
				for _, w := range run.ways() {
					t.Run(c.name+"/"+w.name, func(t *testing.T) {
						loadErr, problems, err := run.loadAlone(t.Context(), w, c.image)
						if err != nil {
							t.Fatal(err)
						}
						problems = append(lines(loadErr), problems...)
						if len(problems) == 0 {
							problems = run.storedProblems(t.Context(), c.image)
						}
						if bad := len(problems) > 0; bad != c.bad {
							t.Errorf("problems %q, want some: %t", problems, c.bad)
						}
					})
				}
			}
		})
	}
}

// inMemory is an archive that is not a file.
func inMemory(content []byte) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil }
}
