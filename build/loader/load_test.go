//go:build acceptance

package loader_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"pretag/build/archive"
	"pretag/build/catalogue"
	"pretag/build/release"
	"pretag/build/tarball"
	"pretag/build/testutil"
	"pretag/build/testutil/runnertest"
)

// repository is where GitLab Runner takes its helper images from.
const repository = catalogue.Repository

var zstd = archive.Compression{Method: "zstd", Level: "fastest"}

// hostHelper is the alpine helper of this machine.
func hostHelper() string {
	switch runtime.GOARCH {
	case "amd64":
		return "alpine-x86_64"
	}
	return "alpine-" + runtime.GOARCH
}

// install puts the archive of a Runner version into the host, as its package does: it
// replaces that of another version. Each version has its own image.
func (h *host) install(version string) release.Archive {
	h.tb.Helper()
	return h.write(version, zstd, testutil.Rootfs(h.tb, hostHelper()+" "+version))
}

// write puts one archive of a root filesystem, with its record, into the host.
func (h *host) write(version string, compression archive.Compression, rootfs []byte) release.Archive {
	h.tb.Helper()
	return h.writeConfig(version, compression, rootfs, func(config []byte) []byte { return config })
}

// writeConfig is write with a change to the image's config.
func (h *host) writeConfig(version string, compression archive.Compression, rootfs []byte, change func([]byte) []byte) release.Archive {
	h.tb.Helper()
	v, err := catalogue.ParseVersion(version, "12335144")
	if err != nil {
		h.tb.Fatal(err)
	}
	row, ok := testutil.Catalogue(h.tb).Lookup(hostHelper())
	if !ok {
		h.tb.Fatalf("no helper %s", hostHelper())
	}
	w := archive.Writer{Compression: compression}
	f, err := w.Write(h.tb.Context(), filepath.Join(h.archives, row.File()), archive.Spec{
		RepoTag: repository + ":" + row.Tag(v),
		Layers:  []tarball.Layer{func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(rootfs)), nil }},
		Config: func(diffIDs []v1.Hash) ([]byte, error) {
			config, err := tarball.FromRootfs(row, diffIDs, testutil.Created())
			return change(config), err
		},
		Rootfs: true,
		GoArch: row.GoArch(),
		Time:   testutil.Created(),
	})
	if err != nil {
		h.tb.Fatal(err)
	}
	f.Helper, f.Name, f.Version, f.Revision = hostHelper(), row.File(), v.String(), v.Revision()
	if err := os.WriteFile(f.Path+release.InfoSuffix, f.Info(), 0o644); err != nil {
		h.tb.Fatal(err)
	}
	return f
}

// runner puts a gitlab-runner that reports its version, and a config.toml, into the host.
func (h *host) runner(version, revision, config string) {
	h.tb.Helper()
	dir := filepath.Dir(h.archives)
	script := fmt.Sprintf("#!/bin/sh\ncat <<E\nVersion:      %s\nGit revision: %s\nGit branch:   stable\nE\n", version, revision)
	// RUNNER_CONFIG is root's; a user has theirs at home.
	for name, text := range map[string]string{"gitlab-runner": script, "config.toml": config, ".gitlab-runner/config.toml": config} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o755)); err != nil {
			h.tb.Fatal(err)
		}
	}
	h.env = []string{"PATH=" + dir + ":" + os.Getenv("PATH"), "HOME=" + dir}
}

func imageID(f release.Archive) string { return strings.TrimPrefix(f.ImageID, "sha256:") }

// TestEngines runs the loader in each engine. Each of these tests has Runner versions
// of its own, so that they need neither stores of their own nor any order.
func TestEngines(t *testing.T) {
	tests := []struct {
		name string
		test func(*testing.T, engine)
	}{
		{"Load", testLoad},
		{"Rebuild", testRebuild},
		{"Foreign", testForeign},
		{"Together", testTogether},
		{"RunnerLookups", testRunnerLookups},
	}
	for name, start := range map[string]func(*testing.T) engine{
		"podman":   func(t *testing.T) engine { return podman(t) },
		"rootless": func(t *testing.T) engine { return rootless(t) },
		"docker":   dockerAfterItsSocket,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := start(t)
			for _, each := range tests {
				t.Run(each.name, func(t *testing.T) { each.test(t, e) })
			}
			if e.name == "docker" {
				t.Run("Context", func(t *testing.T) { testContext(t, e) })
				t.Run("Snap", func(t *testing.T) { testSnap(t, e) })
			}
		})
	}
}

