//go:build acceptance

package build_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"pretag/build"
	"pretag/build/archive"
	"pretag/build/internal/decompress"
	"pretag/build/release"
	"pretag/build/tarball"
	"pretag/build/testutil"
	"pretag/build/testutil/archivetest"
	"pretag/build/verify"
)

// compressions returns b in every compression, in one stream and in two.
func compressions(t *testing.T, b []byte) map[string][]byte {
	t.Helper()
	all := map[string][]byte{"none": b}
	for _, row := range [][]string{{"gzip"}, {"xz", "--block-size=2048"}, {"zstd"}, {"bzip2"}} {
		args := append(row[1:], "-c")
		all[row[0]] = testutil.Filter(t, b, row[0], args...)
		all[row[0]+" twice"] = append(testutil.Filter(t, b[:1024], row[0], args...), testutil.Filter(t, b[1024:], row[0], args...)...)
	}
	return all
}

// layouts returns a small image in every layout.
func layouts(t *testing.T) map[string][]byte {
	t.Helper()
	plain := archive.Compression{Method: "none"}
	return map[string][]byte{
		"rootfs":         testutil.Rootfs(t, "x"),
		"docker-archive": read(t, archivetest.ArchivesOf(t, t.TempDir(), testutil.Version, plain, "alpine-x86_64")[0].Path),
		"oci-archive":    ociArchive(t, v1.ConfigFile{OS: "linux", Architecture: "amd64"}, nil),
	}
}

// examine reads the tarball at path as the archives target does, and returns the
// layers' diff IDs.
func examine(t *testing.T, path string, decoders *decompress.Decoders) ([]v1.Hash, error) {
	h, _ := testutil.Catalogue(t).Lookup("alpine-x86_64")
	img, err := tarball.Open(t.Context(), path, h.Platform, filepath.Dir(path), decoders)
	if err != nil {
		return nil, err
	}
	defer img.Close()
	spec := archive.Spec{Layers: img.Layers, Rootfs: img.Layout == tarball.Rootfs, GoArch: h.GoArch()}
	examined, err := archive.Examine(context.Background(), spec)
	if err == nil && img.Config != nil {
		_, err = tarball.Keep(img.Config, h, examined.DiffIDs)
	}
	return examined.DiffIDs, err
}

// Each layout in each compression is rejected if it is cut anywhere. With a bit changed
// anywhere it is rejected, or it is the same image.
func TestDamagedAnywhere(t *testing.T) {
	var decoders decompress.Decoders
	cut, flipped := 0, 0
	for layout, plain := range layouts(t) {
		for compression, whole := range compressions(t, plain) {
			path := filepath.Join(t.TempDir(), "input")
			try := func(b []byte) ([]v1.Hash, error) {
				t.Helper()
				write(t, path, b)
				return examine(t, path, &decoders)
			}
			want, err := try(whole)
			if err != nil {
				t.Fatalf("%s, %s: %v", layout, compression, err)
			}
			step := 1 + len(whole)/60
			for at := 0; at < len(whole); at += step {
				cut++
				if _, err := try(whole[:at]); err == nil {
					t.Errorf("%s, %s: cut at %d of %d: accepted", layout, compression, at, len(whole))
				}
				if compression == "none" {
					continue // a tar file has no checksum over its bodies
				}
				flipped++
				damaged := bytes.Clone(whole)
				damaged[at] ^= 1 << (at % 8)
				if got, err := try(damaged); err == nil && !slices.Equal(got, want) {
					t.Errorf("%s, %s: byte %d: accepted as another image", layout, compression, at)
				}
			}
			for what, b := range map[string][]byte{
				"text behind it": append(bytes.Clone(whole), "trailing garbage"...), "itself behind it": append(bytes.Clone(whole), whole...),
				"compressed twice": testutil.Filter(t, testutil.Filter(t, whole, "zstd", "-c"), "xz", "-c"), "zip": append([]byte("PK\x03\x04"), whole...),
			} {
				if _, err := try(b); err == nil {
					t.Errorf("%s, %s: %s: accepted", layout, compression, what)
				}
			}
		}
	}
	t.Logf("%d cuts, %d flips", cut, flipped)
}

// verify reports each changed byte, every few kB, of an archive, an rpm and a deb. If
// the manifest and the sums are made to fit, it still reports each change of the contents.
func TestVerifyReportsEveryFlip(t *testing.T) {
	b := newBench(t)
	b.input(t, "alpine-x86_64.tar", incompressible(t, 1<<20))
	b.must(t, build.Package, "HELPERS=alpine-x86_64", "PACKAGE_LAYOUT=single")
	m := b.manifest(t)
	sums, err := release.ReadSums(b.path("out"))
	if err != nil {
		t.Fatal(err)
	}
	// describe writes the manifest and the sums, with the packages' real ones if it forges.
	describe := func(forge bool) {
		m, sums := m, maps.Clone(sums)
		m.Packages = slices.Clone(m.Packages)
		for n, p := range m.Packages {
			if !forge {
				continue
			}
			if p.SHA256, err = release.SHA256File(t.Context(), p.Path); err != nil {
				t.Fatal(err)
			}
			m.Packages[n], sums[p.Format+"/"+p.File] = p, p.SHA256
		}
		data, err := release.JSON(m)
		if err != nil {
			t.Fatal(err)
		}
		sums[release.ManifestName] = fmt.Sprintf("%x", sha256.Sum256(data))
		write(t, b.path("out", release.ManifestName), data)
		write(t, b.path("out", release.SumsName), release.Sums(sums))
	}
	reported := func(forge bool) bool {
		describe(forge)
		report, err := verify.OnDisk(t.Context(), b.path("out"))
		if err != nil {
			t.Fatal(err)
		}
		return slices.ContainsFunc(report.Problems(), func(p verify.Problem) bool { return p.Check != "provenance" })
	}
	if reported(false) || reported(true) {
		t.Fatal("the good one fails")
	}
	for _, path := range []string{m.Archives[0].Path, m.Packages[0].Path, m.Packages[1].Path} {
		whole := read(t, path)
		flips, missed, unseen := 0, 0, 0
		for at := 0; at < len(whole); at += 1 + len(whole)/80 {
			damaged := bytes.Clone(whole)
			damaged[at] ^= 0x10
			write(t, path, damaged)
			flips++
			if !reported(false) {
				missed++
			}
			if !reported(true) {
				unseen++
				t.Logf("%s: byte %d of %d: seen by its sum alone", filepath.Base(path), at, len(whole))
			}
		}
		write(t, path, whole)
		t.Logf("%s: %d flips", filepath.Base(path), flips)
		if missed > 0 || unseen > 3 {
			t.Errorf("%s: of %d flips %d were not reported, %d only because of the manifest", filepath.Base(path), flips, missed, unseen)
		}
	}
}
