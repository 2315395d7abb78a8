package build_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"pretag/build"
)

// env is an environment of NAME=value words.
func env(pairs ...string) func(string) string {
	vars := map[string]string{}
	for _, pair := range pairs {
		name, value, _ := strings.Cut(pair, "=")
		vars[name] = value
	}
	return func(name string) string { return vars[name] }
}

func TestFromEnvDefaults(t *testing.T) {
	c, err := build.FromEnv(env("RUNNER_VERSION=v19.3.0", "SOURCE_DATE_EPOCH=1700000000"), build.Release)
	if err != nil {
		t.Fatal(err)
	}
	got := []any{c.Version.String(), c.Release, len(c.Helpers), c.Inputs, c.Out, c.Repository, c.Compression.String(), c.Formats, c.Layout, c.Time.Equal(time.Unix(1_700_000_000, 0)), c.Key, c.Engines}
	want := []any{
		"19.3.0", "1", 12, "helper-images", "out", "registry.gitlab.com/gitlab-org/gitlab-runner/gitlab-runner-helper",
		"zstd:best",
		[]string{"rpm", "deb"},
		"split", true, "", []string(nil),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if _, err := build.FromEnv(env(), build.Folders); err != nil {
		t.Errorf("a target that needs no version: %v", err)
	}
}

// TestFromEnvMaintainer: the maintainer is the one that Debian's tools take, unless
// PACKAGE_MAINTAINER names one.
func TestFromEnvMaintainer(t *testing.T) {
	for _, row := range []struct {
		pairs []string
		want  string
	}{
		{nil, "pretag <pretag@example.org>"},
		{[]string{"DEBFULLNAME=Pat", "DEBEMAIL=pat@example.com"}, "Pat <pat@example.com>"},
		{[]string{"DEBFULLNAME=Pat"}, "pretag <pretag@example.org>"},
		{[]string{"DEBEMAIL=Pat P <pat@example.com>"}, "Pat P <pat@example.com>"},
		{[]string{"DEBFULLNAME=Pat", "DEBEMAIL=pat@example.com", "PACKAGE_MAINTAINER=Al <al@example.com>"}, "Al <al@example.com>"},
	} {
		c, err := build.FromEnv(env(row.pairs...), build.Folders)
		if err != nil || c.Maintainer != row.want {
			t.Errorf("%q: %q, %v, want %q", row.pairs, c.Maintainer, err, row.want)
		}
	}
}

// A repository that no engine could name is refused, as it stands in every RepoTag.
func TestFromEnvRefusesRepositories(t *testing.T) {
	for _, repository := range []string{"https://registry.example.com/helper", "registry.example.com//helper", "/helper", "registry.example.com/", "registry.example.com:/helper", "registry.example.com/helper/", "host/a:b/c"} {
		_, err := build.FromEnv(env("RUNNER_VERSION=19.3.0", "SOURCE_DATE_EPOCH=1700000000", "IMAGE_REPOSITORY="+repository), build.Release)
		if err == nil || !strings.Contains(err.Error(), "want a registry's host, a path and no tag") {
			t.Errorf("IMAGE_REPOSITORY=%s: error %v", repository, err)
		}
	}
	if _, err := build.FromEnv(env("RUNNER_VERSION=19.3.0", "SOURCE_DATE_EPOCH=1700000000", "IMAGE_REPOSITORY=localhost:5000/a/helper"), build.Release); err != nil {
		t.Error(err)
	}
}

// All wrong variables are reported at once, each by name, value and what is allowed.
func TestFromEnvReportsAll(t *testing.T) {
	dir := t.TempDir()
	_, err := build.FromEnv(env(
		"RUNNER_VERSION=15.8.9", "PACKAGES_ITERATION=0", "HELPERS=alpin-*,ubuntu-*", "IMAGE_REPOSITORY=helper:tag",
		"ARCHIVE_COMPRESSION=zstd:22", "FORMATS=rpm,apk", "PACKAGE_LAYOUT=both", "SOURCE_DATE_EPOCH=yesterday",
		"GPG_KEY_PATH="+filepath.Join(dir, "missing"), "ENGINES=podman,lxc", "JOBS=-1", "PACKAGE_MAINTAINER=me",
		"PACKAGE_HOMEPAGE=x", "PACKAGE_VENDOR=a\nb",
	), build.Release)
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{
		"RUNNER_VERSION=15.8.9 needs RUNNER_REVISION: below 16.8.0 tags carry the git revision, and the revision of this version is not known",
		`PACKAGES_ITERATION="0": want a number above 0, with an optional distribution suffix such as 1~bpo12+1 or 1.el9`,
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
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error\n%v\nlacks %q", err, want)
		}
	}
	if got := strings.Count(err.Error(), "\n") + 1; got != 14 {
		t.Errorf("%d lines, want 14:\n%v", got, err)
	}
}

func TestFromEnvRefuses(t *testing.T) {
	dir := t.TempDir()
	own := filepath.Join(dir, "catalogue.yaml")
	if err := os.WriteFile(own, []byte("arches: {x86_64: {platform: linux/amd64}}\nflavors: [{name: own, arch: [x86_64]}]"), 0o644); err != nil {
		t.Fatal(err)
	}
	none := filepath.Join(dir, "none.yaml")
	if err := os.WriteFile(none, []byte("arches: {x86_64: {platform: linux/amd64}}\nflavors: [{name: own, arches: [x86_64]}]"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := build.FromEnv(env("CATALOGUE="+none), build.Folders); err != nil {
		t.Errorf("a target that needs no helpers: %v", err)
	}
	for _, row := range []struct{ pair, want string }{
		{"IMAGE_REPOSITORY=library/helper", "IMAGE_REPOSITORY="},
		{"IMAGE_REPOSITORY=registry.example.com/UPPER", "IMAGE_REPOSITORY="},
		{"IMAGE_REPOSITORY=registry.example.com/a@sha256:0", "IMAGE_REPOSITORY="},
		{"GPG_PASSPHRASE_PATH=" + own, "GPG_PASSPHRASE_PATH is set and GPG_KEY_PATH is not"},
		{"GPG_KEY_PATH=" + dir, `": not a regular file or a named pipe`},
		{"CATALOGUE=" + own, own + ": yaml: unmarshal errors:\n  line 2: field arch not found"},
		{"CATALOGUE=" + none, "HELPERS is required: " + none + " has no default for GitLab Runner 19.3.0"},
		{"CATALOGUE=" + dir + "/missing", "CATALOGUE="},
		{"SOURCE_DATE_EPOCH=-1", "SOURCE_DATE_EPOCH="},
		{"SOURCE_DATE_EPOCH=4294967296", "at most 4294967295"},
		{"JOBS=1048577", `JOBS="1048577": want a number from 1 to 1048576`},
		{"JOBS=two", `JOBS="two"`},
		{"RUNNER_REVISION=zz", "RUNNER_REVISION="},
	} {
		_, err := build.FromEnv(env("RUNNER_VERSION=19.3.0", "SOURCE_DATE_EPOCH=1", row.pair), build.Release)
		if err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: error %v, want one that holds %q", row.pair, err, row.want)
		}
	}
}

// Outside git SOURCE_DATE_EPOCH is required; inside, the commit's time serves.
func TestFromEnvTime(t *testing.T) {
	t.Chdir(t.TempDir())
	t.Setenv("GIT_CEILING_DIRECTORIES", "/")
	_, err := build.FromEnv(env("RUNNER_VERSION=19.3.0"), build.Release)
	if err == nil || !strings.Contains(err.Error(), "SOURCE_DATE_EPOCH is required") {
		t.Errorf("error %v", err)
	}
}
