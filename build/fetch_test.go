package build_test

import (
	"context"
	"errors"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/goreleaser/nfpm/v2"
	_ "github.com/goreleaser/nfpm/v2/deb"
	"github.com/goreleaser/nfpm/v2/files"
	_ "github.com/goreleaser/nfpm/v2/rpm"

	"pretag/build"
	"pretag/build/catalogue"
	"pretag/build/testutil"
)

// From a registry to pre-tagged archives: the image stays the same, and the
// record says which it was. A tarball that was changed has no source.
func TestPullThenArchives(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer server.Close()
	repository := server.Listener.Addr().String() + "/helper"
	image := ociImage(t, v1.ConfigFile{OS: "linux", Architecture: "s390x", Config: v1.Config{Cmd: []string{"sh"}}}, nil)
	tag, err := name.NewTag(repository + ":ubuntu-s390x-v19.3.0")
	if err := errors.Join(err, remote.Write(tag, image)); err != nil {
		t.Fatal(err)
	}
	digest, digestErr := image.Digest()
	id, err := image.ConfigName()
	if err := errors.Join(digestErr, err); err != nil {
		t.Fatal(err)
	}

	b := newBench(t)
	pairs := []string{"HELPERS=ubuntu-s390x", "IMAGE_REPOSITORY=" + repository}
	b.must(t, build.Pull, pairs...)
	b.must(t, archives, pairs...)
	f := b.record(t, "ubuntu-s390x")
	if f.Input.Source != tag.String()+"@"+digest.String() || f.Input.Digest != digest.String() || f.ImageID != id.String() {
		t.Errorf("got %+v, want digest %s of %s, image ID %s", f, digest, tag, id)
	}
	testutil.WantError(
		t, b.run(t, archives, "HELPERS=ubuntu-s390x", "RUNNER_VERSION=19.4.0"),
		"was pulled as ubuntu-s390x-v19.3.0, want ubuntu-s390x-v19.4.0: remove it and pull again",
	)
	b.input(t, "ubuntu-s390x.tar", testutil.Rootfs(t, "another"))
	b.must(t, archives, pairs...)
	if source := b.record(t, "ubuntu-s390x").Input.Source; source != "" {
		t.Errorf("a tarball that its record does not describe has the source %s", source)
	}
}

func unpack(file string) build.Stage {
	return func(ctx context.Context, c build.Config, ui *build.UI) error { return build.Unpack(ctx, c, file, ui) }
}

// From an old package to pre-tagged archives, with what unpack says.
func TestUnpackThenArchives(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	deb := b.path("old.deb")
	makePackage(t, "deb", deb, &nfpm.Info{Name: "gitlab-runner", Version: "15.8.0", Release: "3"}, map[string][]byte{
		"/usr/lib/gitlab-runner/helper-images/prebuilt-alpine-arm.tar": testutil.Rootfs(t, "arm"),
		"/usr/lib/gitlab-runner/helper-images/prebuilt-x-y.tar":        testutil.Rootfs(t, "unknown"),

		"/usr/bin/gitlab-runner": []byte("gitlab.com/gitlab-org/gitlab-runner/common.REVISION=12335144 "),
	})
	pairs := []string{"RUNNER_VERSION=15.8.0", "HELPERS=alpine-arm"}
	b.must(t, unpack(deb), pairs...)
	contains(
		t, b.err.String(),
		"prebuilt-x-y.tar: no helper of the catalogue",
		"    RUNNER_VERSION=15.8.0 PACKAGES_ITERATION=3 HELPERS=alpine-arm go tool mage package\n",
	)
	b.must(t, archives, pairs...)
	if f := b.record(t, "alpine-arm"); !strings.HasPrefix(f.Input.Source, "old.deb@sha256:") || f.RepoTag != catalogue.Repository+":arm-12335144" {
		t.Errorf("got %+v", f)
	}
}

