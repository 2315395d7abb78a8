package catalogue_test

import (
	stdcmp "cmp"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"pretag/build/catalogue"
)

func lookup(t *testing.T, name string) catalogue.Helper {
	t.Helper()
	h, ok := shipped(t).Lookup(name)
	if !ok {
		t.Fatalf("no helper %s", name)
	}
	return h
}

func TestPlatforms(t *testing.T) {
	for name, want := range map[string][2]string{
		"alpine-x86_64":          {"linux/amd64", "alpine-amd64"},
		"alpine-arm":             {"linux/arm/v7", "alpine-arm"},
		"alpine-arm64":           {"linux/arm64", "alpine-arm64"},
		"ubuntu-x86_64-pwsh":     {"linux/amd64", "ubuntu-amd64-pwsh"},
		"alpine-s390x":           {"linux/s390x", "alpine-s390x"},
		"alpine-ppc64le":         {"linux/ppc64le", "alpine-ppc64le"},
		"concrete-riscv64":       {"linux/riscv64", "concrete-riscv64"},
		"alpine3.21-x86_64-pwsh": {"linux/amd64", "alpine3.21-amd64-pwsh"},
	} {
		h := lookup(t, name)
		if diff := cmp.Diff(want, [2]string{h.Platform.String(), h.PackageSuffix()}); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func names(helpers []catalogue.Helper) []string {
	var names []string
	for _, h := range helpers {
		names = append(names, h.String())
	}
	return names
}

func TestSelect(t *testing.T) {
	c := shipped(t)
	got, err := c.Select([]string{"ubuntu-*-pwsh", "alpine-x86_64", "alpine-x86_64"}, released(t, "19.3.0"))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"alpine-x86_64", "ubuntu-x86_64-pwsh", "ubuntu-arm64-pwsh"}
	if diff := cmp.Diff(want, names(got)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	_, err = c.Select([]string{"alpine-arm ubuntu-arm", "alpin-*", "ubuntu-*", "[", "x"}, released(t, "19.3.0"))
	for _, want := range []string{
		`"alpine-arm ubuntu-arm": no helper matches; separate them by commas`,
		`"alpin-*": no helper matches; there are alpine-x86_64, `, `"[": syntax error in pattern`, `"x": no helper`,
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one that holds %q", err, want)
		}
	}
	if n := strings.Count(err.Error(), "there are"); n != 1 {
		t.Errorf("the names of all helpers %d times, want once:\n%v", n, err)
	}
}

// The sets follow the version, and can be mixed with globs.
func TestSelectSets(t *testing.T) {
	c := shipped(t)
	v := released(t, "19.3.0")
	for _, row := range []struct {
		words []string
		want  []catalogue.Helper
	}{
		{[]string{"default"}, c.Default(v)},
		{[]string{"all"}, c.Existing(v)},
		{[]string{"default", "concrete-*"}, append(c.Default(v), c.Existing(v)[37:]...)},
	} {
		got, err := c.Select(row.words, v)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(names(row.want), names(got)); diff != "" {
			t.Errorf("%q: helpers (-want +got):\n%s", row.words, diff)
		}
	}

	own, err := catalogue.Parse("c.yaml", []byte("arches: {x86_64: {platform: linux/amd64}}\nflavors: [{name: a, arches: [x86_64]}]"))
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		c                   *catalogue.Catalogue
		word, version, want string
	}{
		{own, "release", "19.3.0", `"release": the catalogue has no such helpers for GitLab Runner 19.3.0`},
		{own, "default", "19.3.0", `"default": the catalogue has no such helpers for GitLab Runner 19.3.0`},
		{c, "alpine3.13-arm", "19.3.0", `"alpine3.13-arm": GitLab Runner 19.3.0 has no such helper; alpine3.13-arm exists before 16.1.0`},
		{c, "concrete-*", "18.10.1", `"concrete-*": GitLab Runner 18.10.1 has no such helper; concrete-x86_64 exists since 18.11.0`},
		{c, "alpine-riscv64", "17.9.2", `"alpine-riscv64": GitLab Runner 17.9.2 has no such helper; alpine-riscv64 exists since 17.9.0 before 17.9.2, since 18.3.0`},
	} {
		_, err := row.c.Select([]string{row.word}, released(t, row.version))
		if err == nil || err.Error() != row.want {
			t.Errorf("error %v\nwant  %s", err, row.want)
		}
	}
	if err := c.CheckWords([]string{"alpine3.13-arm", "default", "concrete-*"}, catalogue.Version{}); err != nil {
		t.Errorf("words that hold in some version: %v", err)
	}
}

