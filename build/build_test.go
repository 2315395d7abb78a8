package build_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	helperimages "pretag/helper-images"

	"pretag/build"
	"pretag/build/archive"
	"pretag/build/catalogue"
	"pretag/build/inspect"
	"pretag/build/internal/ociarchive"
	"pretag/build/internal/text"
	"pretag/build/release"
	"pretag/build/testutil"
	"pretag/build/testutil/archivetest"
)

// A bench is directories to build in, and what was printed.
type bench struct {
	dir      string
	out, err bytes.Buffer
}

// newBench returns a bench with a root filesystem in each named input file.
func newBench(t *testing.T, inputs ...string) *bench {
	t.Helper()
	b := &bench{dir: t.TempDir()}
	if err := os.MkdirAll(filepath.Join(b.dir, "in"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range inputs {
		b.input(t, name, testutil.Rootfs(t, name))
	}
	return b
}

func (b *bench) input(t *testing.T, name string, body []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(b.dir, "in", name), body, 0o644); err != nil {
		t.Fatal(err)
	}
}

func (b *bench) path(elem ...string) string {
	return filepath.Join(append([]string{b.dir}, elem...)...)
}

// run runs a stage with the variables, and returns its error.
func (b *bench) run(t *testing.T, stage func(context.Context, build.Config, *build.UI) error, pairs ...string) error {
	t.Helper()
	b.out.Reset()
	b.err.Reset()
	vars := append([]string{
		"RUNNER_VERSION=19.3.0", "SOURCE_DATE_EPOCH=1700000000", "ARCHIVE_COMPRESSION=zstd:fastest",
		"HELPER_IMAGES=" + b.path("in"), "OUT=" + b.path("out"),
	}, pairs...)
	c, err := build.FromEnv(t.Context(), vars, build.NeedVersion)
	if err != nil {
		return err
	}
	c.LoaderArches = []string{} // none: building them takes long
	return stage(context.Background(), c, &build.UI{Out: &b.out, Err: &b.err})
}

// leavesNothing reports an OUT that exists.
func (b *bench) leavesNothing(t *testing.T) {
	t.Helper()
	if left, err := os.ReadDir(b.path("out")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("left behind: %v (%v)", left, err)
	}
}

func archives(ctx context.Context, c build.Config, ui *build.UI) error {
	_, err := build.Archives(ctx, c, ui)
	return err
}

// tree returns the content of every file below a directory.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		body, err := os.ReadFile(path)
		rel, relErr := filepath.Rel(dir, path)
		if relErr != nil {
			return relErr
		}
		files[rel] = string(body)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestArchives(t *testing.T) {
	t.Parallel()
	b := newBench(t, "alpine-x86_64.tar", "prebuilt-ubuntu-arm.tar", "stray.tar.xz", "notes.txt")
	if err := b.run(t, archives, "HELPERS=alpine-x86_64,ubuntu-arm"); err != nil {
		t.Fatal(err)
	}
	for name, tag := range map[string]string{
		"prebuilt-alpine-x86_64.docker.tar.zst": catalogue.Repository + ":x86_64-v19.3.0",
		"prebuilt-ubuntu-arm.docker.tar.zst":    catalogue.Repository + ":ubuntu-arm-v19.3.0",
	} {
		f := record(t, b.path("out", "helper-images", name))
		if err := archive.Check(t.Context(), f); err != nil {
			t.Error(err)
		}
		if f.RepoTag != tag || f.Name != name || f.Input.Layout != "rootfs" || f.Config != release.ConfigAssumed {
			t.Errorf("%s: %+v", name, f)
		}
		for _, want := range []string{f.Helper, tag, f.Platform, f.ImageID[7:19]} {
			if !strings.Contains(b.out.String(), want) {
				t.Errorf("the table lacks %s:\n%s", want, &b.out)
			}
		}
	}
	if warned := b.err.String(); strings.Count(warned, "warning: ") != 1 || !strings.Contains(warned, "stray.tar.xz: no helper") {
		t.Errorf("warnings:\n%s", warned)
	}
}

func record(t *testing.T, path string) release.Archive {
	t.Helper()
	info, err := os.Open(path + release.InfoSuffix)
	if err != nil {
		t.Fatal(err)
	}
	defer info.Close()
	f, err := release.ParseInfo(info)
	if err != nil {
		t.Fatal(err)
	}
	f.Path = path
	return f
}

func TestArchivesReportsInputs(t *testing.T) {
	b := newBench(t, "alpine-arm.tar", "prebuilt-alpine-arm.tar.gz", "ubuntu-arm.tar", "prebuilt-ubuntu-arm.tar")
	err := b.run(t, archives, "HELPERS=*-arm")
	for _, want := range []string{
		"alpine-arm: 2 tarballs in " + b.path("in") + ", want one: alpine-arm.tar, prebuilt-alpine-arm.tar.gz",
		"ubuntu-arm: 2 tarballs in " + b.path("in") + ", want one: ubuntu-arm.tar, prebuilt-ubuntu-arm.tar",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one that holds %q", err, want)
		}
	}
	err = b.run(t, archives, "HELPERS=*-s390x,concrete-arm64")
	for _, want := range []string{
		b.path("in") + ": no tarball for 7 of 7 helpers:", "\n  alpine-s390x (alpine-s390x.tar or prebuilt-alpine-s390x.tar.xz)", "\n  concrete-arm64 (",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one that holds %q", err, want)
		}
	}
	b.leavesNothing(t)
}

