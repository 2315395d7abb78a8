//go:build acceptance

package build_test

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"

	"pretag/build"
	"pretag/build/testutil"
)

// The packages of a bundle install without a network with one command.
func TestBundleInstallsOffline(t *testing.T) {
	testutil.Root(t, "rpm --root needs it")
	for _, tool := range []string{"go", "apt-get", "dpkg", "unshare", "dnf", "zypper", "rpm", "rpmbuild"} {
		testutil.Tool(t, tool)
	}
	b := newBench(t, "alpine-x86_64.tar", "prebuilt-alpine-x86_64-pwsh.tar", "ubuntu-arm64.tar")
	t.Chdir("..") // where the loader's sources are
	helpers := "HELPERS=alpine-x86_64,alpine-x86_64-pwsh,ubuntu-arm64"
	b.must(t, packageWithLoader, helpers)
	if strings.Contains(string(read(t, b.path("out", "SHA256SUMS"))), "  loader/") {
		t.Error("SHA256SUMS lists loaders, which are delivered in packages")
	}
	b.must(t, build.Bundle)
	// rpm roots have a package that stands for the shell of a base system, and no shell
	// for the scriptlets.
	const rpmRoot = `printf '%s\n' 'Name: base' 'Version: 1' 'Release: 1' 'Summary: base' 'License: MIT' 'BuildArch: noarch' 'Provides: /bin/sh' '%description' base '%files' >base.spec
		rpmbuild -bb --quiet --define "_topdir $PWD/rpmbuild" base.spec
		root=$PWD/rpmroot
		rm -rf "$root"
		rpm --root="$root" -i rpmbuild/RPMS/noarch/base-1-1.noarch.rpm
		cd unpacked
	`
	for _, row := range []struct{ tool, arch, command string }{
		// No package is installed and there are no sources: apt must find all in the
		// directory. TestPackages of the loader runs the maintainer scripts.
		{"apt", "deb-amd64", `
			root=$PWD/debroot
			mkdir -p "$root/var/lib/dpkg/info" "$root/var/lib/dpkg/updates" "$root/var/lib/apt/lists/partial" "$root/var/cache/apt/archives/partial"
			: >"$root/var/lib/dpkg/status"
			cd unpacked
			unshare --net apt-get -o Dir="$root" -o Dir::State::status="$root/var/lib/dpkg/status" --simulate install ./*.deb
			dpkg --root="$root" --unpack ./*.deb
			dpkg-query --admindir="$root/var/lib/dpkg" --show`},
		{"dnf", "rpm-x86_64", rpmRoot + `
			unshare --net dnf --installroot="$root" --releasever=9 --disablerepo='*' --setopt=tsflags=noscripts -y install ./*.rpm
			rpm --root="$root" -qa`},
		// 107: a scriptlet failed (zypper(8)).
		{"zypper", "rpm-x86_64", rpmRoot + `
			export ZYPP_LOCKFILE_ROOT="$root"
			unshare --net zypper --root "$root" --non-interactive --no-refresh install --allow-unsigned-rpm ./*.rpm || [ $? -eq 107 ]
			rpm --root="$root" -qa`},
	} {
		t.Run(row.tool, func(t *testing.T) {
			tarball := b.path("out", "bundle", "gitlab-runner-helper-images-19.3.0-1-"+row.arch+".tar")
			script := "rm -rf unpacked && mkdir unpacked && tar -xf " + tarball + " --strip-components=1 -C unpacked && (cd unpacked && sha256sum -c SHA256SUMS)\n" + row.command
			command := exec.Command("sh", "-ec", script)
			command.Dir = b.dir
			command.Env = append(os.Environ(), "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive", "PATH=/usr/sbin:/usr/bin:/sbin:/bin")
			out, err := command.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			t.Logf("%s", out)
			for _, name := range []string{"gitlab-runner-helper-images", "gitlab-runner-helper-images-loader", "gitlab-runner-helper-images-alpine-amd64-pwsh"} {
				if !strings.Contains(string(out), name) {
					t.Errorf("%s is not installed:\n%s", name, out)
				}
			}
			if strings.Contains(string(out), "arm64") {
				t.Errorf("a package for arm64:\n%s", out)
			}
		})
	}
}

func packageWithLoader(ctx context.Context, c build.Config, ui *build.UI) error {
	c.LoaderArches = []string{"amd64"}
	c.GoEnviron = os.Environ()
	return build.Package(ctx, c, ui)
}