// A catalogue without versions, the first form of the file, holds for every version.
func TestParseWithoutVersions(t *testing.T) {
	c, err := catalogue.Parse("c.yaml", []byte(`
arches:
  x86_64:  {platform: linux/amd64}
  riscv64: {platform: linux/riscv64, since: 17.9.0}
config: {entrypoint: [/entrypoint]}
flavors:
  - {name: alpine, arches: [x86_64, riscv64], pwsh: [x86_64], default: [x86_64, riscv64], stand-in: alpine-latest}
  - {name: alpine-latest, arches: [x86_64, riscv64], pwsh: [x86_64]}
`))
	if err != nil {
		t.Fatal(err)
	}
	for version, want := range map[string]string{
		"15.8.0": "alpine-x86_64", "17.9.0": "alpine-x86_64 alpine-riscv64", "19.3.0": "alpine-x86_64 alpine-riscv64",
	} {
		if diff := cmp.Diff(want, strings.Join(names(c.Default(released(t, version))), " ")); diff != "" {
			t.Errorf("%s (-want +got):\n%s", version, diff)
		}
	}
	h, _ := c.Lookup("alpine-x86_64-pwsh")
	if got := h.StandIn(released(t, "15.8.0")); got != "alpine-latest-x86_64-pwsh" {
		t.Errorf("stand-in %q", got)
	}
	if h.ConfigAssumed(released(t, "19.3.0")) {
		t.Error("the config of a custom catalogue is called an assumption")
	}
	if tags := h.RegistryTags(released(t, "15.8.0")); len(tags) != 1 || tags[0].Missing != "" {
		t.Errorf("tags %+v, want one", tags)
	}
}

// From 17.8.0 on the config that a flat root filesystem has lost is not public.
func TestConfigAssumed(t *testing.T) {
	for _, row := range []struct {
		helper, version string
		want            bool
	}{
		{"alpine-x86_64", "15.8.0", false},
		{"ubi-fips-x86_64", "17.7.1", false},
		{"alpine-x86_64", "17.8.0", true},
		{"concrete-x86_64", "18.11.0", true},
		{"alpine-x86_64", "19.3.0", true},
	} {
		if got := lookup(t, row.helper).ConfigAssumed(released(t, row.version)); got != row.want {
			t.Errorf("%s %s: %v, want %v", row.helper, row.version, got, row.want)
		}
	}
	if !lookup(t, "alpine-x86_64").ConfigAssumed(catalogue.Version{}) {
		t.Error("latest: want an assumption")
	}
}

func TestVersions(t *testing.T) {
	for _, row := range []struct{ version, revision, want string }{
		{"", "", "RUNNER_VERSION is required"},
		{"19.3", "", `RUNNER_VERSION="19.3": want`},
		{"19.3.0; rm -rf", "", `RUNNER_VERSION="19.3.0; rm -rf": want`},
		{"19.3.0/../x", "", "want a version"},
		{"99999999999999999999.0.0", "", "want"},
		{"15.7.4", "12335144", "the oldest supported version is 15.8.0"},
		{"0.0.0", "12335144", "the oldest supported version is 15.8.0"},
		{"0.0.0~latest", "12335144", "the oldest supported version is 15.8.0"},
		{"15.8.9", "", "RUNNER_VERSION=15.8.9 needs RUNNER_REVISION: below 16.8.0 tags carry the git revision, and the revision of this version is not known"},
		{"15.8.0-rc1", "", "RUNNER_VERSION=15.8.0-rc1 needs RUNNER_REVISION"},
		{"15.8.0", "1233514", `RUNNER_REVISION="1233514": want 8 hex digits`},
		{"15.8.0", "1233514G", `RUNNER_REVISION="1233514G": want 8 hex digits`},
	} {
		_, err := catalogue.ParseVersion(row.version, row.revision)
		if err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%q %q: error %v, want one that holds %q", row.version, row.revision, err, row.want)
		}
	}
}