// All failures are reported, and a failure leaves nothing behind.
func TestArchivesReportsAll(t *testing.T) {
	t.Parallel()
	b := newBench(t, "alpine-x86_64.tar", "alpine-arm64.tar")
	whole := testutil.Rootfs(t, "x")
	b.input(t, "alpine-arm.tar", whole[:len(whole)-1024])
	b.input(t, "alpine-s390x.tar", []byte("<html>"))
	err := b.run(t, archives, "HELPERS=alpine-x86_64,alpine-arm,alpine-arm64,alpine-s390x")
	for _, want := range []string{
		"alpine-arm: " + b.path("in", "alpine-arm.tar") + ": entry 7: no end marker (truncated tar)",
		"alpine-s390x: " + b.path("in", "alpine-s390x.tar") + ": not a tar file; it looks like an HTML page",
	} {
		if err == nil || strings.Count(err.Error(), want) != 1 {
			t.Errorf("error %v, want one that holds %q once", err, want)
		}
	}
	var names []string
	for name := range tree(t, b.path("out")) {
		names = append(names, name)
	}
	if len(names) != 4 {
		t.Errorf("%v, want two archives with their records", names)
	}
}

// A stand-in's tarball is used if the helper has none.
func TestStandIn(t *testing.T) {
	t.Parallel()
	b := newBench(t, "alpine-latest-arm64.tar")
	if err := b.run(t, archives, "HELPERS=alpine-arm64,alpine-latest-arm64"); err != nil {
		t.Fatal(err)
	}
	own := record(t, b.path("out", "helper-images", "prebuilt-alpine-arm64.docker.tar.zst"))
	latest := record(t, b.path("out", "helper-images", "prebuilt-alpine-latest-arm64.docker.tar.zst"))
	if own.Input.Name != "alpine-latest-arm64.tar" || own.RepoTag != catalogue.Repository+":arm64-v19.3.0" {
		t.Errorf("%+v", own)
	}
	if diff := cmp.Diff(latest.DiffIDs, own.DiffIDs); diff != "" {
		t.Error(diff)
	}
	// It is read and compressed once, which does not change a byte.
	alone := newBench(t, "alpine-latest-arm64.tar")
	for _, helper := range []string{"alpine-arm64", "alpine-latest-arm64"} {
		if err := alone.run(t, archives, "HELPERS="+helper); err != nil {
			t.Fatal(err)
		}
	}
	if !cmp.Equal(tree(t, alone.path("out")), tree(t, b.path("out"))) {
		t.Error("made together they differ from made one by one")
	}
	for _, f := range []release.Archive{own, latest} {
		if err := archive.Check(t.Context(), f); err != nil {
			t.Error(err)
		}
	}
}

// An archive that a build would write again is kept.
func TestArchivesKeeps(t *testing.T) {
	t.Parallel()
	b := newBench(t, "alpine-x86_64.tar")
	const helpers = "HELPERS=alpine-x86_64"
	made := func(pairs ...string) bool {
		t.Helper()
		if err := b.run(t, archives, append([]string{helpers}, pairs...)...); err != nil {
			t.Fatal(err)
		}
		return !strings.Contains(b.err.String(), "kept")
	}
	if !made() || made() {
		t.Error("want it made, then kept")
	}
	table, err := os.ReadFile("../helper-images/catalogue.yaml")
	if err != nil {
		t.Fatal(err)
	}
	table = bytes.Replace(table, []byte("cmd: [sh]"), []byte("cmd: [bash]"), 1)
	if err := os.WriteFile(b.path("own.yaml"), table, 0o644); err != nil {
		t.Fatal(err)
	}
	// 19.3.0-rc1 has the tag of 19.3.0.
	for _, pair := range []string{"RUNNER_VERSION=19.3.0-rc1", "CATALOGUE=" + b.path("own.yaml"), "RUNNER_VERSION=19.4.0", "ARCHIVE_COMPRESSION=none", "SOURCE_DATE_EPOCH=1", "IMAGE_REPOSITORY=example.com/a"} {
		if !made(pair) || made(pair) {
			t.Errorf("%s: want it made anew, then kept", pair)
		}
	}
	made()
	b.input(t, "alpine-x86_64.tar", testutil.Rootfs(t, "other"))
	if !made() || made() {
		t.Error("another input: want it made anew, then kept")
	}
	path := b.path("out", "helper-images", "prebuilt-alpine-x86_64.docker.tar.zst")
	body, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	body[len(body)/2] ^= 1
	if err := os.WriteFile(path, body, 0o644); err != nil {
		t.Fatal(err)
	}
	if !made() || made() {
		t.Error("a damaged archive: want it made anew, then kept")
	}
	if err := os.WriteFile(path+release.InfoSuffix, []byte("torn"), 0o644); err != nil {
		t.Fatal(err)
	}
	if !made() {
		t.Error("a damaged record: want it made anew")
	}
}

