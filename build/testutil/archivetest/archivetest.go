// Package archivetest writes small archives for tests, as a build leaves them.
package archivetest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
	"path/filepath"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"pretag/build/archive"
	"pretag/build/catalogue"
	"pretag/build/release"
	"pretag/build/tarball"
	"pretag/build/testutil"
)

// Archives writes an archive for each named helper into dir, with its record
// next to it, as a build leaves them.
func Archives(tb testing.TB, dir string, helpers ...string) []release.Archive {
	tb.Helper()
	return ArchivesOf(tb, dir, testutil.Version, archive.Compression{Method: "zstd", Level: "fastest"}, helpers...)
}

// ArchivesOf is Archives for a Runner version and a compression.
func ArchivesOf(tb testing.TB, dir, version string, compression archive.Compression, helpers ...string) []release.Archive {
	tb.Helper()
	v, err := catalogue.ParseVersion(version, "0123abcd")
	if err != nil {
		tb.Fatal(err)
	}
	c := testutil.Catalogue(tb)
	w := archive.Writer{Compression: compression}
	var files []release.Archive
	for _, name := range helpers {
		h, ok := c.Lookup(name)
		if !ok {
			tb.Fatalf("no helper %s", name)
		}
		rootfs := testutil.Rootfs(tb, name)
		sum := sha256.Sum256(rootfs)
		f, err := w.Write(context.Background(), filepath.Join(dir, h.File()), archive.Spec{
			RepoTag: testutil.Repository + ":" + h.Tag(v),
			Layers:  []tarball.Layer{func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(rootfs)), nil }},
			Config: func(diffIDs []v1.Hash) ([]byte, error) {
				return tarball.FromRootfs(h, diffIDs, testutil.Created())
			},
			Rootfs: true,
			GoArch: h.GoArch(),
			Time:   testutil.Created(),
		})
		if err != nil {
			tb.Fatal(err)
		}
		f.Helper, f.Name, f.Version, f.Revision, f.Tool = name, h.File(), v.String(), v.Revision(), "fixture"
		f.Input = release.Input{Name: "prebuilt-" + name + ".tar", Size: int64(len(rootfs)), SHA256: hex.EncodeToString(sum[:]), Layout: "rootfs"}
		if err := os.WriteFile(f.Path+release.InfoSuffix, f.Info(), 0o644); err != nil {
			tb.Fatal(err)
		}
		files = append(files, f)
	}
	return files
}