// Every line of revisions.tsv is a version and its revision, in ascending order.
func TestRevisions(t *testing.T) {
	all := versions(t)
	if len(all) < 139 {
		t.Errorf("%d versions, want 139 or more", len(all))
	}
	for i, version := range all {
		if v := released(t, version); i > 0 && v.Compare(released(t, all[i-1])) <= 0 {
			t.Errorf("%s follows %s", version, all[i-1])
		}
	}
	if got, want := "v"+catalogue.Newest().String(), all[len(all)-1]; got != want {
		t.Errorf("newest %s, want %s", got, want)
	}
	for version, want := range map[string]string{"15.8.0": "12335144", "17.9.0": "c4cbe9dd", "18.0.0": "d7f2cea7", "19.3.0": "9cbf0074"} {
		if got, _ := catalogue.KnownRevision(version); got != want {
			t.Errorf("%s: revision %s, want %s", version, got, want)
		}
	}
	for _, version := range []string{"", "latest", "15.8", "15.8.9", "v15.8.0", "15.8.0-rc1", "tag"} {
		if got, ok := catalogue.KnownRevision(version); ok {
			t.Errorf("%q: revision %s, want none", version, got)
		}
	}
}

// The revision is looked up only where tags carry it, and is in the tag only there.
func TestRevisionIsLookedUp(t *testing.T) {
	for _, row := range []struct{ version, revision, want, tag, warning string }{
		{"15.8.0", "", "12335144", "arm64-12335144", ""},
		{"v16.7.1", "", "3eda8038", "arm64-3eda8038", ""},
		{"16.7.9", "0123abcd", "0123abcd", "arm64-0123abcd", ""},
		{"16.8.0", "", "", "arm64-v16.8.0", ""},
		{"19.3.0", "9cbf0074", "9cbf0074", "arm64-v19.3.0", ""},
		{"19.9.9", "0123abcd", "0123abcd", "arm64-v19.9.9", ""},
		{"19.3.0-rc1", "0123abcd", "0123abcd", "arm64-v19.3.0", ""},
		{"19.4.0~beta.7.g0123abc", "", "", "arm64-v19.4.0", ""},
		{"latest", "0123abcd", "0123abcd", "arm64-latest", ""},
		{"19.3.0", "0123abcd", "0123abcd", "arm64-v19.3.0", "RUNNER_REVISION=0123abcd, but GitLab Runner 19.3.0 was released from 9cbf0074"},
		{"15.8.0", "0123abcd", "0123abcd", "arm64-0123abcd", "RUNNER_REVISION=0123abcd, but GitLab Runner 15.8.0 was released from 12335144; the tags fit only a Runner built from 0123abcd"},
	} {
		v, err := catalogue.ParseVersion(row.version, row.revision)
		if err != nil {
			t.Fatal(err)
		}
		if tag := lookup(t, "alpine-arm64").Tag(v); v.Revision() != row.want || tag != row.tag || v.RevisionWarning() != row.warning {
			t.Errorf("%s %q: revision %q, tag %q, warning %q, want %q, %q, %q", row.version, row.revision, v.Revision(), tag, v.RevisionWarning(), row.want, row.tag, row.warning)
		}
	}
}