// dockerAfterItsSocket returns a docker whose daemon starts after the loader has
// reported that it does not run.
func dockerAfterItsSocket(t *testing.T) engine {
	e, start := docker(t)
	h := newHost(t, e.settings...)
	h.install("15.8.0")
	h.want(tryAgain, []string{"docker/root: not up: Cannot connect"}, "load")
	start(t)
	h.want(allPresent, []string{"loaded"}, "load")
	return e
}

// testLoad goes through the life of a host: installation, boot, prune, upgrade, removal.
func testLoad(t *testing.T, e engine) {
	h := newHost(t, e.settings...)
	first := h.install("19.3.0")
	line := e.String() + ": " + hostHelper()

	t.Log("before:\n" + h.want(tryAgain, []string{"missing"}, "status"))
	h.want(allPresent, []string{line + ": would load"}, "load", "--dry-run")
	e.wantID(t, first.RepoTag, "")

	h.want(allPresent, []string{line + ": loaded"}, "load")
	e.wantID(t, first.RepoTag, imageID(first))
	t.Log("after:\n" + h.want(allPresent, []string{"present", imageID(first)[:12]}, "status"))
	h.want(allPresent, []string{line + ": present"}, "load") // the unit runs again at boot

	e.must(t, "rmi", first.RepoTag) // as packages of Runner 19.2 do
	h.want(allPresent, []string{line + ": loaded"}, "load")

	second := h.install("19.4.0")
	h.want(allPresent, []string{line + ": loaded"}, "load")
	for _, f := range []release.Archive{first, second} {
		e.wantID(t, f.RepoTag, imageID(f))
	}

	e.must(t, "create", "--name=user", "--network=none", first.RepoTag, "true")
	h.want(allPresent, []string{first.RepoTag, "kept"}, "prune")
	e.wantID(t, first.RepoTag, imageID(first))
	e.must(t, "rm", "user")
	h.want(allPresent, []string{"would be removed"}, "prune", "--dry-run")
	h.want(allPresent, []string{first.RepoTag, "removed"}, "prune")
	e.wantID(t, first.RepoTag, "")
	e.wantID(t, second.RepoTag, imageID(second))
	if out := h.want(allPresent, nil, "prune"); out != "" {
		t.Fatalf("nothing is left to prune, but:\n%s", out)
	}
}

// testRebuild replaces one release of a version by another with the same tag, newer
// or older, and removes the image that has lost the tag, although GitLab Runner asks
// for the tag (H).
func testRebuild(t *testing.T, e engine) {
	h := newHost(t, append(e.settings, "PRUNE=yes")...)
	h.runner("18.0.0", "01234567", "")
	var texts []string
	for _, content := range []string{"one", "two", "one"} {
		f := h.write("18.0.0", zstd, testutil.Rootfs(t, content))
		if content == "two" {
			h.want(tryAgain, []string{"superseded"}, "status")
		}
		h.want(allPresent, append(texts, ": loaded"), "load")
		e.wantID(t, f.RepoTag, imageID(f))
		texts = []string{": removed"}
	}
}

// testForeign leaves an image alone that another program has put under the tag.
func testForeign(t *testing.T, e engine) {
	h := newHost(t, e.settings...)
	ours := h.install("18.1.0")
	other := newHost(t, e.settings...)
	theirs := other.write("18.1.0", archive.Compression{Method: "none"}, testutil.Rootfs(t, "foreign"))
	other.want(allPresent, []string{"loaded"}, "load")

	h.want(foreignImage, []string{"foreign"}, "status")
	h.want(foreignImage, []string{"kept another image", imageID(theirs)}, "load")
	h.want(allPresent, nil, "prune")
	e.wantID(t, ours.RepoTag, imageID(theirs))
	e.must(t, "tag", ours.RepoTag, "localhost/kept:1") // what the manual says
	e.must(t, "rmi", ours.RepoTag)
	h.want(allPresent, []string{"loaded"}, "load")
	e.wantID(t, "localhost/kept:1", imageID(theirs))
}

