package build_test

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	helperimages "pretag/helper-images"

	"pretag/build"
	"pretag/build/inspect"
	"pretag/build/release"
	"pretag/build/testutil"
	"pretag/build/testutil/archivetest"
)

// inspect says the same of an input as archives. It exits with an error where that does.
func TestInspectAgreesWithArchives(t *testing.T) {
	t.Parallel()
	whole := testutil.Rootfs(t, "x")
	const arm64 = "\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
	noHelper := testutil.Tar(t, testutil.Dir("usr"), testutil.File("usr/bin/dumb-init", ""), testutil.File("entrypoint", ""))
	for name, row := range map[string]struct {
		input []byte
		want  string // "" if it is good
	}{
		"whole":       {whole, ""},
		"no helper":   {noHelper, "has no /usr/bin/gitlab-runner-helper, which GitLab Runner calls"},
		"no programs": {testutil.Tar(t, testutil.Dir("usr"), testutil.File("usr/bin/gitlab-runner-helper", "")), "has no /usr/bin/dumb-init, which its entrypoint starts; has no /entrypoint, which its entrypoint starts"},
		"for arm64":   {testutil.Tar(t, testutil.File("usr/bin/gitlab-runner-helper", arm64)), "usr/bin/gitlab-runner-helper is a program for arm64, want amd64"},
		"oci-archive without a program": {
			ociArchive(t, v1.ConfigFile{OS: "linux", Architecture: "amd64", Config: v1.Config{Entrypoint: []string{"/start"}}}, nil),
			"has no /start, which its entrypoint starts",
		},
		"for another platform": {ociArchive(t, v1.ConfigFile{OS: "linux", Architecture: "s390x"}, nil), "image is for linux/s390x, want linux/amd64"},
		"docker-archive for another platform": {
			read(t, archivetest.Archives(t, t.TempDir(), "ubuntu-arm")[0].Path),
			"image is for linux/arm/v7, want linux/amd64",
		},
		"twice":     {testutil.Rootfs(t, "x", testutil.File("etc/os-release", "")), `entry "etc/os-release": is in the layer twice`},
		"escape":    {testutil.Rootfs(t, "x", testutil.File("../x", "")), `entry "../x": path contains ".."`},
		"cut":       {whole[:3000], "(truncated tar)"},
		"cut, gzip": {testutil.Compress(t, "gzip", whole)[:200], "unexpected EOF (truncated gzip stream)"},
		"lz4":       {append([]byte("\x04\x22\x4d\x18"), make([]byte, 600)...), "lz4 compression is not supported. Decompress it first: lz4 -dc FILE > NEW"},
		"zip":       {append([]byte("PK\x03\x04"), make([]byte, 600)...), "it looks like a zip archive"},
		"empty":     {nil, "empty file"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.input(t, "alpine-x86_64.tar", row.input)
			testutil.WantError(t, b.run(t, archives, "HELPERS=alpine-x86_64"), row.want)
			err := b.inspect(t, b.path("in", "alpine-x86_64.tar"))
			if err != nil { // what it prints belongs to the error
				err = fmt.Errorf("%w: %s", err, &b.out)
			}
			testutil.WantError(t, err, row.want)
			// A custom catalogue may name other programs: then they are warnings.
			if strings.HasPrefix(row.want, "has no") {
				write(t, b.path("custom.yaml"), helperimages.Catalogue)
				if err := b.inspect(t, b.path("in", "alpine-x86_64.tar"), "CATALOGUE="+b.path("custom.yaml")); err != nil {
					t.Errorf("with a custom catalogue: %v", err)
				}
				contains(t, b.out.String(), strings.Split(row.want, "; ")...)
			}
		})
	}
}

