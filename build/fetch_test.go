package build

import (
	"bytes"
	"context"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	memory "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/goreleaser/nfpm/v2"
	"github.com/goreleaser/nfpm/v2/files"

	"pretag/build/catalogue"
	"pretag/build/testutil"
)

// PLAIN_HTTP is a list of hosts, not of URLs.
func TestPlainHTTPVariable(t *testing.T) {
	c := fetchConfig(t, map[string]string{"RUNNER_VERSION": "19.3.0", "PLAIN_HTTP": "10.0.0.1:5000, registry.example.com"})
	if want := []string{"10.0.0.1:5000", "registry.example.com"}; !slices.Equal(c.PlainHTTP, want) {
		t.Errorf("got %q, want %q", c.PlainHTTP, want)
	}
	_, err := FromEnv(t.Context(), []string{"PLAIN_HTTP=http://registry.example.com"}, NeedNothing)
	testutil.WantError(t, err, `PLAIN_HTTP="http://registry.example.com": want a registry's host, with its port if it has one`)
}

func fetchConfig(t *testing.T, variables map[string]string) Config {
	t.Helper()
	dir := t.TempDir()
	variables["HELPER_IMAGES"], variables["OUT"] = filepath.Join(dir, "in"), filepath.Join(dir, "out")
	variables["SOURCE_DATE_EPOCH"] = "1700000000"
	var environ []string
	for name, value := range variables {
		environ = append(environ, name+"="+value)
	}
	c, err := FromEnv(t.Context(), environ, NeedVersion)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// From an old package to pre-tagged archives, with what unpack says.
func TestUnpackThenArchives(t *testing.T) {
	t.Parallel()
	dir, deb := t.TempDir(), filepath.Join(t.TempDir(), "old.deb")
	var contents files.Contents
	for destination, data := range map[string][]byte{
		"/usr/lib/gitlab-runner/helper-images/prebuilt-alpine-arm.tar": testutil.Rootfs(t, "arm"),
		"/usr/lib/gitlab-runner/helper-images/prebuilt-x-y.tar":        testutil.Rootfs(t, "unknown"),

		"/usr/bin/gitlab-runner": []byte("gitlab.com/gitlab-org/gitlab-runner/common.REVISION=12335144 "),
	} {
		source := filepath.Join(dir, filepath.Base(destination))
		if err := os.WriteFile(source, data, 0o644); err != nil {
			t.Fatal(err)
		}
		contents = append(contents, &files.Content{Source: source, Destination: destination})
	}
	makePackage(t, "deb", deb, &nfpm.Info{Name: "gitlab-runner", Version: "15.8.0", Release: "3", Overridables: nfpm.Overridables{Contents: contents}})

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
	if len(files) != 1 || !strings.HasPrefix(files[0].Input.Source, "old.deb@sha256:") || files[0].RepoTag != catalogue.Repository+":arm-12335144" {
		t.Errorf("got %+v", files)
	}
}

// From a registry to pre-tagged archives: the image stays the same, and the
// record says which it was. A tarball that was changed has no source.
func TestPullThenArchives(t *testing.T) {
	t.Parallel()
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
	testutil.WantError(t, err, "was pulled as ubuntu-s390x-v19.3.0, want ubuntu-s390x-v19.4.0: remove it and pull again")

	if err := os.WriteFile(filepath.Join(c.Inputs, "ubuntu-s390x.tar"), rootfs, 0o644); err != nil {
		t.Fatal(err)
	}
	if gotSource, _, _ := archives(t.Context()); gotSource != "" {
		t.Errorf("another tarball than the side file's has the source %s", gotSource)
	}
}
