//go:build acceptance

package engine

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
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

// dockerArchive returns a docker-archive of one layer, and its image ID.
func dockerArchive(t *testing.T, layer []byte) (archive []byte, id string) {
	t.Helper()
	config := fmt.Sprintf(`{"architecture": %q, "os": "linux", "config": {"Entrypoint": ["/usr/bin/dumb-init", "/entrypoint"], "Cmd": ["sh"]},
		"rootfs": {"type": "layers", "diff_ids": ["sha256:%x"]}}`, runtime.GOARCH, sha256.Sum256(layer))
	hex := fmt.Sprintf("%x", sha256.Sum256([]byte(config)))
	manifest := fmt.Sprintf(`[{"Config": "%s.json", "RepoTags": [%q], "Layers": ["layer.tar"]}]`, hex, reference)
	return testutil.Tar(t, testutil.File("layer.tar", string(layer)), testutil.File(hex+".json", config), testutil.File("manifest.json", manifest)), "sha256:" + hex
}

func TestInstance(t *testing.T) {
	layer := testutil.Tar(t, testutil.Programs(t)...)
	archive, id := dockerArchive(t, layer)
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
				"command": func() error { return instance.Load(ctx, bytes.NewReader(archive)) },
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
	testutil.NothingLeft(t, dir)
	name := filepath.Base(dir)
	for _, pattern := range []string{"/sys/fs/cgroup/" + name, "/sys/fs/cgroup/*/" + name} {
		if left, _ := filepath.Glob(pattern); len(left) > 0 {
			t.Errorf("cgroups are left: %v", left)
		}
	}
}
