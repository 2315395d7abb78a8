package build_test

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"pretag/build"
	"pretag/build/testutil"
)

// newShared is a bench whose OUT is that of a release pipeline: it holds the inputs,
// other products and a directory of the user's.
func newShared(t *testing.T, inputs ...string) *bench {
	t.Helper()
	b := newBench(t, inputs...)
	for _, file := range []string{
		"binaries/gitlab-runner-linux-amd64", "rpm/gitlab-runner_amd64.rpm", "deb/gitlab-runner_amd64.deb",
		"release.sha256", "helper-images/notes.txt", "sbom/other.json", "verify/mine.txt",
	} {
		path := b.path("out", file)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(file), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range inputs {
		if err := os.Rename(b.path("in", name), b.path("out", "helper-images", name)); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

// shared runs a stage with HELPER_IMAGES=OUT/helper-images.
func (b *bench) shared(t *testing.T, stage build.Stage, pairs ...string) error {
	t.Helper()
	return b.run(t, stage, append([]string{"HELPER_IMAGES=" + b.path("out", "helper-images"), "FORMATS=deb", "LOADERS=" + b.path("none")}, pairs...)...)
}

// OUT may hold other products and the inputs. Runs can be repeated, and clean leaves
// what was there before the first.
func TestSharedOut(t *testing.T) {
	t.Parallel()
	b := newShared(t, "alpine-x86_64.tar", "prebuilt-ubuntu-x86_64.tar")
	before := tree(t, b.path("out"))
	helpers := "HELPERS=alpine-x86_64,ubuntu-x86_64"
	var first map[string]string
	for _, run := range []string{"first", "second", "third, records lost"} {
		if strings.HasPrefix(run, "third") {
			for _, name := range []string{"alpine", "ubuntu"} {
				if err := os.Remove(b.path("out", "helper-images", "prebuilt-"+name+"-x86_64.docker.tar.zst.info")); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := b.shared(t, packageWithoutLoaders, helpers); err != nil {
			t.Fatalf("%s: %v", run, err)
		}
		if strings.Contains(b.err.String(), "left by") || strings.Contains(b.err.String(), "removed") {
			t.Errorf("%s: reported:\n%s", run, &b.err)
		}
		files := tree(t, b.path("out"))
		if first == nil {
			first = files
		}
		if diff := cmp.Diff(slices.Sorted(maps.Keys(first)), slices.Sorted(maps.Keys(files))); diff != "" {
			t.Errorf("%s: files (-first +got):\n%s", run, diff)
		}
	}
	if err := b.shared(t, build.Clean); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, tree(t, b.path("out"))); diff != "" {
		t.Errorf("after clean (-before +got):\n%s", diff)
	}
	if !strings.Contains(b.err.String(), "files that pretag wrote below "+b.path("out")) || strings.Count(b.err.String(), "\n") != 1 {
		t.Errorf("clean reported:\n%s", &b.err)
	}
}

// packageWithoutLoaders is Package for hosts that have the loader.
func packageWithoutLoaders(ctx context.Context, c build.Config, ui *build.UI) error {
	c.LoaderDir, c.LoaderArches = "", []string{}
	return build.Package(ctx, c, ui)
}

// A file that pretag did not write, or that was changed since, is neither replaced nor
// removed.
func TestForeignFiles(t *testing.T) {
	for _, name := range []string{
		"manifest.json", "provenance.json", "SHA256SUMS", "SHA256SUMS.asc", "signing-key.asc", ".pretag",
		"deb/gitlab-runner-helper-images_19.3.0-1_amd64.deb", "helper-images/prebuilt-alpine-x86_64.docker.tar.zst",
		"sbom/prebuilt-alpine-x86_64.spdx.json",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newShared(t, "alpine-x86_64.tar")
			path := b.path("out", name)
			if err := os.WriteFile(path, []byte(`{"foreign": true}`), 0o644); err != nil {
				t.Fatal(err)
			}
			before := tree(t, b.path("out"))
			err := b.shared(t, packageWithoutLoaders, "HELPERS=alpine-x86_64")
			if strings.HasSuffix(name, ".docker.tar.zst") {
				testutil.WantError(t, err, "2 tarballs in ")
			} else {
				testutil.WantError(t, err, path, "move it away")
			}
			if name == ".pretag" {
				return
			}
			if err := b.shared(t, build.Clean); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(before, tree(t, b.path("out"))); diff != "" {
				t.Errorf("after package and clean (-before +got):\n%s", diff)
			}
		})
	}
}

// An input that has the archive's name is not replaced by the archive.
func TestInputIsNotReplaced(t *testing.T) {
	b := newShared(t, "prebuilt-alpine-x86_64.docker.tar.zst") // a root filesystem
	before := tree(t, b.path("out"))
	testutil.WantError(t, b.shared(t, archives, "HELPERS=alpine-x86_64"), "is the input and would be replaced by the archive; move it to another directory and set HELPER_IMAGES")
	if diff := cmp.Diff(before, tree(t, b.path("out"))); diff != "" {
		t.Errorf("(-before +got):\n%s", diff)
	}
}

// Packages and bundles of two versions never lie side by side.
func TestPackageOfAnotherVersion(t *testing.T) {
	t.Parallel()
	b := newShared(t, "alpine-x86_64.tar")
	const oldDeb, oldBundle = "deb/gitlab-runner-helper-images_19.3.0-1_amd64.deb", "bundle/gitlab-runner-helper-images-19.3.0-1-deb-amd64.tar"
	for _, version := range []string{"19.3.0", "19.2.0"} {
		if err := b.shared(t, packageWithoutLoaders, "HELPERS=alpine-x86_64", "RUNNER_VERSION="+version); err != nil {
			t.Fatal(err)
		}
		if version == "19.3.0" {
			for range 2 { // package of the same version leaves bundles
				if err := b.shared(t, build.Bundle); err != nil {
					t.Fatal(err)
				}
				if err := b.shared(t, packageWithoutLoaders, "HELPERS=alpine-x86_64"); err != nil {
					t.Fatal(err)
				}
				if files := tree(t, b.path("out")); files[oldDeb] == "" || files[oldBundle] == "" {
					t.Errorf("files: %q", slices.Sorted(maps.Keys(files)))
				}
			}
		}
	}
	if !strings.Contains(b.err.String(), "removed 6 packages and bundles of another version, which a former build left: bundle/gitlab-runner") {
		t.Errorf("reported:\n%s", &b.err)
	}
	files := tree(t, b.path("out"))
	if files[oldDeb] != "" || files[oldBundle] != "" || files["deb/gitlab-runner_amd64.deb"] == "" {
		t.Errorf("files: %q", slices.Sorted(maps.Keys(files)))
	}
}

// Files of a former build with other helpers are named; foreign files are not.
func TestFormerFilesAreNamed(t *testing.T) {
	t.Parallel()
	b := newShared(t, "alpine-x86_64.tar", "alpine-arm64.tar")
	for _, helpers := range []string{"alpine-x86_64,alpine-arm64", "alpine-x86_64"} {
		if err := b.shared(t, packageWithoutLoaders, "HELPERS="+helpers); err != nil {
			t.Fatal(err)
		}
	}
	if got := b.err.String(); strings.Count(got, "former build") != 1 || !strings.Contains(got, "warning: left by a former build: "+b.path("out", "deb", "gitlab-runner-helper-images_19.3.0-1_arm64.deb")+" (5 files in all)") {
		t.Errorf("reported:\n%s", got)
	}
	err := b.run(t, build.VerifyOnDisk)
	testutil.WantError(t, err, "_arm64.deb was left by a former build and is not in manifest.json")
	if strings.Contains(err.Error(), "mine") || strings.Contains(err.Error(), "gitlab-runner_") {
		t.Errorf("verify reports foreign files: %v", err)
	}
	if err := b.shared(t, packageWithoutLoaders, "HELPERS=alpine-x86_64,alpine-arm64"); err != nil {
		t.Fatal(err)
	}
	if err := b.run(t, build.VerifyOnDisk); err != nil {
		t.Error(err)
	}
}

// An image archive with a config is taken in place of a flat tarball, which is said.
func TestConfigWins(t *testing.T) {
	t.Parallel()
	b := newBench(t, "prebuilt-alpine-x86_64.tar")
	b.input(t, "alpine-x86_64.tar", ociArchive(t, v1.ConfigFile{OS: "linux", Architecture: "amd64"}, nil))
	if err := b.run(t, archives, "HELPERS=alpine-x86_64"); err != nil {
		t.Fatal(err)
	}
	if want := b.path("in") + ": taking alpine-x86_64.tar, which has the image's config, and not prebuilt-alpine-x86_64.tar\n"; !strings.Contains(b.err.String(), want) {
		t.Errorf("reported:\n%s\nwant %q", &b.err, want)
	}
	if f := record(t, b.path("out", "helper-images", "prebuilt-alpine-x86_64.docker.tar.zst")); f.Input.Name != "alpine-x86_64.tar" {
		t.Errorf("input is %s", f.Input.Name)
	}
}

// A home directory as OUT costs the user nothing.
func TestCleanHome(t *testing.T) {
	b := newShared(t)
	before := tree(t, b.path("out"))
	for _, out := range []string{b.path("out"), b.path("missing"), b.path("in")} {
		if err := b.run(t, build.Clean, "OUT="+out); err != nil {
			t.Errorf("OUT=%s: %v", out, err)
		}
	}
	if diff := cmp.Diff(before, tree(t, b.path("out"))); diff != "" {
		t.Errorf("(-before +got):\n%s", diff)
	}
}
