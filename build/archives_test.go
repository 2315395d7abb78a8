package build_test

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	helperimages "pretag/helper-images"

	"pretag/build"
	"pretag/build/archive"
	"pretag/build/catalogue"
	"pretag/build/release"
	"pretag/build/testutil"
)

func TestArchives(t *testing.T) {
	t.Parallel()
	b := newBench(t, "alpine-x86_64.tar", "prebuilt-ubuntu-arm.tar", "stray.tar.xz", "notes.txt")
	b.must(t, archives, "HELPERS=alpine-x86_64,ubuntu-arm")
	for helper, tag := range map[string]string{
		"alpine-x86_64": catalogue.Repository + ":x86_64-v19.3.0",
		"ubuntu-arm":    catalogue.Repository + ":ubuntu-arm-v19.3.0",
	} {
		f := b.record(t, helper)
		if err := archive.Check(t.Context(), f); err != nil {
			t.Error(err)
		}
		if f.RepoTag != tag || f.Helper != helper || f.Input.Layout != "rootfs" || f.Config != release.ConfigAssumed {
			t.Errorf("%s: %+v", helper, f)
		}
		contains(t, b.out.String(), helper, tag, f.Platform, f.ImageID[7:19])
	}
	if warned := b.err.String(); strings.Count(warned, "warning: ") != 1 || !strings.Contains(warned, "stray.tar.xz: no helper") {
		t.Errorf("warnings:\n%s", warned)
	}
}

func TestArchivesReportsInputs(t *testing.T) {
	b := newBench(t, "alpine-arm.tar", "prebuilt-alpine-arm.tar.gz", "ubuntu-arm.tar", "prebuilt-ubuntu-arm.tar")
	testutil.WantError(
		t, b.run(t, archives, "HELPERS=*-arm"),
		"alpine-arm: 2 tarballs in "+b.path("in")+", want one: alpine-arm.tar, prebuilt-alpine-arm.tar.gz",
		"ubuntu-arm: 2 tarballs in "+b.path("in")+", want one: ubuntu-arm.tar, prebuilt-ubuntu-arm.tar",
	)
	testutil.WantError(
		t, b.run(t, archives, "HELPERS=*-s390x,concrete-arm64"),
		b.path("in")+": no tarball for 7 of 7 helpers:", "\n  alpine-s390x (alpine-s390x.tar or prebuilt-alpine-s390x.tar.xz)", "\n  concrete-arm64 (",
	)
	b.leavesNothing(t)
}

// All failures are reported once, and a failure leaves nothing behind.
func TestArchivesReportsAll(t *testing.T) {
	t.Parallel()
	b := newBench(t, "alpine-x86_64.tar", "alpine-arm64.tar")
	whole := testutil.Rootfs(t, "x")
	b.input(t, "alpine-arm.tar", whole[:len(whole)-1024])
	b.input(t, "alpine-s390x.tar", []byte("<html>"))
	err := b.run(t, archives, "HELPERS=alpine-x86_64,alpine-arm,alpine-arm64,alpine-s390x")
	testutil.WantError(
		t, err,
		"alpine-arm: "+b.path("in", "alpine-arm.tar")+": entry 7: no end marker (truncated tar)",
		"alpine-s390x: "+b.path("in", "alpine-s390x.tar")+": not a tar file; it looks like an HTML page",
	)
	if strings.Count(err.Error(), "\n") != 1 {
		t.Errorf("got\n%v\nwant two lines", err)
	}
	if files := tree(t, b.path("out")); len(files) != 4 {
		t.Errorf("got %d files, want two archives with their records", len(files))
	}
}

