package catalogue_test

import (
	"regexp"
	"strings"
	"testing"

	"pretag/build/catalogue"
)

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