// A tarball for another platform is rejected if its layout names the platform.
func TestArchivesComparesPlatform(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	body, err := os.ReadFile(archivetest.Archives(t, t.TempDir(), "ubuntu-x86_64")[0].Path)
	if err != nil {
		t.Fatal(err)
	}
	b.input(t, "prebuilt-ubuntu-arm.docker.tar.zst", body)
	err = b.run(t, archives, "HELPERS=ubuntu-arm")
	if want := "image is for linux/amd64, want linux/arm/v7"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("error %v, want one that holds %q", err, want)
	}
}

// A dry run lists what package makes then, and writes nothing.
func TestDryRun(t *testing.T) {
	t.Parallel()
	b := newBench(t, "alpine-x86_64.tar", "prebuilt-alpine-x86_64-pwsh.tar")
	pairs := []string{"DRY_RUN=1", "RUNNER_VERSION=19.3.0", "SOURCE_DATE_EPOCH=1700000000", "ARCHIVE_COMPRESSION=zstd:fastest", "HELPER_IMAGES=" + b.path("in"), "OUT=" + b.path("out"), "HELPERS=alpine-x86_64,alpine-x86_64-pwsh"}
	dryRun := func() error {
		t.Helper()
		b.out.Reset()
		c, err := build.FromEnv(t.Context(), pairs, build.NeedVersionOrDryRun)
		if err != nil {
			t.Fatal(err)
		}
		c.LoaderArches = []string{}
		return build.Package(t.Context(), c, &build.UI{Out: &b.out, Err: &b.err})
	}
	if err := dryRun(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(b.path("out")); !os.IsNotExist(err) {
		t.Errorf("OUT was made: %v", err)
	}
	listed := strings.Split(strings.TrimSpace(b.out.String()), "\n")[1:]
	if err := b.run(t, build.Package, pairs[len(pairs)-1]); err != nil {
		t.Fatal(err)
	}
	m, err := release.ReadManifest(b.path("out"))
	if err != nil {
		t.Fatal(err)
	}
	before := tree(t, b.dir)
	if err := dryRun(); err != nil {
		t.Fatal(err)
	}
	if !cmp.Equal(before, tree(t, b.dir)) {
		t.Error("the second dry run wrote something")
	}
	built := strings.Split(strings.TrimSpace(b.out.String()), "\n")[1:]
	if len(listed) != len(m.Packages) || len(built) != len(m.Packages) {
		t.Fatalf("%d and %d packages listed, want %d:\n%s", len(listed), len(built), len(m.Packages), &b.out)
	}
	for i, p := range m.Packages {
		unknown, archives := "0 B", "0 B"
		if len(p.Archives) > 0 {
			unknown, archives = "1 not built", text.Bytes(m.Archives[slices.IndexFunc(m.Archives, func(f release.Archive) bool { return f.Name == p.Archives[0] })].Size)
		}
		file, count := p.Format+"/"+p.File, fmt.Sprint(len(p.Archives))
		for line, want := range map[string][]string{listed[i]: {file, p.Arch, "not built", count, unknown}, built[i]: {file, p.Arch, text.Bytes(p.Size), count, archives}} {
			if got := strings.Fields(line); !slices.Equal(got, strings.Fields(strings.Join(want, " "))) {
				t.Errorf("listed %q, want %q", got, want)
			}
		}
	}
	if err := errors.Join(os.RemoveAll(b.path("out")), os.Remove(b.path("in", "alpine-x86_64.tar"))); err != nil {
		t.Fatal(err)
	}
	testutil.WantError(t, dryRun(), "no tarball for 1 of 2 helpers")
	if !strings.Contains(b.out.String(), m.Packages[0].File) {
		t.Errorf("a tarball that is missing hides the names:\n%s", &b.out)
	}
	_, err = build.FromEnv(t.Context(), pairs, build.NeedVersion)
	testutil.WantError(t, err, `DRY_RUN="1": only the target package has a dry run`)
	_, err = build.FromEnv(t.Context(), []string{"DRY_RUN=yes"}, build.NeedNothing)
	testutil.WantError(t, err, `DRY_RUN="yes": want 1`)
}

// The same inputs give the same bytes in any directory, umask, time zone and with any
// number of workers.
func TestPackageSameBytes(t *testing.T) {
	var trees []map[string]string
	for _, row := range []struct {
		umask int
		pairs []string
	}{{0o022, []string{"JOBS=1"}}, {0o077, []string{"JOBS=3"}}} {
		b := newBench(t, "alpine-x86_64.tar", "alpine-arm64.tar", "ubuntu-x86_64.tar")
		old := syscall.Umask(row.umask)
		err := b.run(t, build.Package, append(row.pairs, "HELPERS=alpine-x86_64,alpine-arm64,ubuntu-x86_64")...)
		syscall.Umask(old)
		if err != nil {
			t.Fatal(err)
		}
		trees = append(trees, tree(t, b.path("out")))
	}
	if len(trees[0]) < 20 {
		t.Errorf("only %d files", len(trees[0]))
	}
	if !cmp.Equal(trees[0], trees[1]) {
		for name := range trees[0] {
			if trees[0][name] != trees[1][name] {
				t.Errorf("%s differs", name)
			}
		}
	}
}

// Archives of three machines, merged, give the packages of one machine, without the
// tarballs.
func TestPackageMergedFolders(t *testing.T) {
	t.Parallel()
	inputs := []string{"alpine-x86_64.tar", "alpine-arm64.tar", "ubuntu-x86_64.tar"}
	one := newBench(t, inputs...)
	const all = "HELPERS=alpine-x86_64,alpine-arm64,ubuntu-x86_64"
	if err := one.run(t, build.Package, all); err != nil {
		t.Fatal(err)
	}
	merged := newBench(t)
	for _, name := range inputs {
		b := newBench(t, name)
		if err := b.run(t, archives, "HELPERS="+strings.TrimSuffix(name, ".tar")); err != nil {
			t.Fatal(err)
		}
		if err := os.CopyFS(merged.path("out"), os.DirFS(b.path("out"))); err != nil {
			t.Fatal(err)
		}
	}
	if err := merged.run(t, build.Package, all); err != nil {
		t.Fatal(err)
	}
	if !cmp.Equal(tree(t, one.path("out")), tree(t, merged.path("out"))) {
		t.Error("the merged build differs from the one on one machine")
	}
	if err := merged.run(t, build.VerifyOnDisk); err != nil {
		t.Error(err)
	}
	err := merged.run(t, build.Package, all, "RUNNER_VERSION=19.4.0")
	for _, want := range []string{"alpine-arm64: ", "RepoTag is " + catalogue.Repository + ":arm64-v19.3.0, want " + catalogue.Repository + ":arm64-v19.4.0", "there is no tarball from which to make it again"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one that holds %q", err, want)
		}
	}
}