// What an installed Runner reports is read by Runner's own rule (testdata/README.md).
func TestInstalledVersion(t *testing.T) {
	for _, row := range []struct{ version, revision, want, tag string }{
		{"19.3.0", "9cbf0074", "19.3.0", "x86_64-v19.3.0"},
		{"17.9.0~pre.88.gabc", "abc", "17.9.0~pre.88.gabc", "x86_64-v17.9.0"},
		{"17.9.0-rc1", "", "17.9.0-rc1", "x86_64-v17.9.0"},
		{"17.9.0+b", "", "17.9.0+b", "x86_64-v17.9.0"},
		{"17.9", "c4cbe9dd", "latest", "x86_64-latest"},
		{"v17.9.0", "c4cbe9dd", "latest", "x86_64-latest"},
		{"development version", "HEAD", "latest", "x86_64-latest"},
		{"", "", "latest", "x86_64-latest"},
		{"19.3.0", "HEAD", "19.3.0", "x86_64-v19.3.0"},
		{"16.7.1", "HEAD", "16.7.1", "x86_64-latest"},
		{"16.7.1", "3eda8038", "16.7.1", "x86_64-3eda8038"},
		{"15.8.0", "deadbeef", "15.8.0", "x86_64-deadbeef"},
		{"15.8.0", "", "15.8.0", "x86_64-12335144"},
		{"15.8.0~beta.1.gabc", "", "15.8.0~beta.1.gabc", ""}, // unknown is an answer
		{"14.0.0", "3b6f852e", "14.0.0", "x86_64-3b6f852e"},
		{"20.1.0", "", "20.1.0", "x86_64-v20.1.0"},
		{"99999999999999999999.0.0", "", "latest", "x86_64-latest"},
	} {
		v := catalogue.InstalledVersion(row.version, row.revision)
		if got := v.Lookup(catalogue.Request{Arch: "amd64"}).Tag; v.String() != row.want || got != row.tag {
			t.Errorf("%q %q: %s asks for %q, want %s and %q", row.version, row.revision, v, got, row.want, row.tag)
		}
	}
}

// Callers compare an installed Runner with Newest to report that it is newer than the tables.
func TestCompare(t *testing.T) {
	ascending := []string{"14.0.0", "15.8.0", "15.10.0", "16.0.0", "19.3.0", "100.0.0", "development version"}
	for i, a := range ascending {
		for j, b := range ascending {
			got := catalogue.InstalledVersion(a, "").Compare(catalogue.InstalledVersion(b, ""))
			if want := stdcmp.Compare(i, j); got != want {
				t.Errorf("%s and %s: %d, want %d", a, b, got, want)
			}
		}
	}
}

