package build

import (
	"bytes"
	"context"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	memory "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"pretag/build/testutil"
	"pretag/build/unpack"
)

func fetchConfig(t *testing.T, variables map[string]string) Config {
	t.Helper()
	folder := t.TempDir()
	variables["HELPER_IMAGES"], variables["OUT"] = filepath.Join(folder, "in"), filepath.Join(folder, "out")
	variables["SOURCE_DATE_EPOCH"] = "1700000000"
	c, err := FromEnv(func(variable string) string { return variables[variable] }, Release)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// From an old package to pre-tagged archives, with what unpack says.
func TestUnpackThenArchives(t *testing.T) {
	program := testutil.Tool(t, "dpkg-deb")
	folder := t.TempDir()
	for name, data := range map[string][]byte{
		"DEBIAN/control": []byte("Package: gitlab-runner\nVersion: 15.8.0-3\nArchitecture: all\nMaintainer: x <x@example.com>\nDescription: x\n"),
		"usr/lib/gitlab-runner/helper-images/prebuilt-alpine-arm.tar": testutil.Rootfs(t, "arm"),
		"usr/lib/gitlab-runner/helper-images/prebuilt-x-y.tar":        testutil.Rootfs(t, "unknown"),

		"usr/bin/gitlab-runner": []byte("gitlab.com/gitlab-org/gitlab-runner/common.REVISION=12335144 "),
	} {
		file := filepath.Join(folder, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	deb := filepath.Join(t.TempDir(), "old.deb")
	if output, err := exec.Command(program, "--root-owner-group", "-b", folder, deb).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, output)
	}

	c := fetchConfig(t, map[string]string{"RUNNER_VERSION": "15.8.0", "RUNNER_REVISION": "12335144", "HELPERS": "alpine-arm"})
	var out, course bytes.Buffer
	if err := Unpack(t.Context(), c, deb, &UI{Out: &out, Err: &course}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"prebuilt-x-y.tar: no helper of the catalogue",
		"    RUNNER_VERSION=15.8.0 PACKAGES_ITERATION=3 HELPERS=alpine-arm go tool mage package\n",
	} {
		if !strings.Contains(course.String(), want) {
			t.Errorf("got %s\nwant %q in it", course.String(), want)
		}
	}
	files, err := Archives(t.Context(), c, &UI{Out: io.Discard, Err: io.Discard})
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != 1 || !strings.HasPrefix(files[0].Input.Source, "old.deb@sha256:") || files[0].RepoTag != DefaultRepository+":arm-12335144" {
		t.Errorf("got %+v", files)
	}
}

// What unpack offers for copying is a command, whatever the package calls itself.
func TestSettings(t *testing.T) {
	c := fetchConfig(t, map[string]string{"RUNNER_VERSION": "19.3.0"})
	var tarballs []unpack.Tarball
	for _, h := range c.Catalogue.Default(c.Version) {
		tarballs = append(tarballs, unpack.Tarball{Helper: h})
	}
	for _, row := range []struct {
		found unpack.Package
		want  string
	}{
		{unpack.Package{Version: "19.3.0", Release: "2"}, "RUNNER_VERSION=19.3.0 PACKAGES_ITERATION=2"},
		{unpack.Package{Version: "19.4.0~beta.7.g0123abc", Release: "1; x"}, "RUNNER_VERSION=19.4.0~beta.7.g0123abc"},
		{unpack.Package{Version: "0.0.0~latest"}, "RUNNER_VERSION=latest"},
		{unpack.Package{Version: "16.7.0", Revision: "12335144"}, "RUNNER_VERSION=16.7.0 RUNNER_REVISION=12335144"},
		{unpack.Package{Version: "16.7.0", Revision: "102c81ba"}, "RUNNER_VERSION=16.7.0"},
		{unpack.Package{Version: "16.7.0"}, "RUNNER_VERSION=16.7.0"},
		{unpack.Package{Version: "16.7.9", Revision: "12335144"}, "RUNNER_VERSION=16.7.9 RUNNER_REVISION=12335144"},
		{unpack.Package{Version: "16.7.9"}, "RUNNER_VERSION=16.7.9 RUNNER_REVISION=<first 8 digits of the commit>"},
		{unpack.Package{Version: "1;rm -rf ~", Revision: "12335144"}, "RUNNER_VERSION=<version of GitLab Runner>"},
		{unpack.Package{Version: "15.7.0"}, "RUNNER_VERSION=<version of GitLab Runner>"},
	} {
		row.found.Tarballs = tarballs
		got := c.settings(row.found)
		if got, _, _ := strings.Cut(got, " HELPERS="); got != row.want {
			t.Errorf("%+q: %s, want %s", row.found.Version, got, row.want)
		}
	}
}

// From a registry to pre-tagged archives: the image stays the same, and the
// record says which it was. A tarball that was changed has no source.
func TestPullThenArchives(t *testing.T) {
	server := httptest.NewServer(memory.New(memory.Logger(log.New(io.Discard, "", 0))))
	defer server.Close()
	repository := server.Listener.Addr().String() + "/helper"
	rootfs := testutil.Rootfs(t, "pulled")
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(rootfs)), nil })
	if err != nil {
		t.Fatal(err)
	}
	image, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		t.Fatal(err)
	}
	config, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Config = "linux", "s390x", v1.Config{Cmd: []string{"sh"}}
	if image, err = mutate.ConfigFile(image, config); err != nil {
		t.Fatal(err)
	}
	tag, err := name.NewTag(repository + ":ubuntu-s390x-v19.3.0")
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(tag, image); err != nil {
		t.Fatal(err)
	}
	digest, err := image.Digest()
	if err != nil {
		t.Fatal(err)
	}
	id, err := image.ConfigName()
	if err != nil {
		t.Fatal(err)
	}

	c := fetchConfig(t, map[string]string{"RUNNER_VERSION": "19.3.0", "HELPERS": "ubuntu-s390x", "IMAGE_REPOSITORY": repository})
	quiet := &UI{Out: io.Discard, Err: io.Discard}
	if err := Pull(t.Context(), c, quiet); err != nil {
		t.Fatal(err)
	}
	archives := func(ctx context.Context) (source, digest, id string) {
		t.Helper()
		files, err := Archives(ctx, c, quiet)
		if err != nil {
			t.Fatal(err)
		}
		return files[0].Input.Source, files[0].Input.Digest, files[0].ImageID
	}
	gotSource, gotDigest, gotID := archives(t.Context())
	if gotSource != tag.String()+"@"+digest.String() || gotDigest != digest.String() || gotID != id.String() {
		t.Errorf("got %s, %s, %s, want digest %s of %s, image ID %s", gotSource, gotDigest, gotID, digest, tag, id)
	}

	later := fetchConfig(t, map[string]string{"RUNNER_VERSION": "19.4.0", "HELPERS": "ubuntu-s390x"})
	later.Inputs = c.Inputs
	_, err = Archives(t.Context(), later, quiet)
	if want := "was pulled as ubuntu-s390x-v19.3.0, want ubuntu-s390x-v19.4.0: remove it and pull again"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("for a later version: error %v, want one that holds %q", err, want)
	}

	if err := os.WriteFile(filepath.Join(c.Inputs, "ubuntu-s390x.tar"), rootfs, 0o644); err != nil {
		t.Fatal(err)
	}
	if gotSource, _, _ := archives(t.Context()); gotSource != "" {
		t.Errorf("another tarball than the side file's has the source %s", gotSource)
	}
}
