//go:build acceptance

package linuxpkg_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pretag/build/internal/gobuild"
	"pretag/build/linuxpkg"
	"pretag/build/linuxpkg/loaders"
	"pretag/build/release"
	"pretag/build/testutil"
	"pretag/build/testutil/archivetest"
)

// TestLint: rpmlint and lintian have nothing to say that has no reason, in
// packaging/lint/rpmlint.toml or in the package, of signed and unsigned packages.
func TestLint(t *testing.T) {
	dir := t.TempDir()
	archives := archivetest.Archives(t, dir, sixHelpers()...)
	loader, err := loaders.Build(t.Context(), gobuild.Builder{Source: "../..", Environ: os.Environ()}, t.TempDir(), []string{"amd64"})
	if err != nil {
		t.Fatal(err)
	}
	for _, layout := range []string{linuxpkg.Split, linuxpkg.Single, "signed"} {
		opts := options(t, filepath.Join(dir, layout))
		opts.Layout, opts.Loaders = layout, loader
		if layout == "signed" {
			opts.Layout, opts.Sign, opts.Release = linuxpkg.Split, signer(newKey(t)), "1~bpo12+1"
		}
		paths := map[string][]string{}
		for _, p := range build(t, opts, archives).Packages {
			if p.Arch == "loong64" {
				continue // lintian 2.116 does not know the architecture
			}
			paths[p.Format] = append(paths[p.Format], p.Path)
		}
		t.Run("rpmlint "+layout, func(t *testing.T) {
			testutil.Tool(t, "rpmlint")
			testutil.Tool(t, "cpio") // rpmlint unpacks with it
			out := run(t, "rpmlint", append([]string{"--config", "../../packaging/lint/rpmlint.toml"}, paths[release.RPM]...)...)
			if !strings.Contains(out, " 0 errors, 0 warnings,") {
				t.Error(out)
			}
		})
		t.Run("lintian "+layout, func(t *testing.T) {
			testutil.Tool(t, "lintian")
			out := run(t, "lintian", append([]string{"--allow-root", "--display-info", "--tag-display-limit", "0", "--fail-on", "error,warning,info"}, paths[release.Deb]...)...)
			for line := range strings.Lines(out) {
				if !strings.HasPrefix(line, "N:") {
					t.Error(strings.TrimSpace(line))
				}
			}
		})
	}
}