// TestContainerdStore recognizes an image where IDs are digests of manifests, which an
// archive does not have: by the layers and by the part of the config that decides how
// it runs.
func TestContainerdStore(t *testing.T) {
	e := dockerContainerd(t)
	h := newHost(t, e.settings...)
	f := h.install("19.3.0")
	h.want(allPresent, []string{"loaded"}, "load")
	h.want(allPresent, []string{"present"}, "load")
	if got := e.id(t, f.RepoTag); got == imageID(f) {
		t.Fatal("the engine's ID is the config's digest: this is not containerd's store")
	}
	h.install("19.4.0")
	h.want(allPresent, []string{"loaded"}, "load")
	h.want(allPresent, []string{f.RepoTag, "removed"}, "prune")
	e.wantID(t, f.RepoTag, "")

	for name, change := range map[string][2]string{
		"entrypoint": {`"/usr/bin/dumb-init"`, `"/bin/evil"`},
		"user":       {`"Cmd":`, `"User":"nobody","Cmd":`},
	} {
		t.Run(name, func(t *testing.T) {
			other := newHost(t, e.settings...)
			rootfs := testutil.Rootfs(t, hostHelper()+" 19.4.0")
			f := other.writeConfig("19.4.0", zstd, rootfs, func(config []byte) []byte {
				changed := bytes.Replace(config, []byte(change[0]), []byte(change[1]), 1)
				if bytes.Equal(changed, config) {
					t.Fatalf("no %s in %s", change[0], config)
				}
				return changed
			})
			other.want(foreignImage, []string{"kept another image"}, "load")
			e.must(t, "rmi", f.RepoTag)
			other.want(allPresent, []string{"loaded"}, "load")
			h.want(foreignImage, []string{"kept another image"}, "load")
			e.must(t, "rmi", f.RepoTag)
			h.want(allPresent, []string{"loaded"}, "load")
		})
	}
}

// testTogether runs two loaders at once: one loads, the other finds it done.
func testTogether(t *testing.T, e engine) {
	h := newHost(t, e.settings...)
	h.install("18.2.0")
	var all sync.WaitGroup
	outs := make([]string, 2)
	codes := make([]int, len(outs))
	var loaders []*exec.Cmd
	for range outs {
		loaders = append(loaders, h.command("load"))
	}
	for i, cmd := range loaders {
		all.Go(func() { outs[i], codes[i] = output(t, cmd) })
	}
	all.Wait()
	if diff := cmp.Diff(make([]int, len(outs)), codes); diff != "" {
		t.Errorf("exit statuses (-want +got):\n%s", diff)
	}
	text := strings.Join(outs, "")
	if strings.Count(text, ": loaded") != 1 || strings.Count(text, ": present") != len(outs)-1 {
		t.Errorf("want one to load and the other to find it:\n%s", text)
	}
}

// TestSpace refuses what would not fit, and survives a store that fills up.
func TestSpace(t *testing.T) {
	needRoot(t)
	testutil.Tool(t, "podman")
	disk := tempDir(t)
	mountTmpfs(t, disk, "24m")
	e := podmanIn(t, disk)
	h := newHost(t, e.settings...)
	f := h.write("19.3.0", zstd, testutil.Tar(t, testutil.File("big", strings.Repeat("0123456789abcdef", 2<<20))))
	h.want(noSpace, []string{"no space", "MiB free, want"}, "load")

	f.UnpackedSize = 1 // a record that is wrong: podman itself runs out of space
	if err := os.WriteFile(f.Path+release.InfoSuffix, f.Info(), 0o644); err != nil {
		t.Fatal(err)
	}
	h.want(engineRefused, []string{"no space left on device"}, "load")
	e.wantID(t, f.RepoTag, "")
}

