//go:build acceptance

package loader_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"pretag/build/internal/gobuild"
	"pretag/build/linuxpkg/loaders"
	"pretag/build/testutil"
	"pretag/build/testutil/runnertest"
)

// loader is the path of the program under test, and scratch a directory that is
// removed after all tests.
var loader, scratch string

// TestMain builds the program, as packages carry it. The test binary is also the
// GitLab Runner of the tests.
func TestMain(m *testing.M) {
	runnertest.Become()
	var err error
	if scratch, err = os.MkdirTemp("", "loader-test-"); err != nil {
		panic(err)
	}
	paths, err := loaders.Build(context.Background(), gobuild.Builder{Source: "../..", Environ: os.Environ()}, scratch, []string{runtime.GOARCH})
	if err == nil {
		err = os.Chmod(scratch, 0o755) // other users run it too
	}
	if err != nil {
		panic(err)
	}
	loader = paths[runtime.GOARCH]
	code := m.Run()
	if err := os.RemoveAll(scratch); err != nil {
		panic(err)
	}
	os.Exit(code)
}

// Exit statuses, as gitlab-runner-helper-images(8) has them.
const (
	allPresent    = 0
	engineRefused = 1
	noSpace       = 73
	tryAgain      = 75
	foreignImage  = 76
	noPermission  = 77
)

// A host is a machine as the loader sees one: archives, state and configuration in
// a directory of the test.
type host struct {
	tb       testing.TB
	archives string
	settings []string // lines of helper-images.conf
	env      []string
	loader   string
}

func newHost(tb testing.TB, settings ...string) *host {
	tb.Helper()
	dir := tempDir(tb)
	h := &host{tb: tb, archives: filepath.Join(dir, "helper-images"), env: environ(), loader: loader}
	if err := os.Mkdir(h.archives, 0o755); err != nil {
		tb.Fatal(err)
	}
	h.settings = append([]string{
		"ARCHIVES=" + h.archives,
		"STATE=" + filepath.Join(dir, "state"),
		"RUNNER_CONFIG=" + filepath.Join(dir, "config.toml"),
	}, settings...)
	return h
}

// environ returns the environment of this process with more variables, and without
// those that win over helper-images.conf.
func environ(more ...string) []string {
	return append(slices.DeleteFunc(os.Environ(), func(entry string) bool {
		name, _, _ := strings.Cut(entry, "=")
		return slices.Contains([]string{"TMPDIR", "DOCKER_HOST", "CONTAINERS_STORAGE_CONF"}, name)
	}), more...)
}

// tempDir makes a directory that other users may enter, unlike tb.TempDir.
func tempDir(tb testing.TB) string {
	tb.Helper()
	dir, err := os.MkdirTemp("", "loader-test-")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		// Storage of a rootless engine has owners of its own; root may remove it.
		if err := os.RemoveAll(dir); err != nil {
			tb.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		tb.Fatal(err)
	}
	return dir
}

func (h *host) command(args ...string) *exec.Cmd {
	h.tb.Helper()
	conf := filepath.Join(filepath.Dir(h.archives), "helper-images.conf")
	if err := os.WriteFile(conf, []byte(strings.Join(h.settings, "\n")+"\n"), 0o644); err != nil {
		h.tb.Fatal(err)
	}
	args = append([]string{h.loader}, append(args, "--config", conf)...)
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = h.env
	return cmd
}

// want runs the loader and checks its exit status and that its output has each text.
func (h *host) want(code int, texts []string, args ...string) string {
	h.tb.Helper()
	return wantOutput(h.tb, h.command(args...), code, texts...)
}

// wantOutput runs a command and checks its exit status and that its output has each text.
func wantOutput(tb testing.TB, cmd *exec.Cmd, code int, texts ...string) string {
	tb.Helper()
	out, got := output(tb, cmd)
	if got != code {
		tb.Fatalf("%v: exit %d, want %d\n%s", cmd.Args, got, code, out)
	}
	for _, text := range texts {
		if !strings.Contains(out, text) {
			tb.Fatalf("%v: no %q in\n%s", cmd.Args, text, out)
		}
	}
	return out
}

func output(tb testing.TB, cmd *exec.Cmd) (string, int) {
	tb.Helper()
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		tb.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// mountTmpfs mounts a file system of that size until the test ends.
func mountTmpfs(tb testing.TB, dir, size string) {
	tb.Helper()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size="+size, "tmpfs", dir).CombinedOutput(); err != nil {
		testutil.Missing(tb, "mount", string(out))
	}
	tb.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			tb.Error(err)
		}
	})
}

// An engine is a real one with a store that only the test uses.
type engine struct {
	name, user string
	settings   []string // what the loader must know of it
	environ    []string // what the engine's own command must know
	home       string   // of the user, if that is not root
	socket     string   // of its API
}

