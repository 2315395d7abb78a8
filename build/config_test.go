package build_test

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"pretag/build"
	"pretag/build/testutil"
)

var update = flag.Bool("update", false, "write docs/variables.md")

// config reads the variables on top of those that every build needs.
func config(t *testing.T, vars ...string) (build.Config, error) {
	t.Helper()
	return build.FromEnv(t.Context(), append([]string{"RUNNER_VERSION=19.3.0", "SOURCE_DATE_EPOCH=1700000000"}, vars...), build.NeedVersion)
}

func TestFromEnvDefaults(t *testing.T) {
	c, err := config(t, "RUNNER_VERSION=v19.3.0", "HELPERS= , ")
	if err != nil {
		t.Fatal(err)
	}
	got := []any{c.Version.String(), c.Release, len(c.Helpers), c.Inputs, c.Out, c.Repository, c.Compression.String(), c.Formats, c.Layout, c.Time.Equal(time.Unix(1_700_000_000, 0)), c.Key, c.Engines, c.Builder, c.Warnings}
	want := []any{
		"19.3.0", "1", 12, "helper-images", "out", "registry.gitlab.com/gitlab-org/gitlab-runner/gitlab-runner-helper",
		"zstd:best",
		[]string{"rpm", "deb"},
		"split", true, "", []string(nil), "", []string(nil),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	_, err = build.FromEnv(t.Context(), nil, build.NeedNothing)
	testutil.WantError(t, err, "")
	c, err = config(t, "PLAIN_HTTP=10.0.0.1:5000, registry.example.com")
	if want := []string{"10.0.0.1:5000", "registry.example.com"}; err != nil || !slices.Equal(c.PlainHTTP, want) {
		t.Errorf("PLAIN_HTTP: got %q, %v, want %q", c.PlainHTTP, err, want)
	}
}

// Values that come from other programs' variables.
func TestFromEnvFallbacks(t *testing.T) {
	const ours = "pretag <pretag@example.org>"
	for _, test := range []struct {
		vars []string
		want string
	}{
		{nil, ours},
		{[]string{"DEBFULLNAME=Ada L", "DEBEMAIL=ada@example.com"}, "Ada L <ada@example.com>"},
		{[]string{"DEBFULLNAME=Bob", "DEBEMAIL=Ada L <ada@example.com>"}, "Ada L <ada@example.com>"},
		{[]string{"DEBEMAIL=ada@example.com"}, ours},
		{[]string{"DEBEMAIL=Ada L <ada@example.com>", "PACKAGE_MAINTAINER=Bob <bob@example.com>"}, "Bob <bob@example.com>"},
	} {
		c, err := config(t, test.vars...)
		testutil.WantError(t, err, "")
		if c.Maintainer != test.want {
			t.Errorf("%q: got the maintainer %q, want %q", test.vars, c.Maintainer, test.want)
		}
	}
	const job = "https://gitlab.example.com/group/project/-/jobs/1"
	for _, test := range [][2]string{{"CI_JOB_URL=" + job, job}, {"BUILDER_ID=https://example.com/me", "https://example.com/me"}} {
		c, err := config(t, test[0])
		testutil.WantError(t, err, "")
		if c.Builder != test[1] {
			t.Errorf("%s: got the builder %q", test[0], c.Builder)
		}
	}
}

func TestFromEnvWarns(t *testing.T) {
	c, err := config(t, "HELPER_IMAGE=x", "ENGINE=docker", "JOBS=1", "OUTPUT=x", "HOME=/root", "PWD=/")
	testutil.WantError(t, err, "")
	want := []string{"the variable ENGINE is set; did you mean ENGINES?", "the variable HELPER_IMAGE is set; did you mean HELPER_IMAGES?"}
	if diff := cmp.Diff(want, c.Warnings); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// A repository that no engine could name is rejected, because each RepoTag has it.
func TestFromEnvRepositories(t *testing.T) {
	for _, repository := range []string{"https://registry.example.com/helper", "registry.example.com//helper", "/helper", "registry.example.com/", "registry.example.com:/helper", "registry.example.com/helper/", "host/a:b/c", "library/helper", "registry.example.com/UPPER", "registry.example.com/a@sha256:0"} {
		_, err := config(t, "IMAGE_REPOSITORY="+repository)
		testutil.WantError(t, err, "IMAGE_REPOSITORY=", "want a registry's host, a path and no tag")
	}
	_, err := config(t, "IMAGE_REPOSITORY=docker.io/group/helper")
	testutil.WantError(t, err, `IMAGE_REPOSITORY="docker.io/group/helper": Docker Hub cannot be used, because Docker drops its host from names`)
	_, err = config(t, "IMAGE_REPOSITORY=localhost:5000/a/helper")
	testutil.WantError(t, err, "")
}

// All invalid variables are reported at once, each by name, value and what is allowed.
func TestFromEnvReportsAll(t *testing.T) {
	dir := t.TempDir()
	_, err := config(
		t,
		"RUNNER_VERSION=15.8.9", "PACKAGES_ITERATION=0", "HELPERS=alpin-*,ubuntu-*", "IMAGE_REPOSITORY=helper:tag",
		"ARCHIVE_COMPRESSION=zstd:22", "FORMATS=rpm,apk", "PACKAGE_LAYOUT=both", "SOURCE_DATE_EPOCH=yesterday",
		"GPG_KEY_PATH="+filepath.Join(dir, "missing"), "ENGINES=podman,lxc", "JOBS=-1", "PACKAGE_MAINTAINER=me",
		"PACKAGE_HOMEPAGE=x", "PACKAGE_VENDOR=a\nb", "BUILDER_ID=me",
	)
	wants := []string{
		"RUNNER_VERSION=15.8.9 needs RUNNER_REVISION: below 16.8.0 tags carry the git revision, and the revision of this version is not known",
		`PACKAGES_ITERATION="0": want a number above 0, with an optional distribution suffix`,
		`HELPERS="alpin-*": no helper matches; there are alpine-x86_64, alpine-arm, `,
		`IMAGE_REPOSITORY="helper:tag": want a registry's host, a path and no tag`,
		`ARCHIVE_COMPRESSION="zstd:22": want zstd[:fastest|default|better|best|ultra], gzip or none`,
		`FORMATS="apk": want rpm or deb`,
		`PACKAGE_LAYOUT="both": want split or single`,
		`SOURCE_DATE_EPOCH="yesterday": want seconds since 1970`,
		`GPG_KEY_PATH="` + filepath.Join(dir, "missing") + `": no such file or directory`,
		`ENGINES="lxc": want podman (one of its kinds), podman-rootful, podman-rootless or docker`,
		`JOBS="-1": want a number from 1 to 1048576`,
		`PACKAGE_MAINTAINER="me": want Name <mail@example.com>`,
		`PACKAGE_HOMEPAGE="x": want a URL`,
		`PACKAGE_VENDOR="a\nb": want one line`,
		`BUILDER_ID="me": want a URI`,
	}
	testutil.WantError(t, err, wants...)
	if got := strings.Count(err.Error(), "\n") + 1; got != len(wants) {
		t.Errorf("%d lines, want %d:\n%v", got, len(wants), err)
	}
}

func TestFromEnvRejects(t *testing.T) {
	dir := t.TempDir()
	custom, noDefault := filepath.Join(dir, "catalogue.yaml"), filepath.Join(dir, "none.yaml")
	for file, text := range map[string]string{
		custom:    "arches: {x86_64: {platform: linux/amd64}}\nflavors: [{name: own, arch: [x86_64]}]",
		noDefault: "arches: {x86_64: {platform: linux/amd64}}\nflavors: [{name: own, arches: [x86_64]}]",
	} {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	_, err := build.FromEnv(t.Context(), []string{"CATALOGUE=" + noDefault}, build.NeedNothing)
	testutil.WantError(t, err, "") // for a target that needs no helpers
	for _, row := range []struct{ pair, want string }{
		{"GPG_PASSPHRASE_PATH=" + custom, "GPG_PASSPHRASE_PATH is set and GPG_KEY_PATH is not"},
		{"GPG_KEY_PATH=" + dir, `": not a regular file or a named pipe`},
		{"CATALOGUE=" + custom, custom + ": yaml: unmarshal errors:\n  line 2: field arch not found"},
		{"CATALOGUE=" + noDefault, `HELPERS="default": the catalogue has no such helpers for GitLab Runner 19.3.0`},
		{"CATALOGUE=" + dir + "/missing", `CATALOGUE="` + dir + `/missing": no such file or directory`},
		{"SOURCE_DATE_EPOCH=-1", "SOURCE_DATE_EPOCH="},
		{"SOURCE_DATE_EPOCH=4294967296", "at most 4294967295"},
		{"JOBS=1048577", `JOBS="1048577": want a number from 1 to 1048576`},
		{"JOBS=two", `JOBS="two"`},
		{"RUNNER_REVISION=zz", "RUNNER_REVISION="},
		{"DRY_RUN=1", `DRY_RUN="1": only the target package has a dry run`},
		{"DRY_RUN=yes", `DRY_RUN="yes": want 1`},
		{"PLAIN_HTTP=http://registry.example.com", `PLAIN_HTTP="http://registry.example.com": want a registry's host, with its port if it has one`},
	} {
		_, err := config(t, row.pair)
		testutil.WantError(t, err, row.want)
	}
}

func TestRunRejectsVariablesAfterTheTarget(t *testing.T) {
	stage := func(context.Context, build.Config, *build.UI) error {
		t.Error("the stage ran")
		return nil
	}
	args := []string{"package", "HELPERS=alpine-*", "GPG_PASSPHRASE_PATH=s3cret"}
	err := build.Run(t.Context(), args, []string{"RUNNER_VERSION=19.3.0", "SOURCE_DATE_EPOCH=1"}, build.NeedVersion, stage)
	testutil.WantError(t, err, "HELPERS=... is after the target: set variables before the command", "GPG_PASSPHRASE_PATH=... is after")
	if strings.Contains(fmt.Sprint(err), "s3cret") {
		t.Errorf("shows a value: %v", err)
	}
}

// Outside git SOURCE_DATE_EPOCH is required. To ask git can be interrupted.
func TestFromEnvTime(t *testing.T) {
	t.Chdir(t.TempDir())
	t.Setenv("GIT_CEILING_DIRECTORIES", "/")
	vars := []string{"RUNNER_VERSION=19.3.0"}
	_, err := build.FromEnv(t.Context(), vars, build.NeedVersion)
	testutil.WantError(t, err, "SOURCE_DATE_EPOCH is required")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = build.FromEnv(ctx, vars, build.NeedVersion)
	testutil.WantError(t, err, "git log -1: context canceled")
	testutil.WantError(t, build.Run(ctx, nil, vars, build.NeedVersion, nil), "interrupted by signal: interrupt")
}

// docs/variables.md has the table of variables. -update writes it.
func TestVariablesPage(t *testing.T) {
	const page = "../docs/variables.md"
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok := strings.Cut(string(text), "| variable |")
	end := strings.Index(rest, "\n\n")
	if !ok || end < 0 {
		t.Fatalf("%s has no table of variables", page)
	}
	want := head + build.VariablesTable() + rest[end+1:]
	if *update {
		if err := os.WriteFile(page, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(want, string(text)); diff != "" && !*update {
		t.Errorf("%s differs from the table in variables.go; run go test ./build -run TestVariablesPage -update\n(-want +got):\n%s", page, diff)
	}
}