// An archive without its tarball and its record is called what it is.
func TestArchiveWithoutRecord(t *testing.T) {
	b := newBench(t, "alpine-x86_64.tar")
	if err := b.run(t, archives, "HELPERS=alpine-x86_64"); err != nil {
		t.Fatal(err)
	}
	name := "prebuilt-alpine-x86_64.docker.tar.zst"
	path := b.path("out", "helper-images", name)
	if err := errors.Join(os.Remove(b.path("in", "alpine-x86_64.tar")), os.Remove(path+".info")); err != nil {
		t.Fatal(err)
	}
	want := "alpine-x86_64 (alpine-x86_64.tar or prebuilt-alpine-x86_64.tar.xz): its archive " + path + " exists, but not the record " + name + ".info; copy the record next to it"
	for _, inputs := range []string{b.path("in"), b.path("out", "helper-images")} {
		testutil.WantError(t, b.run(t, archives, "HELPERS=alpine-x86_64", "HELPER_IMAGES="+inputs), want)
	}
}

// SBOMs are made side by side, and their warnings are in the order of the helpers.
func TestSBOMWarnings(t *testing.T) {
	b := newBench(t)
	helpers := []string{"alpine-x86_64", "alpine-arm64", "alpine-s390x", "ubuntu-arm64"}
	for _, name := range helpers {
		b.input(t, name+".tar", testutil.Rootfs(t, name, testutil.File("var/lib/rpm/Packages.db", "RpmP")))
	}
	if err := b.run(t, build.Package, "HELPERS="+strings.Join(helpers, ","), "FORMATS=deb", "JOBS=4"); err != nil {
		t.Fatal(err)
	}
	var got []string
	for line := range strings.Lines(b.err.String()) {
		if helper, _, found := strings.Cut(strings.TrimPrefix(line, "warning: "), ": the SBOM may be incomplete: "); found {
			got = append(got, helper)
		}
	}
	m, err := release.ReadManifest(b.path("out"))
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, f := range m.Archives {
		want = append(want, f.Helper)
	}
	if diff := cmp.Diff(want, got); diff != "" || len(got) != len(helpers) {
		t.Errorf("warnings (-want +got):\n%s", diff)
	}
}

