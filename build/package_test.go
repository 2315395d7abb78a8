package build_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"pretag/build"
	"pretag/build/catalogue"
	"pretag/build/internal/text"
	"pretag/build/release"
	"pretag/build/testutil"
)

// A dry run lists what package makes then, and writes nothing.
func TestDryRun(t *testing.T) {
	t.Parallel()
	b := newBench(t, "alpine-x86_64.tar", "prebuilt-alpine-x86_64-pwsh.tar")
	const helpers = "HELPERS=alpine-x86_64,alpine-x86_64-pwsh"
	dryRun := func() (lines []string) {
		t.Helper()
		before := tree(t, b.dir)
		b.must(t, build.Package, helpers, "DRY_RUN=1")
		same(t, "after a dry run", before, tree(t, b.dir))
		return strings.Split(strings.TrimSpace(b.out.String()), "\n")[1:]
	}
	listed := dryRun()
	b.leavesNothing(t)
	b.must(t, build.Package, helpers)
	m, built := b.manifest(t), dryRun()
	if len(listed) != len(m.Packages) || len(built) != len(m.Packages) {
		t.Fatalf("%d and %d packages listed, want %d:\n%s", len(listed), len(built), len(m.Packages), &b.out)
	}
	for i, p := range m.Packages {
		unknown, archives := "0 B", "0 B"
		if len(p.Archives) > 0 {
			unknown, archives = "1 not built", text.Bytes(m.Archives[slices.IndexFunc(m.Archives, func(f release.Archive) bool { return f.Name == p.Archives[0] })].Size)
		}
		file, count := p.Format+"/"+p.File, fmt.Sprint(len(p.Archives))
		for line, want := range map[string]string{
			listed[i]: strings.Join([]string{file, p.Arch, "not built", count, unknown}, " "),
			built[i]:  strings.Join([]string{file, p.Arch, text.Bytes(p.Size), count, archives}, " "),
		} {
			if got := strings.Join(strings.Fields(line), " "); got != want {
				t.Errorf("listed %q, want %q", got, want)
			}
		}
	}
	// A tarball that is missing does not hide the names.
	if err := os.RemoveAll(b.path("out")); err != nil {
		t.Fatal(err)
	}
	remove(t, b.path("in", "alpine-x86_64.tar"))
	testutil.WantError(t, b.run(t, build.Package, helpers, "DRY_RUN=1"), "no tarball for 1 of 2 helpers")
	contains(t, b.out.String(), m.Packages[0].File)
}

// The same inputs give the same bytes in any directory, with any umask, and with any
// number of workers.
func TestPackageSameBytes(t *testing.T) {
	var trees []map[string]string
	for jobs, umask := range map[string]int{"JOBS=1": 0o022, "JOBS=3": 0o077} {
		b := newBench(t, "alpine-x86_64.tar", "alpine-arm64.tar", "ubuntu-x86_64.tar")
		old := syscall.Umask(umask)
		err := b.run(t, build.Package, jobs, "HELPERS=alpine-x86_64,alpine-arm64,ubuntu-x86_64")
		syscall.Umask(old)
		if err != nil {
			t.Fatal(err)
		}
		trees = append(trees, tree(t, b.path("out")))
	}
	if len(trees[0]) < 20 {
		t.Errorf("only %d files", len(trees[0]))
	}
	same(t, "another umask", trees[0], trees[1])
}

// Archives of three machines, merged, give the packages of one machine, without the
// tarballs.
func TestPackageMergedDirectories(t *testing.T) {
	t.Parallel()
	inputs := []string{"alpine-x86_64.tar", "alpine-arm64.tar", "ubuntu-x86_64.tar"}
	const all = "HELPERS=alpine-x86_64,alpine-arm64,ubuntu-x86_64"
	whole, merged := newBench(t, inputs...), newBench(t)
	whole.must(t, build.Package, all)
	for _, name := range inputs {
		b := newBench(t, name)
		b.must(t, archives, "HELPERS="+strings.TrimSuffix(name, ".tar"))
		if err := os.CopyFS(merged.path("out"), os.DirFS(b.path("out"))); err != nil {
			t.Fatal(err)
		}
	}
	merged.must(t, build.Package, all)
	same(t, "merged", tree(t, whole.path("out")), tree(t, merged.path("out")))
	merged.must(t, build.VerifyOnDisk)
	testutil.WantError(
		t, merged.run(t, build.Package, all, "RUNNER_VERSION=19.4.0"),
		"alpine-arm64: ", "RepoTag is "+catalogue.Repository+":arm64-v19.3.0, want "+catalogue.Repository+":arm64-v19.4.0", "there is no tarball from which to make it again",
	)
}