func TestParseRefuses(t *testing.T) {
	const arches = "arches:\n  x86_64: {platform: linux/amd64}\n"
	for _, row := range []struct{ text, want string }{
		{"", "c.yaml: empty"},
		{"flavours: []\n", "line 1: field flavours not found"},
		{arches + "flavors:\n  - name: a\n    arch: [x86_64]\n", "line 5: field arch not found"},
		{arches + "flavors: [{name: a, arches: [x86_64]}]\n---\nmore: 1\n", "more than one YAML document"},
		{arches + arches, `line 3: mapping key "arches" already defined at line 1`},
		{arches + "flavors: [{name: A_B, arches: [x86_64]}]", `flavor "A_B": not of the form`},
		{arches + "flavors: [{name: ../a, arches: [x86_64]}]", `flavor "../a": not of the form`},
		{arches + "flavors: [{name: a, arches: [mips]}]", `flavor a: arch "mips" is not in arches`},
		{arches + "flavors: [{name: a, arches: [x86_64, x86_64]}]", "two rows are called a-x86_64"},
		{arches + "flavors: [{name: a, arches: [x86_64], default: [arm]}]", `flavor a: default "arm" is not one of its rows`},
		{arches + "flavors: [{name: a, arches: [x86_64], stand-in: b}]", "a-x86_64: stand-in b-x86_64 is not another helper that exists always"},
		{arches + "flavors: [{name: a, arches: [x86_64], stand-in: a}]", "a-x86_64: stand-in a-x86_64 is not another helper"},
		{"arches: {x86_64: {platform: windows/amd64}}\nflavors: [{name: a, arches: [x86_64]}]", `platform "windows/amd64": want linux/arch`},
		{"arches: {x86_64: {platform: linux/amd64, since: 17}}\nflavors: [{name: a, arches: [x86_64]}]", `since "17": want X.Y.Z`},
		{"arches: {x86_64: {platform: linux/amd64, before: 17.0}}\nflavors: [{name: a, arches: [x86_64]}]", `arch x86_64: before "17.0": want X.Y.Z`},
		{"arches: {all: {platform: linux/amd64}}\nflavors: [{name: a, arches: [all]}]", `arch "all": reserved`},
		{arches + "flavors: [{name: a, since: 17.0.0, before: 17.0.0, arches: [x86_64]}]", "flavor a: since 17.0.0 before 17.0.0: no version is in this range"},
		{arches + "flavors: [{name: a, since: 17.0.0, arches: [x86_64 before 17.0.0]}]", `flavor a: arches "x86_64": no version has both flavor and arch`},
		{arches + "flavors: [{name: a, arches: [x86_64 from 17.0.0]}]", `flavor a: arches "x86_64 from 17.0.0": want WORD [since X.Y.Z] [before X.Y.Z]`},
		{arches + "flavors: [{name: a, arches: [x86_64 before 18.0.0 since 17.0.0]}]", "want WORD [since X.Y.Z] [before X.Y.Z]"},
		{arches + "flavors: [{name: a, arches: [x86_64 since -1.0.0]}]", `since "-1.0.0": want X.Y.Z`},
		{arches + "flavors: [{name: a, arches: [x86_64 before 17.0.0, x86_64 since 16.0.0]}]", "two rows are called a-x86_64"},
		{arches + "flavors: [{name: a, arches: [x86_64]}, {name: a, arches: [x86_64]}]", "a-x86_64 and a-x86_64 would have one name a-x86_64"},
		{arches + "flavors: [{name: a, arches: [x86_64], release: [arm]}]", `flavor a: release "arm" is not one of its rows`},
		{arches + "flavors: [{name: a, arches: [x86_64], not-pushed: [arm]}]", `flavor a: not-pushed "arm" is not one of its rows`},
		{arches + "flavors: [{name: a, arches: [x86_64], stand-in: {b: c}}]", "cannot unmarshal"},
		{arches + "flavors: [{name: a, arches: [x86_64], stand-in: b since 17.0.0}, {name: b, before: 17.0.0, arches: [x86_64]}]", "a-x86_64: stand-in b-x86_64 is not another helper that exists since 17.0.0"},
		{arches + "flavors: [{name: a, arches: [x86_64], stand-in: [b, b since 17.0.0]}, {name: b, arches: [x86_64]}]", "a-x86_64: two stand-ins since 17.0.0"},
		{arches + "config: {assumed-since: 17}\nflavors: [{name: a, arches: [x86_64]}]", `config: assumed-since "17": want X.Y.Z`},
		{arches + "flavors: [{name: a, arches: [x86_64], config: {assumed-since: x}}]", `flavor a: config: assumed-since "x": want X.Y.Z`},
		{arches, "no flavors"},
		{"a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\n", "not found"},
	} {
		_, err := catalogue.Parse("c.yaml", []byte(row.text))
		if err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%q:\nerror %v\nwant  one that holds %q", row.text, err, row.want)
		}
	}
}

// A name that rpm, deb or a registry does not allow is rejected before anything is built.
func TestRefusesBadNames(t *testing.T) {
	long := strings.Repeat("a", 41)
	for _, flavor := range []string{"", "a_b", "A", "a~b", "a+b", ".a", "-a", "..", "a b", "a/b", "a\\nb", "a:b", "é", long} {
		refused(t, `arches: {x86_64: {platform: linux/amd64}}`+"\n"+`flavors: [{name: "`+flavor+`", arches: [x86_64]}]`, "not of the form")
	}
	for _, arch := range []string{"", "X", "~x", ".x", "-x", "x y", "x/y", "x\\ty", "x+y", long} {
		refused(t, `arches: {"`+arch+`": {platform: linux/amd64}}`+"\n"+`flavors: [{name: a, arches: ["`+arch+`"]}]`, "not of the form")
	}
	for _, platform := range []string{"", "linux", "linux/", "linux/AMD64", "linux/x_y", "linux/a/b/c", "linux/arm/v7:1", "linux/arm/", "darwin/arm64", "linux/../x", "linux/a b", "linux/" + long} {
		refused(t, `arches: {x: {platform: "`+platform+`"}}`+"\n"+"flavors: [{name: a, arches: [x]}]", "want linux/arch")
	}
	refused(t, "arches: {x: {platform: linux/arm/v7}, y: {platform: linux/arm/v6}}\nflavors: [{name: a, arches: [x, y]}]", "a-x and a-y would have one package a-arm")
	refused(t, "arches: {x-y: {platform: linux/amd64}, y: {platform: linux/arm}}\nflavors: [{name: alpine, arches: [x-y]}, {name: x, arches: [y]}]", "alpine-x-y and x-y would have one tag x-y-latest")
}

