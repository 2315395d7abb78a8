package sbom

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"pretag/build/archive"
	"pretag/build/release"
	"pretag/build/testutil"
)

// Pack makes an archive of the layers, bottom up.
func Pack(t testing.TB, layers ...[]byte) release.Archive {
	t.Helper()
	spec := archive.Spec{
		RepoTag: testutil.Repository + ":x86_64-v" + testutil.Version,
		Config: func(diffIDs []v1.Hash) ([]byte, error) {
			return json.Marshal(v1.ConfigFile{OS: "linux", Architecture: "amd64", RootFS: v1.RootFS{DiffIDs: diffIDs}})
		},
		Time: testutil.Created(),
	}
	for _, layer := range layers {
		spec.Layers = append(spec.Layers, func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(layer)), nil })
	}
	w := archive.Writer{Compression: archive.Compression{Method: "none"}}
	f, err := w.Write(t.Context(), filepath.Join(t.TempDir(), "a"), spec)
	if err != nil {
		t.Fatal(err)
	}
	f.Helper, f.Name, f.Tool = "alpine-x86_64", "prebuilt-alpine-x86_64.docker.tar.zst", "pretag/1"
	f.Input = release.Input{Name: "alpine-x86_64.tar", SHA256: strings.Repeat("0", 64)}
	return f
}

// Headers returns the packages' headers in an rpm database.
func Headers(ctx context.Context, db, wal []byte) ([][]byte, error) { return rpmHeaders(ctx, db, wal) }

// GoVersion returns the version of a Go toolchain.
func GoVersion(s string) string { return goVersion(s) }
