package build_test

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"pretag/build/testutil"
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
		"twice":                {testutil.Rootfs(t, "x", testutil.File("etc/os-release", "")), `entry "etc/os-release": is in the layer twice`},
		"escape":               {testutil.Rootfs(t, "x", testutil.File("../x", "")), `entry "../x": path contains ".."`},
		"cut":                  {whole[:3000], "(truncated tar)"},
		"cut, gzip":            {testutil.Compress(t, "gzip", whole)[:200], "unexpected EOF (truncated gzip stream)"},
		"lz4":                  {append([]byte("\x04\x22\x4d\x18"), make([]byte, 600)...), "lz4 compression is not supported. Decompress it first: lz4 -dc FILE > NEW"},
		"zip":                  {append([]byte("PK\x03\x04"), make([]byte, 600)...), "it looks like a zip archive"},
		"empty":                {nil, "empty file"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.input(t, "alpine-x86_64.tar", row.input)
			err := b.run(t, archives, "HELPERS=alpine-x86_64")
			testutil.WantError(t, err, row.want)
			err = b.inspect(t, b.path("in", "alpine-x86_64.tar"))
			if err != nil { // what it prints belongs to the error
				err = fmt.Errorf("%w: %s", err, &b.out)
			}
			testutil.WantError(t, err, row.want)
			// A custom catalogue may name other programs: then they are warnings.
			if strings.HasPrefix(row.want, "has no") {
				custom := b.path("custom.yaml")
				catalogue, err := os.ReadFile("../helper-images/catalogue.yaml")
				if err := errors.Join(err, os.WriteFile(custom, catalogue, 0o644)); err != nil {
					t.Fatal(err)
				}
				for _, part := range strings.Split(row.want, "; ") {
					if err := b.inspect(t, b.path("in", "alpine-x86_64.tar"), "CATALOGUE="+custom); err != nil || !strings.Contains(b.out.String(), part) {
						t.Errorf("with a custom catalogue: %v, want the warning %q in\n%s", err, part, &b.out)
					}
				}
			}
		})
	}
}