func (e engine) String() string { return e.name + "/" + e.user }

// command returns the engine's own command, as its user.
func (e engine) command(args ...string) *exec.Cmd {
	return e.program(append([]string{e.name}, args...)...)
}

// program returns a program that runs as the engine's user, in its environment.
func (e engine) program(argv ...string) *exec.Cmd {
	if e.home == "" {
		cmd := exec.Command(argv[0], argv[1:]...)
		cmd.Env = environ(e.environ...)
		return cmd
	}
	own := []string{"-u", e.user, "--", "env", "-i", "HOME=" + e.home, "USER=" + e.user, "PATH=" + os.Getenv("PATH")}
	cmd := exec.Command("runuser", slices.Concat(own, e.environ, argv)...)
	cmd.Dir = "/"
	return cmd
}

// must runs the engine's own command.
func (e engine) must(tb testing.TB, args ...string) string {
	tb.Helper()
	out, err := e.command(args...).Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = fmt.Errorf("%w: %s", err, exit.Stderr)
		}
		tb.Fatalf("%s %v: %v", e, args, err)
	}
	return strings.TrimSpace(string(out))
}

// id returns the ID of an image, without its "sha256:", or "" if there is none.
func (e engine) id(tb testing.TB, image string) string {
	tb.Helper()
	out, err := e.command("image", "inspect", "--format", "{{.Id}}", image).Output()
	if err != nil {
		return ""
	}
	return strings.TrimPrefix(strings.TrimSpace(string(out)), "sha256:")
}

// wantID checks which image has the reference.
func (e engine) wantID(tb testing.TB, reference, want string) {
	tb.Helper()
	if got := e.id(tb, reference); got != want {
		tb.Fatalf("%s: %s is %q, want %q", e, reference, got, want)
	}
}

// podman returns root's podman with a store in a directory of the test.
func podman(tb testing.TB) engine {
	tb.Helper()
	needRoot(tb)
	testutil.Tool(tb, "podman")
	return podmanIn(tb, tempDir(tb))
}

func podmanIn(tb testing.TB, dir string) engine {
	tb.Helper()
	storage := filepath.Join(dir, "storage.conf")
	text := fmt.Sprintf("[storage]\ndriver = \"vfs\"\ngraphroot = %q\nrunroot = %q\n", filepath.Join(dir, "graph"), filepath.Join(dir, "run"))
	if err := os.WriteFile(storage, []byte(text), 0o644); err != nil {
		tb.Fatal(err)
	}
	return engine{
		name: "podman", user: "root", socket: filepath.Join(dir, "podman.sock"),
		settings: []string{"ENGINE=podman", "USERS=root", "CONTAINERS_STORAGE_CONF=" + storage},
		environ:  []string{"CONTAINERS_STORAGE_CONF=" + storage},
	}
}

// rootless returns the podman of a user that is made for the test and has no
// session. The user's own command has a runtime directory, as in a session.
func rootless(tb testing.TB) engine {
	tb.Helper()
	needRoot(tb)
	for _, tool := range []string{"podman", "useradd", "runuser", "newuidmap"} {
		testutil.Tool(tb, tool)
	}
	name := newUser(tb)
	home := lookupUser(tb, name).HomeDir
	session := sessionOf(home)
	return engine{
		name: "podman", user: name, home: home, socket: filepath.Join(session, "podman.sock"),
		settings: []string{"ENGINE=podman", "USERS=" + name},
		environ:  []string{"XDG_RUNTIME_DIR=" + session},
	}
}

// sessionOf returns the runtime directory of a user of the test. Its name is short:
// where podman's run root has more than 50 bytes, podman 4.3.1 waits 20 s after each
// container for what cleans up.
func sessionOf(home string) string { return filepath.Join(filepath.Dir(home), "s") }

// newUser makes a user with ranges of subordinate IDs, for the time of the test.
func newUser(tb testing.TB) string {
	tb.Helper()
	name := "pretag" + strconv.FormatInt(time.Now().UnixNano()%1e9, 36)
	home := filepath.Join(tempDir(tb), name)
	if out, err := exec.Command("useradd", "-m", "-d", home, name).CombinedOutput(); err != nil {
		tb.Fatalf("useradd: %v: %s", err, out)
	}
	u := lookupUser(tb, name)
	wantOutput(tb, exec.Command("install", "-d", "-m", "700", "-o", name, sessionOf(home)), 0)
	tb.Cleanup(func() {
		// What the user's own podman has left running holds its namespace open.
		for pids := processes(tb, u.Uid); len(pids) > 0; pids = processes(tb, u.Uid) {
			for _, pid := range pids {
				_ = syscall.Kill(pid, syscall.SIGKILL) // it may be gone
			}
			time.Sleep(50 * time.Millisecond)
		}
		if out, err := exec.Command("userdel", name).CombinedOutput(); err != nil {
			tb.Errorf("userdel: %v: %s", err, out)
		}
	})
	return name
}