// Without the tarball a record must fit its archive and the variables.
func TestPackageDoubtsRecords(t *testing.T) {
	t.Parallel()
	b := newBench(t, "alpine-x86_64.tar")
	if err := b.run(t, archives, "HELPERS=alpine-x86_64"); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(b.path("in", "alpine-x86_64.tar")); err != nil {
		t.Fatal(err)
	}
	info := b.path("out", "helper-images", "prebuilt-alpine-x86_64.docker.tar.zst.info")
	was, err := os.ReadFile(info)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ old, new, want string }{
		{"19.3.0", "19.4.0", "RepoTags is [" + catalogue.Repository + ":x86_64-v19.3.0], its record says"},
		{"file=prebuilt", "file=../../prebuilt", "file is ../../prebuilt-alpine-x86_64.docker.tar.zst, want prebuilt-alpine-x86_64.docker.tar.zst"},
		{"helper=alpine", "helper=ubuntu", "helper is ubuntu-x86_64, want alpine-x86_64"},
		{"diff_ids=sha256:", "diff_ids=sha256:00", "diff ID: "},
		{"unpacked_size=", "unpacked_size=1", "unpacked size is "},
		{"config=assumed\n", "", "config is , want assumed"},
	} {
		before, version := tree(t, b.dir), "19.3.0"
		if test.old == version {
			version = test.new
		}
		if err := os.WriteFile(info, bytes.ReplaceAll(was, []byte(test.old), []byte(test.new)), 0o644); err != nil {
			t.Fatal(err)
		}
		err := b.run(t, build.Package, "HELPERS=alpine-x86_64", "RUNNER_VERSION="+version)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s for %s: error %v, want one that holds %q", test.new, test.old, err, test.want)
		}
		if err := os.WriteFile(info, was, 0o644); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(before, tree(t, b.dir)); diff != "" {
			t.Errorf("%s for %s left something behind:\n%s", test.new, test.old, diff)
		}
	}
	if err := b.run(t, build.Package, "HELPERS=alpine-x86_64"); err != nil {
		t.Error(err)
	}
}

func TestManifest(t *testing.T) {
	t.Parallel()
	b := newBench(t, "alpine-x86_64.tar")
	if err := b.run(t, build.Package, "HELPERS=alpine-x86_64", "CI_JOB_URL=https://gitlab.example.com/-/jobs/1"); err != nil {
		t.Fatal(err)
	}
	m, err := release.ReadManifest(b.path("out"))
	if err != nil {
		t.Fatal(err)
	}
	want := record(t, b.path("out", "helper-images", "prebuilt-alpine-x86_64.docker.tar.zst"))
	if diff := cmp.Diff([]release.Archive{want}, m.Archives); diff != "" {
		t.Errorf("archives (-want +got):\n%s", diff)
	}
	sums, err := release.ReadSums(b.path("out"))
	if err != nil {
		t.Fatal(err)
	}
	delivered := tree(t, b.path("out"))
	delete(delivered, release.SumsName)
	delete(delivered, release.OwnedName)
	for name, content := range delivered {
		if want := fmt.Sprintf("%x", sha256.Sum256([]byte(content))); sums[name] != want {
			t.Errorf("%s: SHA256SUMS has %q, want %q", name, sums[name], want)
		}
	}
	if len(sums) != len(delivered) {
		t.Errorf("%d sums for %d files", len(sums), len(delivered))
	}
	var written struct {
		Schema             int
		Archives, Packages []struct{ Path, SHA256 string }
	}
	if err := json.Unmarshal([]byte(delivered[release.ManifestName]), &written); err != nil {
		t.Fatal(err)
	}
	if written.Schema != 1 || len(written.Packages) == 0 {
		t.Errorf("got schema %d and %d packages", written.Schema, len(written.Packages))
	}
	for _, file := range append(written.Archives, written.Packages...) {
		if file.SHA256 == "" || sums[file.Path] != file.SHA256 {
			t.Errorf("%q has the sha256 %q in the manifest, %q in SHA256SUMS", file.Path, file.SHA256, sums[file.Path])
		}
	}
	if !strings.Contains(delivered[release.ProvenanceName], `"id": "https://gitlab.example.com/-/jobs/1"`) {
		t.Errorf("provenance.json does not name the job:\n%s", delivered[release.ProvenanceName])
	}
}

// Two processes do not write to one directory at once.
func TestFoldersAreLocked(t *testing.T) {
	ended, cancel := context.WithCancel(t.Context())
	cancel() // so that what is not locked gets no further
	for name, row := range map[string]struct {
		folder string
		stage  func(context.Context, build.Config, *build.UI) error
	}{
		"archives":           {"out", archives},
		"archives, input":    {"in", archives},
		"archives, archives": {"out/helper-images", archives},
		"package":            {"in", build.Package},
		"unpack": {"in", func(_ context.Context, c build.Config, ui *build.UI) error {
			return build.Unpack(ended, c, "none.deb", ui)
		}},
		"pull": {"in", func(_ context.Context, c build.Config, ui *build.UI) error { return build.Pull(ended, c, ui) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, "alpine-x86_64.tar")
			folder := b.path(row.folder)
			if err := os.MkdirAll(folder, 0o755); err != nil {
				t.Fatal(err)
			}
			dir, err := os.Open(folder)
			if err != nil {
				t.Fatal(err)
			}
			if err := syscall.Flock(int(dir.Fd()), syscall.LOCK_EX); err != nil {
				t.Fatal(err)
			}
			want := "lock " + folder + ": another pretag is using it"
			if err := b.run(t, row.stage, "HELPERS=alpine-x86_64"); err == nil || err.Error() != want {
				t.Errorf("error %v, want %s", err, want)
			}
			dir.Close()
			if err := b.run(t, row.stage, "HELPERS=alpine-x86_64"); err != nil && strings.Contains(err.Error(), "lock") {
				t.Error(err)
			}
		})
	}
}

