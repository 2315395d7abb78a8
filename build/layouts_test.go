package build

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/goreleaser/nfpm/v2"
	_ "github.com/goreleaser/nfpm/v2/deb"
	"github.com/goreleaser/nfpm/v2/files"
	_ "github.com/goreleaser/nfpm/v2/rpm"

	"pretag/build/catalogue"
	"pretag/build/testutil"
)

// runnersOwn makes the package that carries the helper images of a Runner
// version, laid out as Runner lays it out, and returns the names of the images
// in it. layout is a row of catalogue/testdata/packages.tsv.
func runnersOwn(t *testing.T, layout []string, version, file string) (helpers []string) {
	t.Helper()
	dir := t.TempDir()
	var contents files.Contents
	add := func(destination string, body []byte) {
		source := filepath.Join(dir, filepath.Base(destination))
		if err := os.WriteFile(source, body, 0o644); err != nil {
			t.Fatal(err)
		}
		contents = append(contents, &files.Content{Source: source, Destination: destination})
	}
	for _, name := range strings.Fields(layout[len(layout)-1]) {
		helper := strings.TrimSuffix(strings.TrimPrefix(name, "prebuilt-"), ".tar.xz")
		helpers = append(helpers, helper)
		add("/usr/lib/gitlab-runner/helper-images/"+name, testutil.Rootfs(t, helper))
	}
	if layout[2] == "gitlab-runner" {
		revision, _ := catalogue.KnownRevision(version)
		add("/usr/bin/gitlab-runner", []byte("gitlab.com/gitlab-org/gitlab-runner/common.REVISION="+revision+" "))
	}
	format := layout[3]
	makePackage(t, format, file, &nfpm.Info{Name: layout[2], Version: version, Release: "1", Overridables: nfpm.Overridables{Contents: contents}})
	slices.Sort(helpers)
	return helpers
}

// makePackage writes a package for every architecture to file.
func makePackage(t *testing.T, format, file string, info *nfpm.Info) {
	t.Helper()
	packager, err := nfpm.Get(format)
	if err != nil {
		t.Fatal(err)
	}
	info.Arch, info.Maintainer, info.MTime = "all", "GitLab Inc. <support@gitlab.com>", testutil.Created()
	info = nfpm.WithDefaults(info)
	if err := nfpm.PrepareForPackager(info, format); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(packager.Package(info, f), f.Close()); err != nil {
		t.Fatal(err)
	}
}

// layout returns the row of packages.tsv for the package that carries the helper
// images of a version.
func layout(t *testing.T, version, format string) []string {
	t.Helper()
	table, err := os.ReadFile("catalogue/testdata/packages.tsv")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(strings.TrimSpace(string(table)), "\n")[1:] {
		row := strings.Split(line, "\t")
		first := catalogue.InstalledVersion(strings.TrimPrefix(row[0], "v"), "")
		last := catalogue.InstalledVersion(strings.TrimPrefix(row[1], "v"), "")
		v := catalogue.InstalledVersion(version, "")
		if row[2] != "gitlab-runner-fips" && row[3] == format && row[len(row)-1] != "-" && v.Compare(first) >= 0 && v.Compare(last) <= 0 {
			return row
		}
	}
	t.Fatalf("packages.tsv has no %s of %s with helper images", format, version)
	return nil
}

// Runner's own package of any version can be rebuilt with the command that
// unpack prints, which needs no HELPERS.
func TestRebuildRunnersOwnPackage(t *testing.T) {
	for _, row := range []struct{ version, format, layout string }{
		{"15.8.0", "deb", "single"},
		{"16.3.0", "rpm", "split"},
		{"17.7.1", "deb", "split"},
		{"18.2.2", "rpm", "single"},
		{"19.3.0", "deb", "split"},
	} {
		t.Run(row.version, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "own."+row.format)
			want := runnersOwn(t, layout(t, row.version, row.format), row.version, file)

			variables := map[string]string{"RUNNER_VERSION": row.version, "ARCHIVE_COMPRESSION": "zstd:fastest", "PACKAGE_LAYOUT": row.layout}
			c := fetchConfig(t, variables)
			c.LoaderArches = []string{} // they are tested elsewhere
			var out, printed bytes.Buffer
			if err := Unpack(t.Context(), c, file, &UI{Out: &out, Err: &printed}); err != nil {
				t.Fatal(err)
			}
			command := "    RUNNER_VERSION=" + row.version + " PACKAGES_ITERATION=1 go tool mage package\n"
			if !strings.Contains(printed.String(), command) {
				t.Errorf("unpack printed\n%s\nwant %q in it", printed.String(), command)
			}
			if err := Package(t.Context(), c, &UI{Out: io.Discard, Err: &printed}); err != nil {
				t.Fatal(err)
			}
			for line := range strings.Lines(printed.String()) {
				// No package of Runner's carries alpine-ppc64le, and no loader is built here.
				if strings.Contains(line, "warning") && !strings.Contains(line, "ppc64le: the helper that GitLab Runner") && !strings.Contains(line, "no loader, so") && !strings.Contains(line, "no helper image exists") {
					t.Error(line)
				}
			}
			var got []string
			records, err := filepath.Glob(filepath.Join(c.Out, "helper-images", "*.info"))
			if err != nil {
				t.Fatal(err)
			}
			for _, record := range records {
				got = append(got, strings.TrimSuffix(strings.TrimPrefix(filepath.Base(record), "prebuilt-"), ".docker.tar.zst.info"))
			}
			slices.Sort(got)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("helpers (-want +got):\n%s", diff)
			}
			if err := VerifyOnDisk(t.Context(), c, &UI{Out: io.Discard, Err: io.Discard}); err != nil {
				t.Error(err)
			}
		})
	}
}