// processes lists the living processes of a user.
func processes(tb testing.TB, uid string) []int {
	tb.Helper()
	statuses, err := filepath.Glob("/proc/[0-9]*/status")
	if err != nil {
		tb.Fatal(err)
	}
	var pids []int
	for _, path := range statuses {
		text, err := os.ReadFile(path)
		if err != nil || bytes.Contains(text, []byte("State:\tZ")) || !bytes.Contains(text, []byte("\nUid:\t"+uid+"\t")) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil {
			tb.Fatal(err)
		}
		pids = append(pids, pid)
	}
	return pids
}

// docker returns a daemon that does not run yet.
func docker(tb testing.TB) (e engine, start func(testing.TB)) {
	tb.Helper()
	needRoot(tb)
	daemon := testutil.Tool(tb, "dockerd")
	testutil.Tool(tb, "docker")
	dir := tempDir(tb)
	e = dockerAt(filepath.Join(dir, "docker.sock"))
	return e, func(tb testing.TB) {
		tb.Helper()
		background(tb, dockerd(tb, daemon, dir, e.socket, "--storage-driver=vfs"), e.socket)
	}
}

func dockerAt(socket string) engine {
	host := "DOCKER_HOST=unix://" + socket
	return engine{name: "docker", user: "root", socket: socket, settings: []string{"ENGINE=docker", host}, environ: []string{host}}
}

func dockerd(tb testing.TB, daemon, dir, socket string, args ...string) *exec.Cmd {
	data := filepath.Join(dir, "data")
	// Where mounts of / are private dockerd mounts this directory on itself, and leaves that behind.
	tb.Cleanup(func() { _ = syscall.Unmount(data, syscall.MNT_DETACH) })
	return exec.Command(daemon, append([]string{
		"--iptables=false", "--ip6tables=false", "--bridge=none", "--host=unix://" + socket, "--data-root=" + data,
		"--exec-root=" + filepath.Join(dir, "exec"), "--pidfile=" + filepath.Join(dir, "pid"),
	}, args...)...)
}

// dockerContainerd is a docker daemon that keeps images in containerd's store.
func dockerContainerd(tb testing.TB) engine {
	tb.Helper()
	needRoot(tb)
	testutil.Tool(tb, "docker")
	daemon, containerd := testutil.ContainerdStore(tb), testutil.Tool(tb, "containerd")
	dir := tempDir(tb)
	address := filepath.Join(dir, "containerd.sock")
	config := filepath.Join(dir, "daemon.json")
	if err := os.WriteFile(config, []byte(`{"features": {"containerd-snapshotter": true}}`), 0o644); err != nil {
		tb.Fatal(err)
	}
	background(tb, exec.Command(containerd, "--root="+filepath.Join(dir, "content"), "--state="+filepath.Join(dir, "state"), "--address="+address), address)
	socket := filepath.Join(dir, "docker.sock")
	background(tb, dockerd(tb, daemon, dir, socket, "--config-file="+config, "--containerd="+address), socket)
	return dockerAt(socket)
}

// serve has podman's service answer on the socket until the test ends, as dockerd does.
func (e engine) serve(tb testing.TB) {
	tb.Helper()
	if e.name == "podman" {
		background(tb, e.command("system", "service", "--time=0", "unix://"+e.socket), e.socket)
	}
}

// background runs a daemon until the test ends and waits until its socket answers.
func background(tb testing.TB, cmd *exec.Cmd, socket string) {
	tb.Helper()
	// A file, as a daemon may leave processes behind that hold its output open.
	log, err := os.Create(filepath.Join(tb.TempDir(), "log"))
	if err != nil {
		tb.Fatal(err)
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM); err != nil {
			tb.Log(err)
		}
		_ = cmd.Wait() // ended by the signal
	})
	for range 1200 { // two minutes
		if conn, err := net.Dial("unix", socket); err == nil {
			conn.Close()
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	text, err := os.ReadFile(log.Name())
	tb.Fatalf("%s: no answer on %s: %v\n%s", cmd.Path, socket, err, text)
}

func needRoot(tb testing.TB) {
	tb.Helper()
	testutil.Root(tb, "the test makes its own stores, users and daemons")
}

// hasDocker distinguishes Docker's command from podman-docker's of the same name.
func hasDocker() bool {
	out, err := exec.Command("docker", "--version").Output()
	return err == nil && bytes.HasPrefix(out, []byte("Docker version"))
}