// A run removes the unfinished files of a killed one.
func TestArchivesCleansUp(t *testing.T) {
	t.Parallel()
	b := newBench(t, "alpine-x86_64.tar")
	left := b.path("elsewhere", "helper-images", ".prebuilt-alpine-x86_64.docker.tar.zst.123.pretag-tmp")
	stage := b.path("elsewhere", ".stage.123.pretag-tmp", "rpm", "a.rpm")
	others := []string{
		b.path("elsewhere", "demo", "helper-images", ".a.docker.tar.zst.123.pretag-tmp"), // of another OUT
		b.path("elsewhere", "rpm", ".stage.123.pretag-tmp"),                              // OUT may be out/rpm for another run
		b.path("elsewhere", ".notes.pretag-tmp"), b.path("elsewhere", "x.1.pretag-tmp"),  // the user's
	}
	for _, file := range append(others, left, stage) {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("elsewhere", b.path("out")); err != nil {
		t.Fatal(err)
	}
	if err := b.run(t, archives, "HELPERS=alpine-x86_64"); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{left, stage} {
		if _, err := os.Stat(file); !os.IsNotExist(err) {
			t.Errorf("%s is still there (%v)", file, err)
		}
	}
	for _, file := range others {
		if _, err := os.Stat(file); err != nil {
			t.Error(err)
		}
	}
	if err := b.run(t, build.Clean); err != nil {
		t.Fatal(err)
	}
	if files := tree(t, b.path("elsewhere")); len(files) != len(others)-1 { // the demo's is clean's to remove
		t.Errorf("left by clean: %v", files)
	}
}

// A tarball that cannot be read is not missing: the archive of an earlier run must not
// replace it.
func TestArchivesRefusesWhatIsNoFile(t *testing.T) {
	b := newBench(t, "alpine-arm.tar", "alpine-x86_64.tar")
	if err := b.run(t, archives, "HELPERS=alpine-arm,alpine-x86_64"); err != nil {
		t.Fatal(err)
	}
	link, folder := b.path("in", "alpine-arm.tar"), b.path("in", "alpine-x86_64.tar")
	if err := errors.Join(os.Remove(link), os.Symlink("gone", link), os.Remove(folder), os.Mkdir(folder, 0o755)); err != nil {
		t.Fatal(err)
	}
	err := b.run(t, archives, "HELPERS=alpine-arm,alpine-x86_64")
	want := "alpine-x86_64: " + folder + ": is a directory, want a regular file\nalpine-arm: symbolic link that leads to no file: stat " + link + ": no such file or directory"
	if err == nil || err.Error() != want {
		t.Errorf("error\n%v\nwant\n%s", err, want)
	}
}

func TestInspect(t *testing.T) {
	t.Parallel()
	b := newBench(t, "alpine-x86_64.tar")
	if err := b.run(t, archives, "HELPERS=alpine-x86_64"); err != nil {
		t.Fatal(err)
	}
	run := func(asJSON bool, path string) error {
		return b.run(t, func(ctx context.Context, c build.Config, ui *build.UI) error {
			return build.Inspect(ctx, c, path, asJSON, ui)
		})
	}
	for path, want := range map[string]string{"-json": "the file comes first: inspect FILE -json", b.path("in"): "inspect " + b.path("in") + ": is a directory, want a file"} {
		if err := run(false, path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one that holds %q", err, want)
		}
	}
	path := b.path("out", "helper-images", "prebuilt-alpine-x86_64.docker.tar.zst")
	if err := run(true, path); err != nil {
		t.Fatal(err)
	}
	var got inspect.Findings
	if err := json.Unmarshal(b.out.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	f := record(t, path)
	if got.Helper != "alpine-x86_64" || got.Layout != "docker-archive" || got.ImageID != f.ImageID || got.SHA256 != f.SHA256 || got.RepoTags[0] != f.RepoTag {
		t.Errorf("%+v", got)
	}
	if err := run(false, b.path("in", "alpine-x86_64.tar")); err != nil || !strings.Contains(b.out.String(), "layout       rootfs\n") {
		t.Errorf("%v\n%s", err, &b.out)
	}
	// a valid archive that fits neither its record nor its name
	other := archivetest.Archives(t, b.path("out", "helper-images"), "alpine-arm")[0]
	if err := os.Rename(other.Path, path); err != nil {
		t.Fatal(err)
	}
	err := run(false, path)
	if err == nil {
		t.Error("no error")
	}
	for _, want := range []string{"image is for linux/arm/v7, want linux/amd64", "RepoTags is ", "sha256 is "} {
		if !strings.Contains(b.out.String(), want) {
			t.Errorf("the output lacks %q:\n%s", want, &b.out)
		}
	}
}

// The built-in catalogue is valid, and each helper has its own file, tag and package.
func TestShippedNames(t *testing.T) {
	v, err := catalogue.ParseVersion("19.3.0", "")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]string{}
	for _, h := range testutil.Catalogue(t).Helpers() {
		for _, name := range []string{h.File(), ":" + h.Tag(v), "-" + h.PackageSuffix()} {
			if other := seen[name]; other != "" {
				t.Errorf("%s and %s are both called %s", h, other, name)
			}
			seen[name] = h.String()
		}
	}
}

// verify reports an SBOM of another image, and a provenance of other files.
func TestAccountsAreChecked(t *testing.T) {
	t.Parallel()
	b := newBench(t, "alpine-x86_64.tar", "alpine-arm64.tar")
	if err := b.run(t, build.Package, "HELPERS=alpine-x86_64,alpine-arm64", "CATALOGUE=../helper-images/catalogue.yaml"); err != nil {
		t.Fatal(err)
	}
	if err := b.run(t, build.VerifyOnDisk); err != nil {
		t.Fatal(err)
	}
	other, err := os.ReadFile(b.path("out", "sbom", "prebuilt-alpine-arm64.spdx.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(b.path("out", "sbom", "prebuilt-alpine-x86_64.spdx.json"), other, 0o644); err != nil {
		t.Fatal(err)
	}
	provenance, err := os.ReadFile(b.path("out", "provenance.json"))
	if err != nil {
		t.Fatal(err)
	}
	sum, err := release.SHA256File(t.Context(), "../helper-images/catalogue.yaml")
	if want := `"CATALOGUE": "sha256:` + sum + `"`; err != nil || !bytes.Contains(provenance, []byte(want)) {
		t.Errorf("provenance.json lacks %s (%v)", want, err)
	}
	if err := os.WriteFile(b.path("out", "provenance.json"), bytes.Replace(provenance, []byte("_amd64.deb"), []byte("_amd46.deb"), 1), 0o644); err != nil {
		t.Fatal(err)
	}
	err = b.run(t, build.VerifyOnDisk)
	for _, want := range []string{"sbom/prebuilt-alpine-x86_64.spdx.json: ", "provenance.json: "} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one that holds %q", err, want)
		}
	}
}