func refused(t *testing.T, text, want string) {
	t.Helper()
	if _, err := catalogue.Parse("c.yaml", []byte(text)); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%s:\nerror %v, want one that holds %q", text, err, want)
	}
}

func TestRefusesBadVersions(t *testing.T) {
	for _, version := range []string{
		"19.3", "19.3.0.1", "19.3.0-", "19.3.0--", "19.3.0+", "19.3.0_1", "19.3.0:1", "19.3.0 ", " 19.3.0", "19.3.0\n", "19.3.0-a/b", "19.3.0-é",
		"999999.0.0", "19.3.0-" + strings.Repeat("a", 64), "Latest", "v", "vv19.3.0", "-1.0.0", "19.3.x", "0x13.3.0", "19.3.0-$(id)", "19.3.0-{{.}}",
	} {
		if v, err := catalogue.ParseVersion(version, ""); err == nil {
			t.Errorf("%q: accepted as %s", version, v)
		}
	}
}

// The longest names that Parse and ParseVersion accept are valid tags and file names.
func TestLongestNames(t *testing.T) {
	flavor, arch := strings.Repeat("f", 40), strings.Repeat("a", 40)
	c, err := catalogue.Parse("c.yaml", []byte("arches: {"+arch+": {platform: linux/amd64}}\nflavors: [{name: "+flavor+", pwsh: ["+arch+"]}]"))
	if err != nil {
		t.Fatal(err)
	}
	v, err := catalogue.ParseVersion("99999.99999.99999-rc"+strings.Repeat("1", 61), "")
	if err != nil {
		t.Fatal(err)
	}
	h := c.Helpers()[0]
	if tag := h.Tag(v); !regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$`).MatchString(tag) { // OCI distribution-spec v1.1
		t.Errorf("tag %s has %d characters", tag, len(tag))
	}
	if name := "gitlab-runner-helper-images-" + h.PackageSuffix() + "_" + v.String() + "-1048576_ppc64el.deb"; len(name) > 240 {
		t.Errorf("file name has %d characters: %s", len(name), name)
	}
}

// All mistakes are reported at once.
func TestParseReportsAll(t *testing.T) {
	_, err := catalogue.Parse("c.yaml", []byte("arches: {x86_64: {platform: plan9/amd64}}\nflavors: [{name: a, arches: [arm]}, {name: b, arches: [mips]}]"))
	if err == nil || strings.Count(err.Error(), "c.yaml: ") != 3 {
		t.Errorf("error %v, want three", err)
	}
}

func TestInputs(t *testing.T) {
	want := []string{
		"alpine-arm.tar", "prebuilt-alpine-arm.tar", "prebuilt-alpine-arm.tar.xz", "prebuilt-alpine-arm.tar.gz",
		"prebuilt-alpine-arm.tar.zst", "prebuilt-alpine-arm.tar.bz2", "prebuilt-alpine-arm.docker.tar.zst",
	}
	if diff := cmp.Diff(want, lookup(t, "alpine-arm").Inputs()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// A file name of one helper is never one of another's.
func TestInputsAreUnambiguous(t *testing.T) {
	var all []string
	for _, h := range shipped(t).Helpers() {
		all = append(all, h.Inputs()...)
	}
	slices.Sort(all)
	if got := slices.Compact(slices.Clone(all)); len(got) != len(all) {
		t.Errorf("%d names for %d inputs", len(got), len(all))
	}
}

func FuzzParse(f *testing.F) {
	shipped, err := os.ReadFile("../../helper-images/catalogue.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(shipped)
	f.Add([]byte("arches: {x86_64: {platform: linux/amd64}}\nflavors: [{name: a, arches: [x86_64]}]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := catalogue.Parse("c.yaml", data)
		if err != nil {
			return
		}
		for _, h := range c.Helpers() {
			if strings.ContainsAny(h.File(), "/\x00 ") {
				t.Errorf("file name %q", h.File())
			}
		}
	})
}