// A stand-in's tarball is used if the helper has none.
func TestStandIn(t *testing.T) {
	t.Parallel()
	b := newBench(t, "alpine-latest-arm64.tar")
	b.must(t, archives, "HELPERS=alpine-arm64,alpine-latest-arm64")
	own, latest := b.record(t, "alpine-arm64"), b.record(t, "alpine-latest-arm64")
	if own.Input.Name != "alpine-latest-arm64.tar" || own.RepoTag != catalogue.Repository+":arm64-v19.3.0" || !cmp.Equal(own.DiffIDs, latest.DiffIDs) {
		t.Errorf("got %+v and %+v", own, latest)
	}
	// It is read and compressed once, which does not change a byte.
	alone := newBench(t, "alpine-latest-arm64.tar")
	for _, helper := range []string{"alpine-arm64", "alpine-latest-arm64"} {
		alone.must(t, archives, "HELPERS="+helper)
	}
	same(t, "made together", tree(t, alone.path("out")), tree(t, b.path("out")))
	if err := errors.Join(archive.Check(t.Context(), own), archive.Check(t.Context(), latest)); err != nil {
		t.Error(err)
	}
}

// An image archive with a config is used instead of a flat tarball, and this is reported.
func TestConfigWins(t *testing.T) {
	t.Parallel()
	b := newBench(t, "prebuilt-alpine-x86_64.tar")
	b.input(t, "alpine-x86_64.tar", ociArchive(t, v1.ConfigFile{OS: "linux", Architecture: "amd64"}, nil))
	b.must(t, archives, "HELPERS=alpine-x86_64")
	contains(t, b.err.String(), b.path("in")+": taking alpine-x86_64.tar, which has the image's config, and not prebuilt-alpine-x86_64.tar\n")
	if f := b.record(t, "alpine-x86_64"); f.Input.Name != "alpine-x86_64.tar" {
		t.Errorf("input is %s", f.Input.Name)
	}
}

// An archive that a build would write again is kept.
func TestArchivesKeeps(t *testing.T) {
	t.Parallel()
	b := newBench(t, "alpine-x86_64.tar")
	path, own := b.archive("alpine-x86_64"), b.path("own.yaml")
	write(t, own, bytes.Replace(helperimages.Catalogue, []byte("cmd: [sh]"), []byte("cmd: [bash]"), 1))
	made := func(pairs ...string) bool {
		t.Helper()
		b.must(t, archives, append([]string{"HELPERS=alpine-x86_64"}, pairs...)...)
		return !strings.Contains(b.err.String(), "kept")
	}
	nothing := func() {}
	for _, row := range []struct {
		what   string
		change func()
		pair   string
	}{
		{"nothing is there", nothing, ""},
		{"another version", nothing, "RUNNER_VERSION=19.4.0"},
		{"another version with the same tag", nothing, "RUNNER_VERSION=19.3.0-rc1"},
		{"another catalogue", nothing, "CATALOGUE=" + own},
		{"another compression", nothing, "ARCHIVE_COMPRESSION=none"},
		{"another time", nothing, "SOURCE_DATE_EPOCH=1"},
		{"another repository", nothing, "IMAGE_REPOSITORY=example.com/a"},
		{"the first settings", nothing, ""},
		{"another input", func() { b.input(t, "alpine-x86_64.tar", testutil.Rootfs(t, "other")) }, ""},
		{"a damaged archive", func() {
			body := read(t, path)
			body[len(body)/2] ^= 1
			write(t, path, body)
		}, ""},
		{"a damaged record", func() { write(t, path+release.InfoSuffix, []byte("torn")) }, ""},
	} {
		if row.change(); !made(row.pair) || made(row.pair) {
			t.Errorf("%s: want it made anew, then kept", row.what)
		}
	}
}

// An archive that has neither its tarball nor its record is reported as that.
func TestArchiveWithoutRecord(t *testing.T) {
	b := newBench(t, "alpine-x86_64.tar")
	b.must(t, archives, "HELPERS=alpine-x86_64")
	path := b.archive("alpine-x86_64")
	remove(t, b.path("in", "alpine-x86_64.tar"), path+".info")
	want := "alpine-x86_64 (alpine-x86_64.tar or prebuilt-alpine-x86_64.tar.xz): its archive " + path +
		" exists, but not the record prebuilt-alpine-x86_64.docker.tar.zst.info; copy the record next to it"
	for _, inputs := range []string{b.path("in"), b.path("out", "helper-images")} {
		testutil.WantError(t, b.run(t, archives, "HELPERS=alpine-x86_64", "HELPER_IMAGES="+inputs), want)
	}
}