// TestContainerdSpace looks where containerd keeps Docker's images: a real
// command asks a daemon that has room in its own directory and none in containerd's.
func TestContainerdSpace(t *testing.T) {
	needRoot(t)
	if !hasDocker() {
		testutil.Missing(t, "docker", "the loader asks by command")
	}
	for driver, want := range map[string]struct {
		code int
		text string
	}{
		"overlay2":                     {allPresent, "would load"},
		"io.containerd.snapshotter.v1": {noSpace, "no space: /var/lib/containerd has 0 MiB free"},
	} {
		t.Run(driver, func(t *testing.T) {
			socket := filepath.Join(tempDir(t), "docker.sock")
			listener, err := net.Listen("unix", socket)
			if err != nil {
				t.Fatal(err)
			}
			daemon := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Api-Version", "1.40")
				w.Header().Set("Content-Type", "application/json")
				switch path := r.URL.Path; {
				case strings.HasSuffix(path, "/_ping"):
				case strings.HasSuffix(path, "/version"):
					fmt.Fprint(w, `{"Version": "28.2.2", "ApiVersion": "1.40"}`)
				case strings.HasSuffix(path, "/info"):
					fmt.Fprintf(w, `{"DockerRootDir": "/", "DriverStatus": [["driver-type", %q]]}`, driver)
				default:
					http.Error(w, `{"message": "not here"}`, http.StatusNotFound)
				}
			})}
			go daemon.Serve(listener)
			t.Cleanup(func() { daemon.Close() })
			h := newHost(t, "ENGINE=docker", "DOCKER_HOST=unix://"+socket)
			h.install("19.3.0")
			const full = "mount -t tmpfs tmpfs /var/lib; mkdir /var/lib/containerd; mount -t tmpfs -o size=64k tmpfs /var/lib/containerd"
			wantOutput(t, h.inNamespace(full, "load", "--dry-run"), want.code, want.text)
		})
	}
}

// TestDeafPauseProcess ends a pause process that ignores SIGTERM, as podman's does for
// a moment after its start.
func TestDeafPauseProcess(t *testing.T) {
	needRoot(t)
	testutil.Tool(t, "useradd")
	name := newUser(t)
	h := newHost(t, "ENGINE=podman", "USERS="+name)
	h.install("19.3.0")
	bin := t.TempDir()
	podman := `#!/bin/sh
[ "$1" != --version ] || { echo podman version 4.3.1; exit; }
file=${CONTAINERS_CONF%/*}/tmp/pause.pid
mkdir -p "${file%/*}"
[ -e "$file" ] || setsid sh -c 'trap "" TERM; echo $$ >"$0.new"; mv "$0.new" "$0"; exec sleep 600' "$file" </dev/null >/dev/null 2>&1 &
until [ -e "$file" ]; do sleep 0.1; done
echo "it began" >&2
exit 125
`
	if err := errors.Join(os.Chmod(filepath.Dir(bin), 0o755), os.Chmod(bin, 0o755), os.WriteFile(filepath.Join(bin, "podman"), []byte(podman), 0o755)); err != nil {
		t.Fatal(err)
	}
	h.env = environ("PATH=" + bin + ":" + os.Getenv("PATH"))
	h.want(engineRefused, []string{"does not work: it began"}, "status")
	noProcesses(t, name)
}

// noProcesses waits until the user has none: what was killed is gone a moment later.
func noProcesses(t *testing.T, name string) {
	t.Helper()
	u := lookupUser(t, name)
	for deadline := time.Now().Add(30 * time.Second); len(processes(t, u.Uid)) > 0; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("processes %v of the user are left", processes(t, u.Uid))
		}
	}
}

