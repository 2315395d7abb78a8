package loader

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pretag/build/catalogue"
	"pretag/build/release"
)

// A fakeHost is a host below a directory of the test. Its engines are shell scripts
// that record their calls.
type fakeHost struct {
	t        *testing.T
	dir      string
	settings []string // lines of helper-images.conf
	environ  []string
	limit    time.Duration // of a call; 0 for the default
	uid      int           // who runs the loader
}

func newFakeHost(t *testing.T) *fakeHost {
	t.Helper()
	h := &fakeHost{t: t, dir: t.TempDir()}
	for _, dir := range []string{"bin", "archives", "store", "next", "tmp", "run", "etc"} {
		if err := os.Mkdir(h.path(dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	h.settings = []string{"ARCHIVES=" + h.path("archives"), "STATE=" + h.path("state"), "RUNNER_CONFIG=" + h.path("config.toml")}
	// The host's own engines must not answer.
	h.environ = []string{"PATH=" + h.path("bin"), "HOME=" + h.dir}
	for _, program := range []string{"sh", "cat", "cp", "mv", "rm", "head", "yes", "sleep", "ls", "grep", "cut", "mkdir", "id", "getent", "kill", "readlink"} {
		path, err := exec.LookPath(program)
		if err == nil {
			err = os.Symlink(path, h.path("bin/"+program))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return h
}

// newPodmanHost returns a host with podman, which is served for root.
func newPodmanHost(t *testing.T) *fakeHost {
	t.Helper()
	h := newFakeHost(t)
	h.engine("podman")
	h.settings = append(h.settings, "USERS=root")
	return h
}

func (h *fakeHost) path(name string) string { return filepath.Join(h.dir, name) }

func (h *fakeHost) write(name, text string) {
	h.t.Helper()
	path := h.path(name)
	if info, err := os.Lstat(path); err == nil && info.Mode()&os.ModeSymlink != 0 {
		if err := os.Remove(path); err != nil {
			h.t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		h.t.Fatal(err)
	}
}

// program installs a shell script as a program.
func (h *fakeHost) program(name, script string) {
	h.t.Helper()
	h.write("bin/"+name, "#!/bin/sh\nD="+h.dir+"\n"+script+"\n")
	if err := os.Chmod(h.path("bin/"+name), 0o755); err != nil {
		h.t.Fatal(err)
	}
}

// runner installs a gitlab-runner of a version and a config.toml.
func (h *fakeHost) runner(version, revision, config string) {
	h.t.Helper()
	h.program("gitlab-runner", fmt.Sprintf("printf 'Version:      %%s\\nGit revision: %%s\\nGit branch:   stable\\n' '%s' '%s'", version, revision))
	h.write("config.toml", config)
}

// engine installs a podman, or a docker that knows --host. Its images are files
// in store; load moves those in next there.
func (h *fakeHost) engine(name string) {
	h.t.Helper()
	h.program(name, "NAME="+name+`
echo "$NAME $*" >>$D/calls
[ "$1" != --host ] || shift 2
case "$1 $2" in
"--version ") [ $NAME = docker ] && echo "Docker version 28.2.2, build x" || echo "podman version 5.4.2";;
"image inspect")
	shift 3; code=0; comma=
	printf '['
	for image; do
		file=$D/store/$image
		if [ -e "$file" ]; then printf '%s' "$comma"; cat "$file"; comma=,; else code=1; echo "Error: $image: image not known" >&2; fi
	done
	printf ']'
	exit $code;;
"info --format") echo '{"store": {"graphRoot": "'$D/store'", "graphDriverName": "vfs", "imageCopyTmpDir": "'$D/tmp'"}, "DockerRootDir": "'$D/store'"}';;
"load ") cat >$D/loaded; echo "$TMPDIR" >>$D/temporary; cp -r $D/next/. $D/store; rm -rf $D/next/*;;
"rmi --") rm $D/store/$3;;
esac
`)
}

func (h *fakeHost) read(name string) string {
	h.t.Helper()
	text, err := os.ReadFile(h.path(name))
	if err != nil && !os.IsNotExist(err) {
		h.t.Fatal(err)
	}
	return string(text)
}

// calls returns the calls to engines since the last time.
func (h *fakeHost) calls() []string {
	h.t.Helper()
	text := strings.ReplaceAll(h.read("calls"), h.dir, "DIR")
	if err := os.WriteFile(h.path("calls"), nil, 0o644); err != nil {
		h.t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(text), "\n")
}

// archive installs an archive with its record. Its content is not an archive: the
// fake engines do not care.
func (h *fakeHost) archive(helper, tag, content string) release.Archive {
	h.t.Helper()
	a := release.Archive{
		Helper: helper, Name: "prebuilt-" + helper + ".docker.tar.zst", Size: int64(len(content)), SHA256: digest(content), RepoTag: catalogue.Repository + ":" + tag,
		ImageID: "sha256:" + digest("image "+content), DiffIDs: []string{"sha256:" + digest("layer "+content)}, Platform: "linux/amd64", UnpackedSize: 1000,
	}
	h.write("archives/"+a.Name, content)
	h.write("archives/"+a.Name+release.InfoSuffix, string(a.Info()))
	return a
}

// has puts an image under a tag into the store, or into next.
func (h *fakeHost) has(dir, reference string, image held) {
	h.t.Helper()
	text, err := json.Marshal(image)
	if err != nil {
		h.t.Fatal(err)
	}
	h.write(dir+"/"+reference, string(text))
}

func imageOf(a release.Archive) held {
	h := held{ID: strings.TrimPrefix(a.ImageID, "sha256:"), Os: "linux", Architecture: "amd64", RepoTags: []string{a.RepoTag}}
	h.RootFS.Layers = a.DiffIDs
	return h
}

// run runs the loader as root of the fake host.
func (h *fakeHost) run(args ...string) (stdout, stderr string, status int) {
	h.t.Helper()
	h.write("helper-images.conf", strings.Join(h.settings, "\n")+"\n")
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		args = append(args, "--config", h.path("helper-images.conf"))
	}
	return h.runBare(args...)
}

// want runs the loader and checks its exit status and that its output holds each text.
func (h *fakeHost) want(status int, texts []string, args ...string) string {
	h.t.Helper()
	stdout, stderr, got := h.run(args...)
	out := stdout + stderr
	if got != status {
		h.t.Fatalf("%v: exit %d, want %d\n%s", args, got, status, out)
	}
	for _, text := range texts {
		if !strings.Contains(out, text) {
			h.t.Fatalf("%v: no %q in\n%s", args, text, out)
		}
	}
	return out
}

// digest returns the SHA-256 of a text in hex.
func digest(text string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(text))) }

// runBare runs the loader with these arguments alone.
func (h *fakeHost) runBare(args ...string) (stdout, stderr string, status int) {
	h.t.Helper()
	var out, err bytes.Buffer
	r := newRun(Process{Args: args, Environ: h.environ, Stdout: &out, Stderr: &err})
	r.root, r.uid = h.dir, h.uid
	if h.limit != 0 {
		r.askLimit, r.loadLimit, r.lockLimit = h.limit, h.limit, h.limit
	}
	status = r.main(h.t.Context())
	if r.locked != nil {
		r.locked.Close()
	}
	return out.String(), err.String(), status
}
