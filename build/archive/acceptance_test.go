//go:build acceptance

package archive_test

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"pretag/build/archive"
	"pretag/build/release"
	"pretag/build/testutil"
)

// What docker 20.10, podman and skopeo cannot read, or read as less than it is.
func TestReadReportsCompression(t *testing.T) {
	plain := goodDocker(t).bytes(t)
	for _, row := range []struct{ program, want string }{
		{"gzip", "gzip around the archive"}, {"xz", "xz around the archive"}, {"bzip2", "bzip2 around the archive"},
	} {
		command := exec.Command(testutil.Tool(t, row.program), "-c")
		command.Stdin = bytes.NewReader(plain)
		out, err := command.Output()
		if err != nil {
			t.Fatal(err)
		}
		c, err := read(t, out)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(c.Problems, "\n"); !strings.Contains(got, row.want) {
			t.Errorf("problems %q, want one that holds %q", got, row.want)
		}
	}
	f, err := write(t, "zstd:fastest", spec(t, testutil.Rootfs(t, "x")))
	if err != nil {
		t.Fatal(err)
	}
	body, err := os.ReadFile(f.Path)
	if err != nil {
		t.Fatal(err)
	}
	c, err := read(t, append([]byte("\x50\x2a\x4d\x18\x01\x00\x00\x00x"), body...))
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Problems) != 1 || !strings.Contains(c.Problems[0], "skippable") {
		t.Errorf("problems %q, want the skippable frame", c.Problems)
	}
}

// What other programs write passes, and byte for byte.
func TestPassesForeignTars(t *testing.T) {
	gnutar := testutil.Tool(t, "tar")
	dir := t.TempDir()
	for name, body := range map[string]string{
		"usr/bin/tool": "#!/bin/sh\n", "etc/" + strings.Repeat("long/", 40) + "name": "x", "etc/empty": "",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(body), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join(dir, "usr/bin/tool"), 0o755|os.ModeSetuid); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(filepath.Join(dir, "usr/bin/tool"), filepath.Join(dir, "usr/bin/same")); err != nil {
		t.Fatal(err)
	}
	hole := filepath.Join(dir, "etc/hole")
	if err := os.WriteFile(hole, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(hole, 1<<20); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"--format=gnu"}, {"--format=pax"}, {"--format=pax", "--sparse"}, {"--format=pax", "--xattrs"}} {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			layer, err := exec.Command(gnutar, append(args, "-C", dir, "-c", ".")...).Output()
			if err != nil {
				t.Fatal(err)
			}
			f, err := write(t, "none", spec(t, layer))
			if err != nil {
				t.Fatal(err)
			}
			if err := archive.Check(t.Context(), f); err != nil {
				t.Error(err)
			}
			tr := tar.NewReader(bytes.NewReader(plainBytes(t, f)))
			if _, err := tr.Next(); err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(tr)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, layer) {
				t.Error("the layer is not the input byte for byte")
			}
		})
	}
}

// programBytes decompresses the archive with the zstd program, where it is compressed.
func programBytes(t *testing.T, f release.Archive) []byte {
	t.Helper()
	if !strings.HasPrefix(f.Compression, "zstd") {
		return plainBytes(t, f)
	}
	b, err := exec.Command(testutil.Tool(t, "zstd"), "-dc", "--long=27", f.Path).Output()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The zstd program reads what is written, and writes the smallest form.
func TestWriteReadsBackByProgram(t *testing.T) {
	writeReadsBack(t, []string{"zstd:fastest", "zstd:default", "zstd:better", "zstd:best", "zstd:ultra", "gzip", "none"}, programBytes)
}