// SBOMs are made in parallel, and their warnings are in the order of the helpers.
func TestSBOMWarnings(t *testing.T) {
	b := newBench(t)
	helpers := []string{"alpine-x86_64", "alpine-arm64", "alpine-s390x", "ubuntu-arm64"}
	for _, name := range helpers {
		b.input(t, name+".tar", testutil.Rootfs(t, name, testutil.File("var/lib/rpm/Packages.db", "RpmP")))
	}
	b.must(t, build.Package, "HELPERS="+strings.Join(helpers, ","), "FORMATS=deb", "JOBS=4")
	var got, want []string
	for line := range strings.Lines(b.err.String()) {
		if helper, _, found := strings.Cut(strings.TrimPrefix(line, "warning: "), ": the SBOM may be incomplete: "); found {
			got = append(got, helper)
		}
	}
	for _, f := range b.manifest(t).Archives {
		want = append(want, f.Helper)
	}
	if diff := cmp.Diff(want, got); diff != "" || len(got) != len(helpers) {
		t.Errorf("warnings (-want +got):\n%s", diff)
	}
}

// Without the tarball a record must fit its archive and the variables.
func TestPackageChecksRecords(t *testing.T) {
	t.Parallel()
	b := newBench(t, "alpine-x86_64.tar")
	b.must(t, archives, "HELPERS=alpine-x86_64")
	remove(t, b.path("in", "alpine-x86_64.tar"))
	info := b.archive("alpine-x86_64") + ".info"
	was := read(t, info)
	for _, row := range []struct{ old, new, version, want string }{
		{"19.3.0", "19.4.0", "19.4.0", "RepoTags is [" + catalogue.Repository + ":x86_64-v19.3.0], its record says"},
		{"file=prebuilt", "file=../../prebuilt", "19.3.0", "file is ../../prebuilt-alpine-x86_64.docker.tar.zst, want prebuilt-alpine-x86_64.docker.tar.zst"},
		{"helper=alpine", "helper=ubuntu", "19.3.0", "helper is ubuntu-x86_64, want alpine-x86_64"},
		{"diff_ids=sha256:", "diff_ids=sha256:00", "19.3.0", "diff ID: "},
		{"unpacked_size=", "unpacked_size=1", "19.3.0", "unpacked size is "},
		{"config=assumed\n", "", "19.3.0", "config is , want assumed"},
	} {
		write(t, info, bytes.ReplaceAll(was, []byte(row.old), []byte(row.new)))
		before := tree(t, b.dir)
		testutil.WantError(t, b.run(t, build.Package, "HELPERS=alpine-x86_64", "RUNNER_VERSION="+row.version), row.want)
		same(t, row.new+" for "+row.old, before, tree(t, b.dir))
	}
	write(t, info, was)
	b.must(t, build.Package, "HELPERS=alpine-x86_64")
}

func TestManifest(t *testing.T) {
	t.Parallel()
	b := newBench(t, "alpine-x86_64.tar")
	b.must(t, build.Package, "HELPERS=alpine-x86_64", "CI_JOB_URL=https://gitlab.example.com/-/jobs/1")
	if diff := cmp.Diff([]release.Archive{b.record(t, "alpine-x86_64")}, b.manifest(t).Archives); diff != "" {
		t.Errorf("archives (-want +got):\n%s", diff)
	}
	sums, err := release.ReadSums(b.path("out"))
	if err != nil {
		t.Fatal(err)
	}
	delivered, want := tree(t, b.path("out")), map[string]string{}
	for name, content := range delivered {
		if name != release.SumsName && name != release.OwnedName {
			want[name] = fmt.Sprintf("%x", sha256.Sum256([]byte(content)))
		}
	}
	if diff := cmp.Diff(want, sums); diff != "" {
		t.Errorf("SHA256SUMS (-want +got):\n%s", diff)
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
	contains(t, delivered[release.ProvenanceName], `"id": "https://gitlab.example.com/-/jobs/1"`)
}

// Two processes do not write to one directory at once.
func TestDirectoriesAreLocked(t *testing.T) {
	ended, cancel := context.WithCancel(t.Context())
	cancel() // so that a stage that gets its lock does no more
	for name, row := range map[string]struct {
		dir   string
		stage build.Stage
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
			path := b.path(row.dir)
			if err := os.MkdirAll(path, 0o755); err != nil {
				t.Fatal(err)
			}
			dir, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := syscall.Flock(int(dir.Fd()), syscall.LOCK_EX); err != nil {
				t.Fatal(err)
			}
			testutil.WantError(t, b.run(t, row.stage, "HELPERS=alpine-x86_64"), "lock "+path+": another pretag is using it")
			dir.Close()
			if err := b.run(t, row.stage, "HELPERS=alpine-x86_64"); err != nil && strings.Contains(err.Error(), "lock") {
				t.Error(err)
			}
		})
	}
}