// The output of verify contains no control characters from files.
func TestVerifyHostile(t *testing.T) {
	b := newBench(t, "alpine-arm64.tar")
	if err := b.run(t, build.Package, "HELPERS=alpine-arm64"); err != nil {
		t.Fatal(err)
	}
	m, err := release.ReadManifest(b.path("out"))
	if err != nil {
		t.Fatal(err)
	}
	m.Archives[0].RepoTag = "stray\x1b[31m"
	data, err := release.JSON(m)
	if err := errors.Join(err, os.WriteFile(b.path("out", release.ManifestName), data, 0o644)); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", t.TempDir()) // no engines
	if err := b.run(t, build.Verify); err == nil || !strings.Contains(err.Error(), "RepoTags is ") {
		t.Errorf("verify: %v", err)
	}
	if got := b.out.String(); strings.Contains(got, "\x1b") || !strings.Contains(got, `stray\x1b[31m`) {
		t.Errorf("printed:\n%q", got)
	}
}

// A root filesystem without Runner's helper program gets a warning, each time. Control
// characters in file names are escaped.
func TestWarnings(t *testing.T) {
	t.Parallel()
	b := newBench(t, "alpine-x86_64.tar", "stray\x1b[31m.tar")
	b.input(t, "alpine-arm.tar", testutil.Tar(t, testutil.File("etc/os-release", "ID=x\n")))
	// For a helper of the built-in catalogue it is an error.
	missing := "has no /usr/bin/gitlab-runner-helper, which GitLab Runner calls; has no /usr/bin/dumb-init, which its entrypoint starts; has no /entrypoint, which its entrypoint starts"
	if err := b.run(t, archives, "HELPERS=alpine-x86_64,alpine-arm"); err == nil || !strings.HasSuffix(err.Error(), missing) {
		t.Errorf("error %v, want %q", err, missing)
	}
	custom := b.path("catalogue.yaml")
	if err := os.WriteFile(custom, helperimages.Catalogue, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, when := range []string{"made", "kept"} {
		if err := b.run(t, archives, "HELPERS=alpine-x86_64,alpine-arm", "CATALOGUE="+custom); err != nil {
			t.Fatal(err)
		}
		want := "warning: alpine-arm: " + missing + "\n"
		if got := b.err.String(); !strings.Contains(got, want) || strings.Contains(got, "alpine-x86_64: has no") {
			t.Errorf("%s: printed:\n%s", when, got)
		}
		if got := b.err.String(); strings.Contains(got, "\x1b") || !strings.Contains(got, `stray\x1b[31m.tar: no helper`) {
			t.Errorf("%s: printed:\n%q", when, got)
		}
	}
}

// ociArchive returns an oci-archive of one layer.
func ociArchive(t *testing.T, c v1.ConfigFile, annotations map[string]string) []byte {
	t.Helper()
	config, err := mutate.ConfigFile(empty.Image, &c)
	if err != nil {
		t.Fatal(err)
	}
	img, err := mutate.AppendLayers(config, static.NewLayer(testutil.Rootfs(t, "x"), types.OCIUncompressedLayer))
	if err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	if err := ociarchive.Write(&archive, mutate.Annotations(img, annotations).(v1.Image), "x", testutil.Created()); err != nil {
		t.Fatal(err)
	}
	return archive.Bytes()
}

// The base image is in the manifest's annotations or in the labels.
func TestInspectBase(t *testing.T) {
	digest := "sha256:" + strings.Repeat("a", 64)
	b := newBench(t)
	b.input(t, "alpine-x86_64.tar", ociArchive(t, v1.ConfigFile{OS: "linux", Architecture: "amd64"}, map[string]string{
		"org.opencontainers.image.base.name": "example.com/base:1", "org.opencontainers.image.base.digest": digest,
	}))
	err := b.inspect(t, b.path("in", "alpine-x86_64.tar"))
	if want := "base         example.com/base:1@" + digest + "\n"; err != nil || !strings.Contains(b.out.String(), want) {
		t.Errorf("%v\n%s", err, &b.out)
	}
}

// inspect finds no problem in what archives and package read and write.
func TestInspectPlatformVariant(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.input(t, "alpine-arm64.tar", ociArchive(t, v1.ConfigFile{OS: "linux", Architecture: "arm64", Variant: "v8"}, nil))
	if err := b.run(t, build.Package, "HELPERS=alpine-arm64", "FORMATS=deb"); err != nil {
		t.Fatal(err)
	}
	debs, err := filepath.Glob(b.path("out", "deb", "*_arm64.deb"))
	if err != nil || len(debs) != 1 {
		t.Fatal(debs, err)
	}
	for _, file := range []string{b.path("in", "alpine-arm64.tar"), b.path("out", "helper-images", "prebuilt-alpine-arm64.docker.tar.zst"), debs[0]} {
		if err := b.inspect(t, file); err != nil {
			t.Errorf("%v\n%s", err, &b.out)
		}
	}
}

// inspect does not judge an input like an archive that pretag wrote.
func TestInspectInput(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	f := archivetest.Archives(t, b.path("in"), "alpine-x86_64")[0]
	if err := (release.Origin{Source: "gitlab-runner-helper-images.deb", Size: f.Size, SHA256: f.SHA256}).Write(f.Path); err != nil {
		t.Fatal(err)
	}
	layer := incompressible(t, 9<<20)
	var zipped bytes.Buffer
	w := gzip.NewWriter(&zipped)
	if _, err := w.Write(layer); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	b.input(t, "saved.tar", testutil.Tar( // docker save before 25, crane's layer
		t,
		testutil.File("layer.tar.gz", zipped.String()),
		testutil.File("config.json", fmt.Sprintf(`{"os":"linux","architecture":"amd64","rootfs":{"diff_ids":["sha256:%x"]}}`, sha256.Sum256(layer))),
		testutil.File("manifest.json", `[{"Config":"config.json","RepoTags":["helper:1"],"Layers":["layer.tar.gz"]}]`),
		testutil.File("repositories", "{}"),
	))
	for file, wants := range map[string][]string{
		f.Path:                    {"layout       docker-archive, zstd\n", "source       gitlab-runner-helper-images.deb\n", "image ID     " + f.ImageID},
		b.path("in", "saved.tar"): {"layout       docker-archive\n", "RepoTag      helper:1\n"},
	} {
		err := b.inspect(t, file)
		for _, want := range wants {
			if err != nil || !strings.Contains(b.out.String(), want) {
				t.Errorf("%s: %v, want %q in\n%s", file, err, want, &b.out)
			}
		}
	}
}

// Each archive of a package is shown with the contents of its own SBOM.
func TestInspectContents(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	for helper, id := range map[string]string{"alpine-x86_64": "one", "alpine-arm": "two"} {
		b.input(t, helper+".tar", testutil.Tar(t, testutil.File("etc/os-release", "ID="+id+"\n"),
			testutil.File("usr/bin/gitlab-runner-helper", "x"), testutil.File("usr/bin/dumb-init", "x"), testutil.File("entrypoint", "x")))
	}
	if err := b.run(t, build.Package, "HELPERS=alpine-x86_64,alpine-arm", "FORMATS=deb", "PACKAGE_LAYOUT=single"); err != nil {
		t.Fatal(err)
	}
	debs, err := filepath.Glob(b.path("out", "deb", "gitlab-runner-helper-images_*.deb"))
	if err != nil || len(debs) != 1 {
		t.Fatal(debs, err)
	}
	if err := b.inspect(t, debs[0]); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"  contents   one, ", "  contents   two, "} {
		if strings.Count(b.out.String(), want) != 1 {
			t.Errorf("want %q once in\n%s", want, &b.out)
		}
	}
}

func (b *bench) inspect(t *testing.T, file string, pairs ...string) error {
	t.Helper()
	return b.run(t, func(ctx context.Context, c build.Config, ui *build.UI) error {
		return build.Inspect(ctx, c, file, false, ui)
	}, pairs...)
}
