package catalogue_test

import (
	"os"
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

// Each row says where GitLab Runner makes the tag or looks for the file. The
// paths are in gitlab-org/gitlab-runner at the tag of the version.
func TestNames(t *testing.T) {
	const (
		info158  = "v15.8.0 helpers/container/helperimage/linux_info.go: architecture, Create"
		info168  = "v16.8.0 helpers/container/helperimage/info.go: Version"
		info1811 = "v19.3.0 helpers/container/helperimage/linux_info.go: concrete"
		info193  = "v19.3.0 helpers/container/helperimage/linux_info.go: Create"
		main     = "v19.3.0 helpers/container/helperimage/info.go: no match of versionPattern"
	)
	for _, row := range []struct {
		helper, version, revision string
		tag, file, source         string
	}{
		{"alpine-x86_64", "15.8.0", "12335144", "x86_64-12335144", "prebuilt-alpine-x86_64.docker.tar.zst", info158},
		{"alpine-x86_64-pwsh", "15.8.0", "12335144", "x86_64-12335144-pwsh", "prebuilt-alpine-x86_64-pwsh.docker.tar.zst", info158},
		{"alpine-arm", "15.8.0", "12335144", "arm-12335144", "prebuilt-alpine-arm.docker.tar.zst", info158},
		{"ubuntu-ppc64le", "15.8.0", "12335144", "ubuntu-ppc64le-12335144", "prebuilt-ubuntu-ppc64le.docker.tar.zst", info158},
		{"ubi-fips-x86_64", "15.8.0", "12335144", "ubi-fips-x86_64-12335144", "prebuilt-ubi-fips-x86_64.docker.tar.zst", info158},
		{"alpine-arm64", "16.7.9", "0123abcd", "arm64-0123abcd", "prebuilt-alpine-arm64.docker.tar.zst", info158},
		{"alpine-arm64", "16.8.0", "", "arm64-v16.8.0", "prebuilt-alpine-arm64.docker.tar.zst", info168},
		{"alpine-s390x", "v19.3.0", "", "s390x-v19.3.0", "prebuilt-alpine-s390x.docker.tar.zst", info193},
		{"alpine-s390x", "19.3.0", "9cbf0074", "s390x-v19.3.0", "prebuilt-alpine-s390x.docker.tar.zst", info193},
		{"alpine-latest-riscv64", "19.3.0", "", "alpine-latest-riscv64-v19.3.0", "prebuilt-alpine-latest-riscv64.docker.tar.zst", info193},
		{"alpine3.21-x86_64-pwsh", "19.3.0", "", "alpine3.21-x86_64-v19.3.0-pwsh", "prebuilt-alpine3.21-x86_64-pwsh.docker.tar.zst", info193},
		{"ubuntu-arm64-pwsh", "19.3.0", "", "ubuntu-arm64-v19.3.0-pwsh", "prebuilt-ubuntu-arm64-pwsh.docker.tar.zst", info193},
		{"concrete-x86_64", "19.3.0", "", "concrete-x86_64-v19.3.0", "prebuilt-concrete-x86_64.docker.tar.zst", info1811},
		{"alpine-x86_64", "19.4.0~beta.7.g0123abc", "", "x86_64-v19.4.0", "prebuilt-alpine-x86_64.docker.tar.zst", info193},
		{"alpine-x86_64", "latest", "", "x86_64-latest", "prebuilt-alpine-x86_64.docker.tar.zst", main},
	} {
		v, err := catalogue.ParseVersion(row.version, row.revision)
		if err != nil {
			t.Fatal(err)
		}
		h := lookup(t, row.helper)
		if got := h.Tag(v); got != row.tag {
			t.Errorf("%s %s: tag %s, want %s (%s)", h, v, got, row.tag, row.source)
		}
		if got := h.File(); got != row.file {
			t.Errorf("%s: file %s, want %s", h, got, row.file)
		}
	}
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
		{arches, "no flavors"},
		{"a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\n", "not found"},
	} {
		_, err := catalogue.Parse("c.yaml", []byte(row.text))
		if err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%q:\nerror %v\nwant  one that holds %q", row.text, err, row.want)
		}
	}
}

// All rows that cannot be are reported at once.
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