// Without Go and without loaders, package says so before it makes the archives, which
// takes minutes.
func TestPackageWithoutLoaders(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	b := newBench(t, "alpine-s390x.tar")
	err := b.run(t, func(ctx context.Context, c build.Config, ui *build.UI) error {
		c.LoaderArches = nil
		return build.Package(ctx, c, ui)
	}, "HELPERS=alpine-s390x")
	testutil.WantError(t, err, `loaders: nothing can be compiled here`, `run the target loaders where Go and the sources are, and set LOADERS to its output`,
		"loader/gitlab-runner-helper-images-s390x: no such file", "loader/gitlab-runner-helper-images-386: no such file")
	b.leavesNothing(t)
}

// verify reports an SBOM of another image, and a provenance of other files.
func TestAccountsAreChecked(t *testing.T) {
	t.Parallel()
	b := newBench(t, "alpine-x86_64.tar", "alpine-arm64.tar")
	b.must(t, build.Package, "HELPERS=alpine-x86_64,alpine-arm64", "CATALOGUE=../helper-images/catalogue.yaml")
	b.must(t, build.VerifyOnDisk)
	provenance := read(t, b.path("out", "provenance.json"))
	contains(t, string(provenance), fmt.Sprintf(`"CATALOGUE": "sha256:%x"`, sha256.Sum256(read(t, "../helper-images/catalogue.yaml"))))
	write(t, b.path("out", "provenance.json"), bytes.Replace(provenance, []byte("_amd64.deb"), []byte("_amd46.deb"), 1))
	write(t, b.path("out", "sbom", "prebuilt-alpine-x86_64.spdx.json"), read(t, b.path("out", "sbom", "prebuilt-alpine-arm64.spdx.json")))
	testutil.WantError(t, b.run(t, build.VerifyOnDisk), "sbom/prebuilt-alpine-x86_64.spdx.json: ", "provenance.json: ")
}

// The output of verify contains no control characters from files.
// Traces of jobs of an earlier run are removed.
func TestVerifyHostile(t *testing.T) {
	b := newBench(t, "alpine-arm64.tar")
	b.must(t, build.Package, "HELPERS=alpine-arm64")
	m := b.manifest(t)
	m.Archives[0].RepoTag = "stray\x1b[31m"
	data, err := release.JSON(m)
	if err != nil {
		t.Fatal(err)
	}
	write(t, b.path("out", release.ManifestName), data)
	const stale = "verify/jobs/docker-alpine-arm64-job.txt"
	owned, err := os.ReadFile(b.path("out", release.OwnedName))
	if err := errors.Join(err, os.MkdirAll(b.path("out", "verify", "jobs"), 0o755)); err != nil {
		t.Fatal(err)
	}
	write(t, b.path("out", stale), nil)
	write(t, b.path("out", release.OwnedName), fmt.Appendf(owned, "%x  %s\n", sha256.Sum256(nil), stale))
	t.Setenv("PATH", t.TempDir()) // no engines
	testutil.WantError(t, b.run(t, build.Verify), "verify: 3 of 11 checks failed")
	if got := b.out.String(); strings.Contains(got, "\x1b") || strings.Count(got, "RepoTags is ") != 1 || !strings.Contains(got, `stray\x1b[31m`) {
		t.Errorf("printed:\n%q", got)
	}
	if _, err := os.Stat(b.path("out", stale)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the trace of a job of an earlier run is left: %v", err)
	}
}