// A run removes the unfinished files of a killed one.
func TestArchivesCleansUp(t *testing.T) {
	t.Parallel()
	b := newBench(t, "alpine-x86_64.tar")
	left := []string{
		b.path("elsewhere", "helper-images", ".prebuilt-alpine-x86_64.docker.tar.zst.123.pretag-tmp"),
		b.path("elsewhere", ".stage.123.pretag-tmp", "rpm", "a.rpm"),
	}
	others := []string{
		b.path("elsewhere", "demo", "helper-images", ".a.docker.tar.zst.123.pretag-tmp"), // of another OUT
		b.path("elsewhere", "rpm", ".stage.123.pretag-tmp"),                              // OUT may be out/rpm for another run
		b.path("elsewhere", ".notes.pretag-tmp"), b.path("elsewhere", "x.1.pretag-tmp"),  // the user's
	}
	for _, file := range append(left, others...) {
		write(t, file, []byte("half"))
	}
	if err := os.Symlink("elsewhere", b.path("out")); err != nil {
		t.Fatal(err)
	}
	b.must(t, archives, "HELPERS=alpine-x86_64")
	for _, file := range left {
		if _, err := os.Stat(file); !os.IsNotExist(err) {
			t.Errorf("%s still exists (%v)", file, err)
		}
	}
	for _, file := range others {
		read(t, file)
	}
	b.must(t, build.Clean)
	if files := tree(t, b.path("elsewhere")); len(files) != len(others)-1 { // clean removes the demo's, too
		t.Errorf("left by clean: %v", files)
	}
}

// A tarball that cannot be read is not missing: the archive of an earlier run must not
// replace it.
func TestArchivesRefusesWhatIsNoFile(t *testing.T) {
	b := newBench(t, "alpine-arm.tar", "alpine-x86_64.tar")
	b.must(t, archives, "HELPERS=alpine-arm,alpine-x86_64")
	link, dir := b.path("in", "alpine-arm.tar"), b.path("in", "alpine-x86_64.tar")
	remove(t, link, dir)
	if err := errors.Join(os.Symlink("gone", link), os.Mkdir(dir, 0o755)); err != nil {
		t.Fatal(err)
	}
	testutil.WantError(
		t, b.run(t, archives, "HELPERS=alpine-arm,alpine-x86_64"),
		"alpine-x86_64: "+dir+": is a directory, want a regular file\nalpine-arm: broken symbolic link: stat "+link+": no such file or directory",
	)
}

// With a custom catalogue a missing program is a warning, also if the archive is kept.
// Control characters in file names are escaped.
func TestWarnings(t *testing.T) {
	t.Parallel()
	b := newBench(t, "alpine-x86_64.tar", "stray\x1b[31m.tar")
	b.input(t, "alpine-arm.tar", testutil.Tar(t, testutil.File("etc/os-release", "ID=x\n")))
	write(t, b.path("custom.yaml"), helperimages.Catalogue)
	for _, when := range []string{"made", "kept"} {
		b.must(t, archives, "HELPERS=alpine-x86_64,alpine-arm", "CATALOGUE="+b.path("custom.yaml"))
		contains(t, b.err.String(), `stray\x1b[31m.tar: no helper`, "warning: alpine-arm: has no /usr/bin/gitlab-runner-helper, which GitLab Runner calls; "+
			"has no /usr/bin/dumb-init, which its entrypoint starts; has no /entrypoint, which its entrypoint starts\n")
		if got := b.err.String(); strings.Contains(got, "\x1b") || strings.Contains(got, "alpine-x86_64: has no") {
			t.Errorf("%s: printed:\n%q", when, got)
		}
	}
}
