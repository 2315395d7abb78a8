package build_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"pretag/build"
	"pretag/build/testutil"
)

// newShared is a bench whose OUT is that of a release pipeline: it holds the inputs,
// other products and a directory of the user's.
func newShared(t *testing.T, inputs ...string) *bench {
	t.Helper()
	b := newBench(t)
	for _, file := range []string{
		"binaries/gitlab-runner-linux-amd64", "rpm/gitlab-runner_amd64.rpm", "deb/gitlab-runner_amd64.deb",
		"release.sha256", "helper-images/notes.txt", "sbom/other.json", "verify/mine.txt",
	} {
		write(t, b.path("out", file), []byte(file))
	}
	for _, name := range inputs {
		write(t, b.path("out", "helper-images", name), testutil.Rootfs(t, name))
	}
	return b
}

// shared returns the variables for HELPER_IMAGES=OUT/helper-images.
func (b *bench) shared(pairs ...string) []string {
	return append([]string{"HELPER_IMAGES=" + b.path("out", "helper-images"), "FORMATS=deb"}, pairs...)
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
			remove(t, b.archive("alpine-x86_64")+".info", b.archive("ubuntu-x86_64")+".info")
		}
		b.must(t, build.Package, b.shared(helpers)...)
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
	b.must(t, build.Clean, b.shared()...)
	same(t, "after clean", before, tree(t, b.path("out")))
	if !strings.Contains(b.err.String(), "files that pretag wrote below "+b.path("out")) || strings.Count(b.err.String(), "\n") != 1 {
		t.Errorf("clean reported:\n%s", &b.err)
	}
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
			write(t, path, []byte(`{"foreign": true}`))
			before := tree(t, b.path("out"))
			err := b.run(t, build.Package, b.shared("HELPERS=alpine-x86_64")...)
			if strings.HasSuffix(name, ".docker.tar.zst") {
				testutil.WantError(t, err, "2 tarballs in ")
			} else {
				testutil.WantError(t, err, path, "move it away")
			}
			if name == ".pretag" {
				return
			}
			b.must(t, build.Clean, b.shared()...)
			same(t, "after package and clean", before, tree(t, b.path("out")))
		})
	}
}

// An input that has the archive's name is not replaced by the archive.
func TestInputIsNotReplaced(t *testing.T) {
	b := newShared(t, "prebuilt-alpine-x86_64.docker.tar.zst") // a root filesystem
	before := tree(t, b.path("out"))
	testutil.WantError(t, b.run(t, archives, b.shared("HELPERS=alpine-x86_64")...), "is the input and would be replaced by the archive; move it to another directory and set HELPER_IMAGES")
	same(t, "after a failure", before, tree(t, b.path("out")))
}

// Packages and bundles of two versions never lie side by side.
func TestPackageOfAnotherVersion(t *testing.T) {
	t.Parallel()
	b := newShared(t, "alpine-x86_64.tar")
	const oldDeb, oldBundle = "deb/gitlab-runner-helper-images_19.3.0-1_amd64.deb", "bundle/gitlab-runner-helper-images-19.3.0-1-deb-amd64.tar"
	for _, version := range []string{"19.3.0", "19.2.0"} {
		b.must(t, build.Package, b.shared("HELPERS=alpine-x86_64", "RUNNER_VERSION="+version)...)
		if version == "19.3.0" {
			for range 2 { // package of the same version leaves bundles
				b.must(t, build.Bundle, b.shared()...)
				b.must(t, build.Package, b.shared("HELPERS=alpine-x86_64")...)
				if files := tree(t, b.path("out")); files[oldDeb] == "" || files[oldBundle] == "" {
					t.Errorf("files: %q", slices.Sorted(maps.Keys(files)))
				}
			}
		}
	}
	contains(t, b.err.String(), "removed 6 packages and bundles of another version, which a former build left: bundle/gitlab-runner")
	files := tree(t, b.path("out"))
	if files[oldDeb] != "" || files[oldBundle] != "" || files["deb/gitlab-runner_amd64.deb"] == "" {
		t.Errorf("files: %q", slices.Sorted(maps.Keys(files)))
	}
}

// Files of a former build with other helpers are named; foreign files are not.
func TestFormerFilesAreNamed(t *testing.T) {
	t.Parallel()
	b := newShared(t, "alpine-x86_64.tar", "alpine-arm64.tar")
	settings := []string{"FORMATS=rpm,deb", "RUNNER_VERSION=19.4.0-rc1", "PACKAGES_ITERATION=1~bpo12+1"}
	for _, helpers := range []string{"alpine-x86_64,alpine-arm64", "alpine-x86_64"} {
		b.must(t, build.Package, append(b.shared("HELPERS="+helpers), settings...)...)
	}
	contains(t, b.err.String(), "warning: left by a former build: "+b.path("out", "deb", "gitlab-runner-helper-images_19.4.0~rc1-1~bpo12+1_arm64.deb")+" (6 files in all)")
	err := b.run(t, build.VerifyOnDisk)
	testutil.WantError(t, err, "_arm64.deb was left by a former build and is not in manifest.json")
	if strings.Contains(err.Error(), "mine") || strings.Contains(err.Error(), "gitlab-runner_") {
		t.Errorf("verify reports foreign files: %v", err)
	}
	b.must(t, build.Package, append(b.shared("HELPERS=alpine-x86_64,alpine-arm64"), settings...)...)
	b.must(t, build.VerifyOnDisk)
}

// clean removes nothing from a directory that pretag did not write into.
func TestCleanHome(t *testing.T) {
	b := newShared(t)
	before := tree(t, b.path("out"))
	for _, out := range []string{b.path("out"), b.path("missing"), b.path("in")} {
		if err := b.run(t, build.Clean, "OUT="+out); err != nil {
			t.Errorf("OUT=%s: %v", out, err)
		}
	}
	same(t, "after clean", before, tree(t, b.path("out")))
}