// TestRootless serves one user's podman. The first two need a user who has not run
// podman; each has Runner versions of its own.
func TestRootless(t *testing.T) {
	e := rootless(t)
	for _, each := range []struct {
		name string
		test func(*testing.T, engine)
	}{
		{"FullRun", testFullRun},
		{"NoSession", testNoSession},
		{"SystemSettings", testSystemSettings},
		{"SubIDsByNumber", testSubIDsByNumber},
		{"OwnStore", testOwnStore},
	} {
		t.Run(each.name, func(t *testing.T) { each.test(t, e) })
	}
}

// testNoSession leaves nothing behind for a user without a session: no process and
// no runtime directory. The user's podman works with a session and without.
func testNoSession(t *testing.T, e engine) {
	u := lookupUser(t, e.user)
	h := newHost(t, e.settings...)
	f := h.install("19.3.0")
	load := h.command("load")
	load.Dir = t.TempDir() // which the user may not enter
	if err := os.Chmod(load.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	wantOutput(t, load, allPresent, "loaded")
	h.want(allPresent, []string{"present"}, "status")
	noProcesses(t, e.user)
	if _, err := os.Stat("/run/user/" + u.Uid); !os.IsNotExist(err) {
		t.Errorf("runtime directory of the user: %v, want none", err)
	}
	if left, err := filepath.Glob("/run/gitlab-runner-helper-images." + u.Uid + ".*"); err != nil || len(left) > 0 {
		t.Errorf("directories are left: %v %v", left, err)
	}
	// podman 5 has a db.sql next to its directory, or in it.
	for _, name := range []string{"libpod", "db.sql"} {
		if _, err := os.Lstat(filepath.Join(u.HomeDir, ".local/share/containers/storage", name)); !os.IsNotExist(err) {
			t.Errorf("libpod's own %s of the user: %v, want none yet", name, err)
		}
	}
	e.wantID(t, f.RepoTag, imageID(f))
	h.want(allPresent, []string{"present"}, "load") // next to a podman that has a session
	e.must(t, "create", "--name=user", "--network=none", f.RepoTag, "true")
	h.install("19.4.0")
	h.want(allPresent, []string{"loaded"}, "load")
	h.want(allPresent, []string{"kept"}, "prune") // a container of the session uses it
}

// testOwnStore has the user run the loader, without root.
func testOwnStore(t *testing.T, e engine) {
	h := newHost(t, "ENGINE=podman", "USERS=root") // which is root's to set
	f := h.install("18.0.0")
	asUser := func(code int, text string, args ...string) {
		t.Helper()
		wantOutput(t, e.program(h.command(args...).Args...), code, text)
	}
	asUser(allPresent, e.String()+": "+hostHelper()+": loaded", "load")
	asUser(allPresent, "present", "load") // podman's leftovers do not hold the lock
	asUser(allPresent, "present", "status")
	asUser(noPermission, "only root", "load", "--user=root")
	e.wantID(t, f.RepoTag, imageID(f))
}

// testRunnerLookups does what the Runners do, on a host without a registry.
func testRunnerLookups(t *testing.T, e engine) {
	h := newHost(t, e.settings...)
	// Docker 20.10 does not take zstd from Runner.
	f := h.write("18.3.0", archive.Compression{Method: "gzip"}, testutil.Rootfs(t, "helper"))
	e.serve(t)
	runner := runnertest.NewEngine(e.socket)
	wantID := func(want string) {
		t.Helper()
		if got := strings.TrimPrefix(runner.ImageID(f.RepoTag), "sha256:"); got != want {
			t.Fatalf("the engine has %q as %s, want %q", got, f.RepoTag, want)
		}
	}

	// The file, by Runner 17.9 and later on its own: inspect, load, tag, inspect.
	wantID("")
	if err := runner.Load(f.Path, repository, strings.TrimPrefix(f.RepoTag, repository+":")); err != nil {
		t.Fatal(err)
	}
	wantID(imageID(f))
	h.want(allPresent, []string{"present"}, "load")

	// The engine, by 15.8.0 and all others, after the loader.
	e.must(t, "rmi", f.RepoTag)
	wantID("")
	h.want(allPresent, []string{"loaded"}, "load")
	wantID(imageID(f))
}
