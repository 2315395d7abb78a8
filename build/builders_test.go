//go:build acceptance

package build_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"pretag/build"
	"pretag/build/engine"
	"pretag/build/testutil"
)

// Images that each builder of Debian saves go through package, and podman loads
// the archives.
func TestBuilders(t *testing.T) {
	const ref = "localhost/helper:base"
	dir := t.TempDir()
	base := filepath.Join(dir, "base.tar")
	write(t, base, baseImage(t, ref))
	stores, err := os.MkdirTemp("", "") // rootless podman takes no runroot of more than 50 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if os.Getuid() != 0 { // files of subordinate users are among them
			podman := exec.Command(testutil.Tool(t, "podman"), "unshare", "rm", "-rf", stores)
			podman.Env = append(os.Environ(), "TMPDIR="+dir)
			if out, err := podman.CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, out)
			}
		}
		if err := os.RemoveAll(stores); err != nil {
			t.Error(err)
		}
	})
	run := func(t *testing.T, program string) func(args ...string) string {
		t.Helper()
		path := testutil.Tool(t, program)
		// vfs works on every file system. The stores are removed with their
		// directory, which chroot isolation leaves free of mounts.
		global := []string{"--root", filepath.Join(stores, program, "root"), "--runroot", filepath.Join(stores, program, "run"), "--storage-driver", "vfs"}
		return func(args ...string) string {
			t.Helper()
			command := exec.CommandContext(t.Context(), path, append(global, args...)...)
			command.Env = append(os.Environ(), "TMPDIR="+dir, "BUILDAH_ISOLATION=chroot")
			var warnings bytes.Buffer
			command.Stderr = &warnings
			out, err := command.Output()
			if err != nil {
				t.Fatalf("%s %q: %v: %s", program, args, err, &warnings)
			}
			return strings.TrimSpace(string(out))
		}
	}
	saved := map[string]func(t *testing.T, to string){
		"podman, docker-archive": func(t *testing.T, to string) {
			podman := run(t, "podman")
			podman("load", "-i", base)
			podman("save", "--format", "docker-archive", "-o", to, ref)
		},
		"podman, oci-archive": func(t *testing.T, to string) {
			podman := run(t, "podman")
			podman("load", "-i", base)
			podman("save", "--format", "oci-archive", "-o", to, ref)
		},
		"buildah, empty layer": func(t *testing.T, to string) {
			buildah := run(t, "buildah")
			buildah("from", "--name", "work", "docker-archive:"+base)
			buildah("commit", "work", "oci-archive:"+to+":x")
		},
		"buildah, Dockerfile": func(t *testing.T, to string) {
			buildah := run(t, "buildah")
			buildah("pull", "docker-archive:"+base)
			context := filepath.Join(dir, "context")
			write(t, filepath.Join(context, "Dockerfile"), []byte("FROM "+ref+"\nWORKDIR /etc\nCOPY Dockerfile /etc/x\nENV A=b\n"))
			buildah("build", "--layers", "--pull=never", "-t", "localhost/helper:built", context)
			buildah("push", "localhost/helper:built", "docker-archive:"+to+":localhost/helper:built")
		},
		"skopeo, oci-archive": func(t *testing.T, to string) {
			testutil.Filter(t, nil, "skopeo", "--tmpdir", dir, "copy", "--insecure-policy", "docker-archive:"+base, "oci-archive:"+to+":x")
		},
		"skopeo, docker-archive": func(t *testing.T, to string) {
			testutil.Filter(t, nil, "skopeo", "--tmpdir", dir, "copy", "--insecure-policy", "docker-archive:"+base, "docker-archive:"+to+":a/b:c")
		},
		"docker save": func(t *testing.T, to string) { dockerSave(t, ref, to) },
		"docker save, containerd store": func(t *testing.T, to string) {
			testutil.UseContainerdStore(t)
			dockerSave(t, ref, to)
		},
	}
	for name, save := range saved {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			input := filepath.Join(t.TempDir(), "alpine-x86_64.tar")
			save(t, input)
			b.input(t, "alpine-x86_64.tar", read(t, input))
			b.must(t, build.Package, "HELPERS=alpine-x86_64")
			f := b.record(t, "alpine-x86_64")
			podman := run(t, "podman")
			podman("load", "-i", f.Path)
			if got := podman("image", "inspect", "--format", "{{.Id}}", f.RepoTag); "sha256:"+got != f.ImageID {
				t.Errorf("podman has image %s, want %s", got, f.ImageID)
			}
			podman("rmi", f.RepoTag)
			t.Logf("%s: %d layers, diff IDs %.27s", f.Input.Layout, len(f.DiffIDs), f.DiffIDs)
		})
	}
}

// dockerSave saves the base image from Docker.
func dockerSave(t *testing.T, ref, to string) {
	t.Helper()
	found, absent, err := engine.Find(t.Context(), []string{string(engine.Docker)})
	if err != nil {
		testutil.Missing(t, "docker", fmt.Sprint(absent, err))
	}
	docker, err := found[0].Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := docker.Close(); err != nil {
			t.Error(err)
		}
	}()
	t.Logf("docker %s, driver %s", docker.Version, docker.Driver)
	if err := docker.Load(t.Context(), bytes.NewReader(baseImage(t, ref))); err != nil {
		t.Fatal(err)
	}
	err = docker.Export(t.Context(), ref, func(r io.Reader) error {
		f, err := os.Create(to)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.Copy(f, r)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// baseImage is a docker-archive of a small helper image.
func baseImage(t *testing.T, ref string) []byte {
	t.Helper()
	layer := testutil.Rootfs(t, "helper")
	config, err := json.Marshal(v1.ConfigFile{
		OS: "linux", Architecture: "amd64",
		Config:  v1.Config{Entrypoint: []string{"/usr/bin/dumb-init", "/entrypoint"}, Cmd: []string{"sh"}},
		History: []v1.History{{CreatedBy: "test"}}, // buildah counts layers by it
		RootFS:  v1.RootFS{Type: "layers", DiffIDs: []v1.Hash{{Algorithm: "sha256", Hex: fmt.Sprintf("%x", sha256.Sum256(layer))}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	id := fmt.Sprintf("%x.json", sha256.Sum256(config))
	return testutil.Tar(t, testutil.File("layer.tar", string(layer)), testutil.File(id, string(config)),
		testutil.File("manifest.json", fmt.Sprintf(`[{"Config":%q,"RepoTags":[%q],"Layers":["layer.tar"]}]`, id, ref)))
}
