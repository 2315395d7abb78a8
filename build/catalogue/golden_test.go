package catalogue_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"pretag/build/catalogue"
	helperimages "pretag/helper-images"
)

// shipped returns the catalogue that the project ships.
func shipped(tb testing.TB) *catalogue.Catalogue {
	tb.Helper()
	c, err := catalogue.Parse("catalogue.yaml", helperimages.Catalogue)
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

// released returns the released version v19.3.0 or 19.3.0, with its revision.
func released(tb testing.TB, version string) catalogue.Version {
	tb.Helper()
	revision, ok := catalogue.KnownRevision(strings.TrimPrefix(version, "v"))
	if !ok {
		tb.Fatalf("%s is not a released version", version)
	}
	v, err := catalogue.ParseVersion(version, revision)
	if err != nil {
		tb.Fatal(err)
	}
	return v
}

// A table is a file of testdata, whose README says where it comes from: the rows
// by the names of their columns.
func table(tb testing.TB, file string) []map[string]string {
	tb.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", file))
	if err != nil {
		tb.Fatal(err)
	}
	lines := strings.Split(strings.TrimRight(string(data), "\n"), "\n")
	columns := strings.Split(lines[0], "\t")
	var rows []map[string]string
	for _, line := range lines[1:] {
		values := strings.Split(line, "\t")
		if len(values) != len(columns) {
			tb.Fatalf("%s: %d columns, want %d: %q", file, len(values), len(columns), line)
		}
		row := map[string]string{}
		for i, column := range columns {
			row[column] = values[i]
		}
		rows = append(rows, row)
	}
	return rows
}

// versions returns the released versions in the order of their release numbers.
func versions(tb testing.TB) []string {
	tb.Helper()
	var versions []string
	for line := range strings.Lines(helperimages.Revisions) {
		if tag, _, _ := strings.Cut(line, "\t"); tag != "tag" {
			versions = append(versions, tag)
		}
	}
	return versions
}

// tablesEnd is the newest version that the tables of testdata were made for. A
// row that holds there is taken to hold for later versions too, as in the
// catalogue, so that a release that changes nothing needs no new line.
const tablesEnd = "v19.3.0"

// in returns the versions from first to last of a row, which it includes.
func in(tb testing.TB, row map[string]string) []string {
	tb.Helper()
	all := versions(tb)
	first, last := slices.Index(all, row["first"]), slices.Index(all, row["last"])
	if first < 0 || last < first {
		tb.Fatalf("versions %s to %s are not in revisions.tsv", row["first"], row["last"])
	}
	if row["last"] == tablesEnd {
		last = len(all) - 1
	}
	return all[first : last+1]
}

// TestLookup compares Lookup with what Runner's own code asked for, for every
// row of names.tsv and every version in its range.
func TestLookup(t *testing.T) {
	words := map[string]string{} // Runner's word for the engine's
	var tested []string
	for _, row := range table(t, "arches.tsv") {
		tested = append(tested, row["engine_word"])
		words[row["engine_word"]] = row["runner_word"]
	}
	rows := table(t, "names.tsv")
	key := func(row map[string]string, flavor string) string {
		return row["first"] + " " + row["FF_CONCRETE"] + " " + flavor
	}
	own := map[string]bool{} // flavors with rows of their own
	for _, row := range rows {
		own[key(row, row["flavor"])] = true
	}

	cases, mismatches := 0, 0
	for _, row := range rows {
		flavors := []string{strings.Trim(row["flavor"], `"`)}
		if row["flavor"] == "<flavor>" {
			flavors = slices.DeleteFunc(
				[]string{"alpine-edge", "alpine-latest", "alpine3.21", "ubuntu", "ubi-fips", "concrete", "concrete-x", "my.own"},
				func(flavor string) bool { return own[key(row, flavor)] },
			)
		}
		arches := strings.Fields(row["engine_arch"])
		if but, ok := strings.CutPrefix(row["engine_arch"], "all tested"); ok {
			arches = slices.DeleteFunc(slices.Clone(tested), func(arch string) bool { return slices.Contains(strings.Fields(but), arch) })
		}
		concretes := map[string][]bool{"any": {false, true}, "off": {false}, "on": {true}}[row["FF_CONCRETE"]]
		for _, version := range in(t, row) {
			v := released(t, version)
			for _, flavor := range flavors {
				for _, arch := range arches {
					spell := strings.NewReplacer("<arch>", words[arch], "<flavor>", flavor, "<rev8>", v.Revision(), "<vX.Y.Z>", version).Replace
					wantFiles := strings.Fields(spell(row["files_tried_in_order"]))
					for _, shell := range strings.Fields(row["shell"]) {
						for _, concrete := range concretes {
							request := catalogue.Request{Flavor: flavor, Arch: arch, Shell: strings.Trim(shell, `"`), Concrete: concrete}
							got := v.Lookup(request)
							cases++
							if got.Tag != spell(row["image_tag"]) || !slices.Equal(got.Files, wantFiles) {
								if mismatches++; mismatches <= 10 {
									t.Errorf("%s %+v:\ngot  %+v\nwant %s %v", version, request, got, spell(row["image_tag"]), wantFiles)
								}
							}
						}
					}
				}
			}
		}
	}
	t.Logf("%d cases of %d rows, %d mismatches", cases, len(rows), mismatches)
}

// The names of the catalogue's helpers are the ones that Lookup returns.
func TestHelpersAreLookedUp(t *testing.T) {
	cases := 0
	for _, version := range versions(t) {
		v := released(t, version)
		for _, h := range shipped(t).Existing(v) {
			got := v.Lookup(catalogue.Request{Flavor: h.Flavor, Arch: h.Arch, Shell: h.Shell})
			cases++
			if got.Tag != h.Tag(v) {
				t.Errorf("%s %s: tag %s, Runner asks for %s", v, h, h.Tag(v), got.Tag)
			}
			if !v.Before("17.9.0") && got.Files[0] != h.File() {
				t.Errorf("%s %s: file %s, Runner tries %s first", v, h, h.File(), got.Files[0])
			}
		}
	}
	t.Logf("%d cases", cases)
}

// helpersOf spells out a row of built.tsv.
func helpersOf(flavor string, row map[string]string) []string {
	var names []string
	for _, arch := range strings.Split(row["archs"], ",") {
		names = append(names, flavor+"-"+arch)
	}
	for _, arch := range strings.Split(row["pwsh_archs"], ",") {
		if arch != "-" {
			names = append(names, flavor+"-"+arch+"-pwsh")
		}
	}
	return names
}

// compareSets compares a set of the catalogue with the tables, for every version.
func compareSets(t *testing.T, got func(catalogue.Version) []catalogue.Helper, want func(version string) []string) {
	t.Helper()
	cases := 0
	for _, version := range versions(t) {
		want, got := want(version), names(got(released(t, version)))
		slices.Sort(want)
		slices.Sort(got)
		if len(want) == 0 {
			t.Errorf("%s: the tables have nothing", version)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", version, diff)
		}
		cases += len(want)
	}
	t.Logf("%d versions, %d helpers", len(versions(t)), cases)
}

// built returns what built.tsv has in a channel for a version, Windows excepted.
func built(t *testing.T, channel, version string) []string {
	t.Helper()
	var names []string
	for _, row := range table(t, "built.tsv") {
		if row["channel"] != channel || strings.Contains(row["flavor_or_tag"], "windows") || !slices.Contains(in(t, row), version) {
			continue
		}
		if row["flavor_or_tag"] == "ALL" {
			return built(t, "prebuilt built (.tar.xz)", version)
		}
		names = append(names, helpersOf(row["flavor_or_tag"], row)...)
	}
	return names
}

func TestExisting(t *testing.T) {
	compareSets(t, shipped(t).Existing, func(version string) []string { return built(t, "prebuilt built (.tar.xz)", version) })
}

func TestReleased(t *testing.T) {
	release := func(v catalogue.Version) []catalogue.Helper {
		helpers, err := shipped(t).Select([]string{"release"}, v)
		if err != nil {
			t.Fatal(err)
		}
		return helpers
	}
	compareSets(t, release, func(version string) []string { return built(t, "S3 upload", version) })
}

// The default set is what Runner's own package carries: gitlab-runner, and
// gitlab-runner-helper-images from 17.7.0 on.
func TestDefault(t *testing.T) {
	for _, format := range []string{"deb", "rpm"} {
		compareSets(t, shipped(t).Default, func(version string) []string {
			var names []string
			for _, row := range table(t, "packages.tsv") {
				files := row["prebuilt_files_in_/usr/lib/gitlab-runner/helper-images"]
				if row["type"] != format || row["package"] == "gitlab-runner-fips" || files == "-" || !slices.Contains(in(t, row), version) {
					continue
				}
				for _, file := range strings.Fields(files) {
					names = append(names, strings.TrimSuffix(strings.TrimPrefix(file, "prebuilt-"), ".tar.xz"))
				}
			}
			return names
		})
	}
}

// A stand-in is what built.tsv calls a copy or a link.
func TestStandIns(t *testing.T) {
	c, cases := shipped(t), 0
	for _, row := range table(t, "built.tsv") {
		if row["channel"] != "prebuilt built (.tar.xz)" {
			continue
		}
		original, copied := strings.CutPrefix(row["base_or_source"], "copy of ")
		if !copied {
			original, copied = strings.CutPrefix(row["base_or_source"], "link of ")
		}
		for _, version := range in(t, row) {
			for _, name := range helpersOf(row["flavor_or_tag"], row) {
				want := ""
				if copied {
					want = original + strings.TrimPrefix(name, row["flavor_or_tag"])
				}
				h, _ := c.Lookup(name)
				cases++
				if got := h.StandIn(released(t, version)); got != want {
					t.Errorf("%s %s: stand-in %q, want %q", version, name, got, want)
				}
			}
		}
	}
	t.Logf("%d cases", cases)
}

// pushed returns the tags that built.tsv has for the registry, each with the
// flavors that it may name.
func pushed(t *testing.T, v catalogue.Version) map[string][]string {
	t.Helper()
	word := "v" + v.String()
	if v.Before("16.8.0") || v.String() == "17.8.0" {
		word = v.Revision()
	}
	tags := map[string][]string{}
	for _, row := range table(t, "built.tsv") {
		flavor := row["flavor_or_tag"]
		if row["channel"] != "registry push" || strings.Contains(flavor, "windows") || !slices.Contains(in(t, row), "v"+v.String()) {
			continue
		}
		var prefixes []string
		source := flavor
		if prefix, ok := strings.CutPrefix(flavor, "tag prefix "); ok { // from 17.8.0 on
			prefixes, source = []string{prefix + "-"}, strings.TrimPrefix(row["base_or_source"], "from ")
		} else {
			prefixes = strings.Split(strings.TrimPrefix(row["base_or_source"], "tag prefixes "), ", ")
		}
		for _, prefix := range prefixes {
			prefix = strings.TrimPrefix(strings.TrimPrefix(prefix, "<none>-"), "<none>")
			for _, arch := range strings.Split(row["archs"], ",") {
				tags[prefix+arch+"-"+word] = append(tags[prefix+arch+"-"+word], source)
			}
			for _, arch := range strings.Split(row["pwsh_archs"], ",") {
				tags[prefix+arch+"-"+word+"-pwsh"] = append(tags[prefix+arch+"-"+word+"-pwsh"], source)
			}
		}
	}
	return tags
}

// A tag that the release did not push has a reason and a fallback, which was
// pushed and names the same image; every other tag was pushed.
func TestRegistryTags(t *testing.T) {
	cases, missing := 0, 0
	for _, version := range versions(t) {
		v := released(t, version)
		pushed := pushed(t, v)
		for _, h := range shipped(t).Existing(v) {
			tags := h.RegistryTags(v)
			cases++
			if tags[0].Tag != h.Tag(v) {
				t.Errorf("%s %s: first tag %s, want %s", v, h, tags[0].Tag, h.Tag(v))
			}
			_, ok := pushed[tags[0].Tag]
			if ok != (tags[0].Missing == "") {
				t.Errorf("%s %s: %s pushed: %v, reason %q", v, h, tags[0].Tag, ok, tags[0].Missing)
			}
			if ok {
				continue
			}
			missing++
			if len(tags) != 2 || tags[1].Missing != "" {
				t.Errorf("%s %s: tags %+v, want a fallback", v, h, tags)
				continue
			}
			standIn, _ := shipped(t).Lookup(h.StandIn(v))
			sources := pushed[tags[1].Tag]
			if !slices.Contains(sources, h.Flavor) && !slices.Contains(sources, standIn.Flavor) {
				t.Errorf("%s %s: fallback %s was pushed from %v, want %s or %s", v, h, tags[1].Tag, sources, h.Flavor, standIn.Flavor)
			}
		}
	}
	t.Logf("%d tags, %d of them not pushed", cases, missing)

	for _, row := range []struct{ helper, version, want string }{
		{"alpine-x86_64", "19.3.0", "x86_64-v19.3.0"},
		{"alpine-x86_64", "17.8.0", "x86_64-v17.8.0 (GitLab Runner 17.8.0 pushed only tags with the git revision) x86_64-e4f782b3"},
		{"alpine-arm", "17.8.0", "arm-v17.8.0 (GitLab Runner 17.8.0 pushed only tags with the git revision and alpine-arm only as alpine3.18) alpine3.18-arm-e4f782b3"},
		{"alpine-arm", "17.8.1", "arm-v17.8.1 (GitLab Runner 17.8.1 pushed alpine-arm only as alpine3.18) alpine3.18-arm-v17.8.1"},
		{"alpine-x86_64-pwsh", "15.8.0", "x86_64-12335144-pwsh (GitLab Runner 15.8.0 pushed alpine-x86_64-pwsh only as alpine3.12) alpine3.12-x86_64-12335144-pwsh"},
		{"alpine-riscv64", "18.3.0", "riscv64-v18.3.0 (GitLab Runner 18.3.0 pushed alpine-riscv64 only as alpine3.21) alpine3.21-riscv64-v18.3.0"},
		{"alpine-riscv64", "18.8.0", "riscv64-v18.8.0"},
	} {
		var got []string
		for _, tag := range lookup(t, row.helper).RegistryTags(released(t, row.version)) {
			got = append(got, tag.Tag)
			if tag.Missing != "" {
				got = append(got, "("+tag.Missing+")")
			}
		}
		if diff := cmp.Diff(row.want, strings.Join(got, " ")); diff != "" {
			t.Errorf("%s %s (-want +got):\n%s", row.version, row.helper, diff)
		}
	}
}

// What a host asks for by default exists for every architecture with images.
func TestDefaultHelper(t *testing.T) {
	c := shipped(t)
	for _, row := range []struct{ version, goarch, want string }{
		{"15.8.0", "amd64", "alpine-x86_64"},
		{"15.8.0", "arm", "alpine-arm"},
		{"15.8.0", "riscv64", ""},
		{"16.2.3", "riscv64", ""},
		{"16.3.0", "riscv64", "alpine-edge-riscv64"},
		{"17.9.0", "riscv64", "alpine-edge-riscv64"}, // alpine-riscv64 exists too
		{"18.2.2", "riscv64", "alpine-edge-riscv64"},
		{"18.2.2", "ppc64le", "alpine-ppc64le"},
		{"18.3.0", "riscv64", "alpine-riscv64"},
		{"19.3.0", "riscv64", "alpine-riscv64"},
		{"19.3.0", "arm64", "alpine-arm64"},
		{"19.3.0", "loong64", ""},
		{"19.3.0", "386", ""},
	} {
		got, ok := c.DefaultHelper(released(t, row.version), row.goarch)
		if ok != (row.want != "") || ok && got.String() != row.want {
			t.Errorf("%s %s: %s %v, want %q", row.version, row.goarch, got, ok, row.want)
		}
	}
	if h, ok := c.DefaultHelper(catalogue.Version{}, "riscv64"); !ok || h.String() != "alpine-riscv64" {
		t.Errorf("latest: %s %v", h, ok)
	}
}