// makePackage writes a package for every architecture to file.
func makePackage(t *testing.T, format, file string, info *nfpm.Info, contents map[string][]byte) {
	t.Helper()
	dir := t.TempDir()
	for destination, body := range contents {
		source := filepath.Join(dir, destination)
		write(t, source, body)
		info.Contents = append(info.Contents, &files.Content{Source: source, Destination: destination})
	}
	packager, err := nfpm.Get(format)
	if err != nil {
		t.Fatal(err)
	}
	info.Arch, info.Maintainer, info.MTime = "all", "GitLab Inc. <support@gitlab.com>", testutil.Created()
	info = nfpm.WithDefaults(info)
	if err := nfpm.PrepareForPackager(info, format); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(packager.Package(info, f), f.Close()); err != nil {
		t.Fatal(err)
	}
}

// ownImages returns the name of the package that carries the helper images of a Runner
// version, and the images in it (catalogue/testdata/packages.tsv).
func ownImages(t *testing.T, version, format string) (pkg string, images []string) {
	t.Helper()
	v := catalogue.InstalledVersion(version, "")
	for line := range strings.Lines(string(read(t, "catalogue/testdata/packages.tsv"))) {
		row := strings.Split(strings.TrimSpace(line), "\t")
		first := catalogue.InstalledVersion(strings.TrimPrefix(row[0], "v"), "")
		last := catalogue.InstalledVersion(strings.TrimPrefix(row[1], "v"), "")
		if row[2] != "gitlab-runner-fips" && row[3] == format && row[len(row)-1] != "-" && v.Compare(first) >= 0 && v.Compare(last) <= 0 {
			return row[2], strings.Fields(row[len(row)-1])
		}
	}
	t.Fatalf("packages.tsv has no %s of %s with helper images", format, version)
	return "", nil
}

// Runner's own package of any version can be rebuilt with the command that
// unpack prints, which needs no HELPERS.
func TestRebuildRunnersOwnPackage(t *testing.T) {
	for _, row := range []struct{ version, format, layout string }{
		{"15.8.0", "deb", "single"},
		{"16.3.0", "rpm", "split"},
		{"17.7.1", "deb", "split"},
		{"18.2.2", "rpm", "single"},
		{"19.3.0", "deb", "split"},
	} {
		t.Run(row.version, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			name, images := ownImages(t, row.version, row.format)
			contents := map[string][]byte{}
			var want []string
			for _, image := range images {
				helper := strings.TrimSuffix(strings.TrimPrefix(image, "prebuilt-"), ".tar.xz")
				want = append(want, helper)
				contents["/usr/lib/gitlab-runner/helper-images/"+image] = testutil.Rootfs(t, helper)
			}
			if name == "gitlab-runner" {
				revision, _ := catalogue.KnownRevision(row.version)
				contents["/usr/bin/gitlab-runner"] = []byte("gitlab.com/gitlab-org/gitlab-runner/common.REVISION=" + revision + " ")
			}
			own := b.path("own." + row.format)
			makePackage(t, row.format, own, &nfpm.Info{Name: name, Version: row.version, Release: "1"}, contents)

			b.must(t, unpack(own), "RUNNER_VERSION="+row.version)
			contains(t, b.err.String(), "    RUNNER_VERSION="+row.version+" PACKAGES_ITERATION=1 go tool mage package\n")
			b.must(t, build.Package, "RUNNER_VERSION="+row.version, "PACKAGE_LAYOUT="+row.layout)
			for line := range strings.Lines(b.err.String()) {
				// No package of Runner's carries alpine-ppc64le, and no loader is built here.
				if strings.Contains(line, "warning") && !strings.Contains(line, "ppc64le: the helper that GitLab Runner") && !strings.Contains(line, "no loader, so") && !strings.Contains(line, "no helper image exists") {
					t.Error(line)
				}
			}
			var got []string
			for _, f := range b.manifest(t).Archives {
				got = append(got, f.Helper)
			}
			slices.Sort(got)
			slices.Sort(want)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("helpers (-want +got):\n%s", diff)
			}
			b.must(t, build.VerifyOnDisk)
		})
	}
}
