//go:build acceptance

package build_test

import (
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
	tree := b.path("tree")
	for name, body := range map[string]string{
		"DEBIAN/control":       "Package: x\nVersion: 1\nArchitecture: all\nMaintainer: x <x@example.com>\nDescription: x\n",
		"prebuilt-x.spdx.json": strings.Repeat(" ", sbom.MaxDocument+1),
	} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(filepath.Join(tree, name)), 0o755), os.WriteFile(filepath.Join(tree, name), []byte(body), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	f := archivetest.Archives(t, tree, "alpine-x86_64")[0]
	deb := b.path("deb", "x.deb")
	if err := errors.Join(
		os.WriteFile(f.Path+release.InfoSuffix, []byte("source=x\n"), 0o644),
		os.Mkdir(filepath.Dir(deb), 0o755),
	); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(dpkgDeb, "-Znone", "--build", tree, deb).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	err := b.inspect(t, deb)
	if err == nil || !strings.Contains(err.Error(), ": 2 problems") {
		t.Errorf("error %v", err)
	}
	for _, want := range []string{"zst.info: line 1: unknown", ".spdx.json: 67108865 bytes, at most 67108864"} {
		if !strings.Contains(b.out.String(), want) {
			t.Errorf("the output lacks %q:\n%s", want, &b.out)
		}
	}
	err = b.run(t, func(ctx context.Context, c build.Config, ui *build.UI) error {
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
	tarball, info := b.path("in", helper+".tar"), b.path("out", "helper-images", "prebuilt-"+helper+".docker.tar.zst.info")
	kept := func() bool {
		t.Helper()
		if err := b.run(t, archives, "HELPERS="+helper); err != nil {
			t.Fatal(err)
		}
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
	if err := b.run(t, build.Package, "HELPERS=alpine-x86_64"); err != nil {
		t.Fatal(err)
	}
	command := exec.Command(testutil.Tool(t, "sha256sum"), "--check", "--strict", "--quiet", release.SumsName)
	command.Dir = b.path("out")
	if text, err := command.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, text)
	}
}
