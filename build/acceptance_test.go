//go:build acceptance

package build_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pretag/build"
	"pretag/build/internal/filestamp"
	"pretag/build/release"
	"pretag/build/sbom"
	"pretag/build/testutil"
	"pretag/build/testutil/archivetest"
)

// Each problem of a package is reported once.
func TestInspectBadPackage(t *testing.T) {
	dpkgDeb := testutil.Tool(t, "dpkg-deb")
	b := newBench(t)
	tree, deb := b.path("tree"), b.path("x.deb")
	write(t, filepath.Join(tree, "DEBIAN", "control"), []byte("Package: x\nVersion: 1\nArchitecture: all\nMaintainer: x <x@example.com>\nDescription: x\n"))
	write(t, filepath.Join(tree, "prebuilt-x.spdx.json"), bytes.Repeat([]byte(" "), sbom.MaxDocument+1))
	write(t, archivetest.Archives(t, tree, "alpine-x86_64")[0].Path+release.InfoSuffix, []byte("source=x\n"))
	if out, err := exec.Command(dpkgDeb, "-Znone", "--build", tree, deb).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	testutil.WantError(t, b.inspect(t, deb), ": 2 problems")
	contains(t, b.out.String(), "zst.info: line 1: unknown", ".spdx.json: 67108865 bytes, at most 67108864")
	err := b.run(t, func(ctx context.Context, c build.Config, ui *build.UI) error {
		ctx, cancel := context.WithCancel(ctx)
		cancel()
		return build.Inspect(ctx, c, deb, false, ui)
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want the interruption", err)
	}
}

// An unchanged tarball is recognized without being read: a changed one passes for the
// old one if its stamp is put on the record.
func TestArchivesKeepsUnread(t *testing.T) {
	t.Parallel()
	const helper = "alpine-x86_64"
	b := newBench(t, helper+".tar")
	tarball, info := b.path("in", helper+".tar"), b.archive(helper)+".info"
	kept := func() bool {
		t.Helper()
		b.must(t, archives, "HELPERS="+helper)
		return strings.Contains(b.err.String(), "kept")
	}
	settled := func() filestamp.Stamp {
		t.Helper()
		for {
			file, err := os.Stat(tarball)
			if err != nil {
				t.Fatal(err)
			}
			if stamp := filestamp.Of(file); stamp != "" {
				return stamp
			}
			time.Sleep(100 * time.Millisecond)
		}
	}
	if kept() {
		t.Error("want it made")
	}
	stamp := settled()
	if stamp.KeptOn(info) {
		t.Error("a tarball that had just been written has its stamp on the record")
	}
	if stamp.KeepOn(info); !stamp.KeptOn(info) {
		testutil.Missing(t, "xattr", "the file system of TMPDIR has no extended attributes")
	}
	filestamp.Stamp("another").KeepOn(info)
	if !kept() || !stamp.KeptOn(info) {
		t.Error("want it kept, and its stamp on the record")
	}
	b.input(t, helper+".tar", testutil.Rootfs(t, "another of the same size"))
	settled().KeepOn(info)
	if !kept() {
		t.Error("want it kept: it bears the stamp")
	}
	filestamp.Stamp("another").KeepOn(info)
	if kept() || !settled().KeptOn(info) {
		t.Error("want it made anew, and its stamp on the record")
	}
}

// sha256sum accepts SHA256SUMS.
func TestSumsProgram(t *testing.T) {
	b := newBench(t, "alpine-x86_64.tar")
	b.must(t, build.Package, "HELPERS=alpine-x86_64")
	command := exec.Command(testutil.Tool(t, "sha256sum"), "--check", "--strict", "--quiet", release.SumsName)
	command.Dir = b.path("out")
	if text, err := command.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, text)
	}
}
