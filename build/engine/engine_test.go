//go:build acceptance

package engine

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"pretag/build/testutil"
)

const (
	repository = "registry.gitlab.com/gitlab-org/gitlab-runner/gitlab-runner-helper"
	tag        = "x86_64-v19.3.0"
	reference  = repository + ":" + tag
)

// engines are those that this machine has; a test that gets none skips.
func engines(t *testing.T) []Engine {
	t.Helper()
	found, absent, err := Find(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range absent {
		t.Run(string(a.Kind), func(t *testing.T) {
			testutil.Missing(t, strings.TrimSuffix(strings.TrimSuffix(string(a.Kind), "-rootful"), "-rootless"), a.Why)
		})
	}
	return found
}

func tarball(t *testing.T, files ...any) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i := 0; i < len(files); i += 2 {
		content := files[i+1].([]byte)
		err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: files[i].(string), Mode: 0o755, Size: int64(len(content))})
		if err == nil {
			_, err = w.Write(content)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func marshal(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// sample is the program of rootfs, built once.
var sample = sync.OnceValues(func() (content []byte, err error) {
	dir, err := os.MkdirTemp("", "sample-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	program := filepath.Join(dir, "sh")
	build := exec.Command("go", "build", "-ldflags=-s -w", "-o", program, "pretag/build/demo/sample")
	build.Env = append(build.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, out)
	}
	return os.ReadFile(program)
})

// rootfs is a layer whose programs run.
func rootfs(t *testing.T) []byte {
	t.Helper()
	content, err := sample()
	if err != nil {
		t.Fatal(err)
	}
	return tarball(t, "bin/sh", content, "usr/bin/dumb-init", content, "entrypoint", content)
}

// dockerArchive is a docker-archive of one layer, and its image ID.
func dockerArchive(t *testing.T, layer []byte, tags ...string) (archive []byte, id string) {
	t.Helper()
	config := marshal(t, map[string]any{
		"architecture": "amd64", "os": "linux",
		"config": map[string]any{"Entrypoint": []string{"/usr/bin/dumb-init", "/entrypoint"}, "Cmd": []string{"sh"}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{fmt.Sprintf("sha256:%x", sha256.Sum256(layer))}},
	})
	hex := fmt.Sprintf("%x", sha256.Sum256(config))
	manifest := marshal(t, []any{map[string]any{"Config": hex + ".json", "RepoTags": tags, "Layers": []string{"layer.tar"}}})
	return tarball(t, "layer.tar", layer, hex+".json", config, "manifest.json", manifest), "sha256:" + hex
}

func TestInstance(t *testing.T) {
	layer := rootfs(t)
	archive, id := dockerArchive(t, layer, reference)
	for _, e := range engines(t) {
		t.Run(string(e.Kind), func(t *testing.T) {
			t.Parallel()
			instance, err := e.Start(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := instance.Close(); err != nil {
					t.Error(err)
				}
				assertNothingLeft(t, instance.dir)
			}()
			ctx := t.Context()
			loads := map[string]func() error{
				"command": func() error { _, err := instance.Load(ctx, bytes.NewReader(archive)); return err },
				"runner":  func() error { return instance.RunnerLoad(ctx, bytes.NewReader(archive), repository, tag) },
			}
			for name, load := range loads {
				if err := load(); err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				images, err := instance.Images(ctx)
				if err != nil {
					t.Fatal(err)
				}
				if len(images) != 1 || images[0].ID != id && !instance.ManifestIDs || !slices.Equal(images[0].RepoTags, []string{reference}) {
					t.Errorf("%s: images %+v, want %s tagged %s", name, images, id, reference)
				}
				image, err := instance.Inspect(ctx, reference)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff([]string{"/usr/bin/dumb-init", "/entrypoint"}, image.Config.Entrypoint); diff != "" {
					t.Error(diff)
				}
				out, err := instance.Run(ctx, reference, "sh", "-c", "echo hello")
				if err != nil || out != "hello\n" {
					t.Errorf("%s: run: %q, %v", name, out, err)
				}
				var exported bytes.Buffer
				if err := instance.Export(ctx, reference, func(r io.Reader) error { _, err := io.Copy(&exported, r); return err }); err != nil {
					t.Error(err)
				}
				if !bytes.Contains(exported.Bytes(), layer[:4096]) {
					t.Error("the export does not hold the layer")
				}
				if err := instance.Clear(ctx); err != nil {
					t.Fatal(err)
				}
			}
			if images, err := instance.Images(ctx); err != nil || len(images) != 0 {
				t.Errorf("after Clear: %v, %v", images, err)
			}

			// The bug that pretag exists for, and its absence: GitLab Runner imports a .tar.xz
			// like this (v15.8.0, executors/docker/docker.go). podman below 4.5.1 drops the
			// tag and calls the image repository:latest.
			query := url.Values{"fromSrc": {"-"}, "repo": {repository}, "tag": {tag}, "changes": {`ENTRYPOINT ["/usr/bin/dumb-init", "/entrypoint"]`}}
			if err := instance.call(ctx, http.MethodPost, "/images/create", query, bytes.NewReader(layer), discard); err != nil {
				t.Fatal(err)
			}
			want := reference
			if e.Kind != Docker && e.Before("4.5.1") {
				want = repository + ":latest"
			}
			if images, err := instance.Images(ctx); err != nil || len(images) != 1 || !slices.Equal(images[0].RepoTags, []string{want}) {
				t.Errorf("after an import: %+v, %v, want %s", images, err, want)
			}
		})
	}
}

func assertNothingLeft(t *testing.T, dir string) {
	t.Helper()
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("%s is still there: %v", dir, err)
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(mounts), dir) {
		t.Errorf("mounts below %s are left:\n%s", dir, mounts)
	}
	if left := processesOf(t, dir); len(left) > 0 {
		t.Errorf("processes are left: %q", left)
	}
	name := filepath.Base(dir)
	for _, pattern := range []string{"/sys/fs/cgroup/" + name, "/sys/fs/cgroup/*/" + name} {
		if left, _ := filepath.Glob(pattern); len(left) > 0 {
			t.Errorf("cgroups are left: %v", left)
		}
	}
}
