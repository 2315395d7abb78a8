package verify

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"runtime"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"pretag/build/engine"
	"pretag/build/release"
)

// controlTag is the tag that every control should get. It names no helper and no real host.
const controlTag = "registry.invalid/pretag/control:expected"

// A control is an archive of which the checks must think what is written here.
type control struct {
	name  string
	bad   bool
	image expected
}

// controls makes the archives that show whether the checks can fail: a good
// one, and one for each thing that goes wrong unseen.
func controls() ([]control, []byte, error) {
	layer := tarOf("etc/control", []byte("the layer of a control\n"))
	damaged := bytes.Replace(layer, []byte("the layer"), []byte("The layer"), 1)
	config := v1.ConfigFile{
		OS: "linux", Architecture: runtime.GOARCH,
		Config: v1.Config{Entrypoint: []string{"/etc/control"}, Env: []string{"CONTROL=1"}},
		RootFS: v1.RootFS{Type: "layers", DiffIDs: []v1.Hash{{Algorithm: "sha256", Hex: fmt.Sprintf("%x", sha256.Sum256(layer))}}},
	}
	raw, err := json.Marshal(config)
	if err != nil {
		return nil, nil, err
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
			return nil, nil, err
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
	return made, layer, nil
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

// controls checks the checks: what is wrong must be reported, in every way to
// load, and what is good must not. Then it shows the engine's import.
func (run engineRun) controls(ctx context.Context) error {
	made, layer, err := controls()
	if err != nil {
		return err
	}
	for _, c := range made {
		for _, w := range run.ways() {
			if w.name == "pipe" {
				continue // the same as load for an archive that is not compressed
			}
			err := timed(&run.result.Controls, Result{Subject: c.name, Check: w.name}, func(r *Result) error {
				loadErr, problems, err := run.load(ctx, w, c.image)
				if err != nil {
					return err
				}
				problems = append(lines(loadErr), problems...)
				if len(problems) == 0 {
					problems = run.storedProblems(ctx, c.image)
				}
				switch {
				case !c.bad:
					r.judge(problems)
				case len(problems) == 0:
					r.judge([]string{"is taken for good: the checks of this run see nothing"})
				default:
					r.Status, r.Says = Passed, "reported: "+strings.Join(problems, "; ")
				}
				return nil
			})
			if err != nil {
				return fmt.Errorf("control %s: %w", c.name, err)
			}
		}
	}
	return run.importControl(ctx, layer)
}

// importControl shows what becomes of a tag that GitLab Runner asks for when it
// imports a bare root filesystem: podman below 4.5.1 drops it. It judges
// nothing, as it says what archives are for, not whether they are good.
func (run engineRun) importControl(ctx context.Context, rootfs []byte) error {
	return timed(&run.result.Controls, Result{Subject: "bare root filesystem", Check: "import", Status: Passed}, func(r *Result) error {
		if err := run.Clear(ctx); err != nil {
			return err
		}
		repository, tag := splitTag(controlTag)
		err := run.RunnerImport(ctx, bytes.NewReader(rootfs), repository, tag)
		var images []engine.Image
		if err == nil {
			images, err = run.Images(ctx)
		}
		var tags []string
		for _, im := range images {
			tags = append(tags, im.RepoTags...)
		}
		switch got := strings.Join(tags, ", "); {
		case err != nil:
			r.Status, r.Says = Skipped, err.Error()
		case got == controlTag:
			r.Says = "imported, it keeps the tag that is asked for"
		default:
			r.Says = fmt.Sprintf("imported as %s, it becomes %s: a job finds no helper image unless an archive brought it", controlTag, got)
		}
		return nil
	})
}