func TestInspect(t *testing.T) {
	t.Parallel()
	b := newBench(t, "alpine-x86_64.tar")
	b.must(t, archives, "HELPERS=alpine-x86_64")
	testutil.WantError(t, b.inspect(t, "-json"), "the file comes first: inspect FILE -json")
	testutil.WantError(t, b.inspect(t, b.path("in")), "inspect "+b.path("in")+": is a directory, want a file")
	path, f := b.archive("alpine-x86_64"), b.record(t, "alpine-x86_64")
	b.must(t, func(ctx context.Context, c build.Config, ui *build.UI) error {
		return build.Inspect(ctx, c, path, true, ui)
	})
	var got inspect.Findings
	if err := json.Unmarshal(b.out.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if got.Helper != "alpine-x86_64" || got.Layout != "docker-archive" || got.ImageID != f.ImageID || got.SHA256 != f.SHA256 || got.RepoTags[0] != f.RepoTag {
		t.Errorf("%+v", got)
	}
	// a valid archive that fits neither its record nor its name
	if err := os.Rename(archivetest.Archives(t, b.path("out", "helper-images"), "alpine-arm")[0].Path, path); err != nil {
		t.Fatal(err)
	}
	testutil.WantError(t, b.inspect(t, path), " problems")
	contains(t, b.out.String(), "image is for linux/arm/v7, want linux/amd64", "RepoTags is ", "sha256 is ")
}

// Files without a problem: what archives and package read and write.
func TestInspectGood(t *testing.T) {
	t.Parallel()
	b := newBench(t, "alpine-x86_64.tar")
	// The base image is in the manifest's annotations.
	digest := "sha256:" + strings.Repeat("a", 64)
	b.input(t, "alpine-arm64.tar", ociArchive(t, v1.ConfigFile{OS: "linux", Architecture: "arm64", Variant: "v8"}, map[string]string{
		"org.opencontainers.image.base.name": "example.com/base:1", "org.opencontainers.image.base.digest": digest,
	}))
	b.must(t, build.Package, "HELPERS=alpine-arm64", "FORMATS=deb")
	// An input that has the name of an archive is not judged like an archive.
	input := archivetest.Archives(t, b.path("in"), "alpine-x86_64")[0]
	if err := (release.Origin{Source: "gitlab-runner-helper-images.deb", Size: input.Size, SHA256: input.SHA256}).Write(input.Path); err != nil {
		t.Fatal(err)
	}
	layer := incompressible(t, 9<<20)
	b.input(t, "saved.tar", testutil.Tar( // docker save before 25, crane's layer
		t,
		testutil.File("layer.tar.gz", string(testutil.Compress(t, "gzip", layer))),
		testutil.File("config.json", fmt.Sprintf(`{"os":"linux","architecture":"amd64","rootfs":{"diff_ids":["sha256:%x"]}}`, sha256.Sum256(layer))),
		testutil.File("manifest.json", `[{"Config":"config.json","RepoTags":["helper:1"],"Layers":["layer.tar.gz"]}]`),
		testutil.File("repositories", "{}"),
	))
	for file, wants := range map[string][]string{
		b.path("in", "alpine-x86_64.tar"):           {"layout       rootfs\n"},
		b.path("in", "alpine-arm64.tar"):            {"base         example.com/base:1@" + digest + "\n"},
		b.archive("alpine-arm64"):                   nil,
		one(t, b.path("out", "deb", "*_arm64.deb")): nil,
		input.Path:                {"layout       docker-archive, zstd\n", "source       gitlab-runner-helper-images.deb\n", "image ID     " + input.ImageID},
		b.path("in", "saved.tar"): {"layout       docker-archive\n", "RepoTag      helper:1\n"},
	} {
		if err := b.inspect(t, file); err != nil {
			t.Errorf("%v\n%s", err, &b.out)
		}
		contains(t, b.out.String(), wants...)
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
	b.must(t, build.Package, "HELPERS=alpine-x86_64,alpine-arm", "FORMATS=deb", "PACKAGE_LAYOUT=single")
	if err := b.inspect(t, one(t, b.path("out", "deb", "gitlab-runner-helper-images_*.deb"))); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"  contents   one, ", "  contents   two, "} {
		if strings.Count(b.out.String(), want) != 1 {
			t.Errorf("want %q once in\n%s", want, &b.out)
		}
	}
}
