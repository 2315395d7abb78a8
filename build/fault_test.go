//go:build acceptance

package build_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	mathrand "math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"pretag/build/internal/gobuild"
	"pretag/build/linuxpkg/loaders"
	"pretag/build/release"
	"pretag/build/testutil"
)

// A program is pretag as a process, with the directories in (inputs), out and tmp.
type program struct {
	binary, dir string
	pairs       []string // NAME=value, besides those of the directories
	wrap        []string // the command that starts it
}

// compiledDir holds the program that mage runs, pretag, and loaders for x86 hosts,
// once compiled has been called. TestMain removes it.
var compiledDir string

var compiled = sync.OnceValue(func() (err error) {
	if compiledDir, err = os.MkdirTemp("", "pretag-test-"); err != nil {
		return err
	}
	command := exec.Command("go", "tool", "mage", "-compile", filepath.Join(compiledDir, "pretag"))
	command.Dir = ".."
	if text, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, text)
	}
	_, err = loaders.Build(context.Background(), gobuild.Builder{Source: "..", Environ: os.Environ()},
		filepath.Join(compiledDir, "loader"), []string{"386", "amd64"})
	return errors.Join(err, os.Chmod(compiledDir, 0o755)) // other users run it, too
})

// compile returns the program that mage runs, with tiny inputs for two helpers.
func compile(t *testing.T) *program {
	t.Helper()
	if err := compiled(); err != nil {
		t.Fatal(err)
	}
	p := &program{binary: filepath.Join(compiledDir, "pretag"), dir: t.TempDir()}
	if err := errors.Join(os.Mkdir(p.path("out"), 0o755), os.Mkdir(p.path("tmp"), 0o755)); err != nil {
		t.Fatal(err)
	}
	p.pairs = []string{
		"RUNNER_VERSION=19.3.0", "SOURCE_DATE_EPOCH=1700000000", "ARCHIVE_COMPRESSION=zstd:fastest",
		"HELPERS=alpine-latest-x86_64,concrete-x86_64", "JOBS=2",
		"LOADERS=" + filepath.Join(compiledDir, "loader"),
	}
	p.input(t, "alpine-latest-x86_64", testutil.Rootfs(t, "alpine"))
	p.input(t, "concrete-x86_64", testutil.Rootfs(t, "ubuntu"))
	return p
}

func (p *program) path(elem ...string) string {
	return filepath.Join(append([]string{p.dir}, elem...)...)
}

func (p *program) input(t *testing.T, helper string, body []byte) {
	t.Helper()
	write(t, p.path("in", helper+".tar"), body)
}

// command returns the command for a target. Its environment has no HOME.
func (p *program) command(t *testing.T, target string, pairs ...string) (*exec.Cmd, *bytes.Buffer) {
	t.Helper()
	argv := append(append([]string{}, p.wrap...), p.binary, target)
	c := exec.Command(argv[0], argv[1:]...)
	c.Dir = p.dir
	c.Env = append([]string{
		"PATH=" + os.Getenv("PATH"), "TMPDIR=" + p.path("tmp"), "HELPER_IMAGES=" + p.path("in"), "OUT=" + p.path("out"),
	}, append(p.pairs, pairs...)...)
	var text bytes.Buffer
	c.Stdout, c.Stderr = &text, &text
	return c, &text
}

// run runs a target and returns its exit status and its output.
func (p *program) run(t *testing.T, target string, pairs ...string) (int, string) {
	t.Helper()
	c, text := p.command(t, target, pairs...)
	if err := c.Run(); err != nil && c.ProcessState == nil {
		t.Fatal(err)
	}
	return c.ProcessState.ExitCode(), text.String()
}

func (p *program) must(t *testing.T, target string, pairs ...string) map[string]string {
	t.Helper()
	if status, text := p.run(t, target, pairs...); status != 0 {
		t.Fatalf("%s: status %d: %s", target, status, text)
	}
	p.clean(t)
	return tree(t, p.path("out"))
}

// clean reports unfinished files.
func (p *program) clean(t *testing.T) {
	t.Helper()
	for _, name := range []string{"out", "tmp", "in"} {
		err := filepath.WalkDir(p.path(name), func(path string, d fs.DirEntry, err error) error {
			if err == nil && (strings.Contains(d.Name(), ".pretag-tmp") || name == "tmp" && path != p.path("tmp")) {
				t.Errorf("left behind: %s", path)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
}

// fails runs a target that cannot succeed: it exits with 1, prints the reason and
// leaves OUT as it was.
func (p *program) fails(t *testing.T, target string, want []string, pairs ...string) {
	t.Helper()
	before := tree(t, p.path("out"))
	status, text := p.run(t, target, pairs...)
	if status != 1 {
		t.Errorf("%s: status %d, want 1", target, status)
	}
	contains(t, text, want...)
	p.clean(t)
	p.unchanged(t, target, before)
}

// unchanged reports each of the files of OUT that is missing or differs.
func (p *program) unchanged(t *testing.T, what string, before map[string]string) {
	t.Helper()
	after := tree(t, p.path("out"))
	for name := range before {
		if after[name] != before[name] {
			t.Errorf("%s: %s is not what it was", what, name)
		}
	}
}

// mount mounts a tmpfs of that size on a directory of the program.
func (p *program) mount(t *testing.T, name, options string) func(options string) {
	t.Helper()
	testutil.Root(t, "to mount file systems")
	mount, umount := testutil.Tool(t, "mount"), testutil.Tool(t, "umount")
	do := func(program string, args ...string) {
		t.Helper()
		if text, err := exec.Command(program, args...).CombinedOutput(); err != nil {
			t.Fatalf("%s %q: %v: %s", program, args, err, text)
		}
	}
	do(mount, "-t", "tmpfs", "-o", options, "tmpfs", p.path(name))
	t.Cleanup(func() { do(umount, p.path(name)) })
	return func(options string) { do(mount, "-o", "remount,"+options, p.path(name)) }
}

func TestDiskFull(t *testing.T) {
	p := compile(t)
	remount := p.mount(t, "out", "size=2m")
	p.must(t, "package")
	small := testutil.Rootfs(t, "small again")
	p.input(t, "alpine-latest-x86_64", incompressible(t, 3<<20))
	for _, target := range []string{"archives", "package"} {
		p.fails(t, target, []string{"alpine-latest-x86_64: ", "no space left on device"})
	}
	p.input(t, "alpine-latest-x86_64", incompressible(t, 900<<10)) // the archive fits in, its packages do not
	if status, text := p.run(t, "package"); status != 1 || !strings.Contains(text, "no space left on device") {
		t.Errorf("status %d: %s", status, text)
	}
	p.input(t, "alpine-latest-x86_64", small)
	p.must(t, "archives")
	full, err := os.Create(p.path("out", "full"))
	if err != nil {
		t.Fatal(err)
	}
	size := 0
	for n := 0; err == nil; size += n {
		n, err = full.Write(make([]byte, 4<<10))
	}
	// There is space for the SBOMs, but not for the packages.
	if err := errors.Join(full.Truncate(int64(size-64<<10)), full.Close()); err != nil {
		t.Fatal(err)
	}
	if _, text := p.run(t, "package"); strings.Count(text, "no space left on device") != 1 {
		t.Errorf("the full disk is not reported once:\n%s", text)
	}
	os.Remove(full.Name())
	p.clean(t)
	remount("size=64m")
	p.must(t, "package")
	p.input(t, "alpine-latest-x86_64", small)
	p.must(t, "package")
}

// Like a quota, the limit ends a write in the middle.
func TestFileSizeLimit(t *testing.T) {
	p := compile(t)
	p.must(t, "package")
	p.input(t, "alpine-latest-x86_64", incompressible(t, 1<<20))
	p.wrap = []string{testutil.Tool(t, "prlimit"), "--fsize=500000"}
	p.fails(t, "archives", []string{"alpine-latest-x86_64: ", "file too large"})
	p.fails(t, "package", []string{"alpine-latest-x86_64: ", "file too large"})
}

func TestTemporaryDirectory(t *testing.T) {
	p := compile(t)
	p.must(t, "archives")
	remount := p.mount(t, "tmp", "size=4k")
	p.must(t, "package", "SOURCE_DATE_EPOCH=1")
	remount("size=4k,ro")
	p.must(t, "archives", "SOURCE_DATE_EPOCH=2")
	p.fails(t, "package", []string{p.path("tmp"), "read-only file system"}, "SOURCE_DATE_EPOCH=2")
}

func TestDirectories(t *testing.T) {
	p := compile(t)
	p.must(t, "archives")
	p.fails(t, "archives", []string{p.path("none") + " does not exist: no tarball for 1 of 1 helpers"}, "HELPER_IMAGES="+p.path("none"), "HELPERS=ubuntu-arm")
	p.fails(t, "archives", []string{"not a directory"}, "OUT="+filepath.Join(p.binary, "out"))
	remount := p.mount(t, "out", "size=2m")
	p.must(t, "archives")
	remount("size=2m,ro")
	p.fails(t, "archives", []string{"read-only file system"}, "SOURCE_DATE_EPOCH=1")
	remount("size=2m,rw")
	p.must(t, "archives", "SOURCE_DATE_EPOCH=1")
}

// A bad input leaves the archive of the good one before it, and its record.
func TestKeepsWhatWasGood(t *testing.T) {
	p := compile(t)
	p.must(t, "package")
	good := testutil.Rootfs(t, "other")
	for _, bad := range [][]byte{good[:len(good)-1024], nil, []byte("<html>"), testutil.Tar(t, testutil.File("../evil", ""))} {
		p.input(t, "alpine-latest-x86_64", bad)
		p.fails(t, "package", []string{"alpine-latest-x86_64: "})
	}
	remove(t, p.path("in", "alpine-latest-x86_64.tar"))
	p.must(t, "package") // of what was good
}

func TestInputChanges(t *testing.T) {
	p := compile(t)
	p.must(t, "archives")
	p.input(t, "alpine-latest-x86_64", incompressible(t, 64<<20))
	stop, stopped := make(chan bool), make(chan bool)
	go func() {
		defer close(stopped)
		for n := int64(1); ; n++ {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
				if err := os.Chtimes(p.path("in", "alpine-latest-x86_64.tar"), time.Time{}, time.Unix(n, 0)); err != nil {
					t.Error(err)
				}
			}
		}
	}()
	p.fails(t, "archives", []string{"alpine-latest-x86_64.tar: changed while it was read"})
	close(stop)
	<-stopped
	p.must(t, "archives")
}

// started waits until a run writes.
func (p *program) started(t *testing.T) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if found, _ := filepath.Glob(p.path("out", "helper-images", ".*.pretag-tmp")); len(found) > 0 {
			return
		}
	}
	t.Fatal("nothing was begun")
}

func TestSignals(t *testing.T) {
	p := compile(t)
	p.must(t, "archives")
	p.input(t, "alpine-latest-x86_64", incompressible(t, 64<<20))
	for signal, want := range map[syscall.Signal]int{syscall.SIGINT: 130, syscall.SIGTERM: 143} {
		for _, target := range []string{"archives", "package"} {
			before := tree(t, p.path("out"))
			c, text := p.command(t, target, "ARCHIVE_COMPRESSION=zstd:best")
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			p.started(t)
			if err := c.Process.Signal(signal); err != nil {
				t.Fatal(err)
			}
			_ = c.Wait() // ExitCode has the result
			if got := c.ProcessState.ExitCode(); got != want || strings.Contains(text.String(), "failed") {
				t.Errorf("%s, %v: status %d, want %d: %s", target, signal, got, want, text)
			}
			contains(t, text.String(), "interrupted by signal: "+signal.String(), "] alpine-latest-x86_64: interrupted\n")
			p.clean(t)
			// The other helper's archive may be complete by then.
			maps.DeleteFunc(before, func(name, _ string) bool { return !strings.Contains(name, "alpine") })
			p.unchanged(t, fmt.Sprint(target, ", ", signal), before)
		}
	}
}

func TestTwoBuilds(t *testing.T) {
	p := compile(t)
	p.input(t, "alpine-latest-x86_64", incompressible(t, 64<<20))
	c, text := p.command(t, "archives", "ARCHIVE_COMPRESSION=zstd:best")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	p.started(t)
	if err := c.Process.Signal(syscall.SIGSTOP); err != nil { // however long the others take
		t.Fatal(err)
	}
	for _, target := range []string{"archives", "package", "clean"} {
		if status, says := p.run(t, target); status != 1 || !strings.Contains(says, "lock "+p.path("out")+": another pretag is using it") {
			t.Errorf("%s: status %d: %s", target, status, says)
		}
	}
	if err := errors.Join(c.Process.Signal(syscall.SIGCONT), c.Wait()); err != nil {
		t.Errorf("the first: %v: %s", err, text)
	}
	p.clean(t)
}

// A run is killed as it publishes, once at each file: every file is the old or the new
// one, SHA256SUMS does not fit a mixture, and the next run completes the work.
func TestKilledWhilePublishing(t *testing.T) {
	p := compile(t)
	strace := testutil.Tool(t, "strace")
	setting, next := "SOURCE_DATE_EPOCH=1700000000", "SOURCE_DATE_EPOCH=1700000001"
	after := p.must(t, "package", next)
	before := p.must(t, "package", setting)
	mixtures := 0
	for at := range maps.Clone(after) {
		if strings.HasPrefix(at, release.ArchivesDir) || at == release.OwnedName {
			continue
		}
		q := *p
		q.wrap = []string{strace, "-f", "-qq", "-P", p.path("out", at), "-e", "trace=renameat", "-e", "inject=renameat:signal=SIGKILL", "-o", "/dev/null"}
		if status, text := q.run(t, "package", next); status != -1 {
			t.Fatalf("%s: status %d, want a kill: %s", at, status, text)
		}
		killed := tree(t, p.path("out"))
		isNew, isOld := 0, 0
		for name, body := range after {
			switch {
			case name == release.OwnedName || before[name] == body:
			case killed[name] == body:
				isNew++
			case killed[name] == before[name]:
				isOld++
			default:
				t.Errorf("at %s: %s is neither the old nor the new one", at, name)
			}
		}
		if isNew > 0 && isOld > 0 {
			mixtures++
			if sums, err := release.ReadSums(p.path("out")); err != nil || fit(sums, killed) {
				t.Errorf("at %s: %d new and %d old files, and SHA256SUMS fits them; %v", at, isNew, isOld, err)
			}
		}
		same(t, "the run after a kill at "+at, after, p.must(t, "package", next))
		before, after, setting, next = after, before, next, setting
	}
	if t.Logf("%d kills left a mixture", mixtures); mixtures < 10 {
		t.Errorf("%d kills left a mixture, want more", mixtures)
	}
}

// fit reports whether the sums are those of the files.
func fit(sums, files map[string]string) bool {
	for name, sum := range sums {
		if fmt.Sprintf("%x", sha256.Sum256([]byte(files[name]))) != sum {
			return false
		}
	}
	return true
}

// Wherever a run is killed, each file is the old or the new one, and the next run
// completes the work.
func TestKilledAnywhere(t *testing.T) {
	for target, kills := range map[string]int{"archives": 20, "package": 20} {
		t.Run(target, func(t *testing.T) {
			p := compile(t)
			settings := [2]string{"SOURCE_DATE_EPOCH=1700000000", "SOURCE_DATE_EPOCH=1700000001"}
			var want [2]map[string]string
			want[0] = p.must(t, target, settings[0])
			began := time.Now()
			want[1] = p.must(t, target, settings[1])
			took := time.Since(began)
			killed := 0
			for n := range kills {
				next := n % 2
				c, _ := p.command(t, target, settings[next])
				if err := c.Start(); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Duration(mathrand.Int64N(int64(took))))
				if err := c.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
					t.Fatal(err)
				}
				if err := c.Wait(); err != nil {
					killed++
				}
				for name, body := range tree(t, p.path("out")) {
					if name == release.OwnedName { // lists old and new files while they are replaced
						continue
					}
					if !strings.Contains(name, ".pretag-tmp") && body != want[0][name] && body != want[1][name] {
						t.Errorf("kill %d: %s is neither the old nor the new one", n, name)
					}
				}
				for name := range want[0] {
					if _, err := os.Stat(p.path("out", name)); err != nil {
						t.Errorf("kill %d: %v", n, err)
					}
				}
				if n%4 == 3 || t.Failed() { // a kill may follow on kills
					same(t, fmt.Sprintf("after kill %d", n), want[next], p.must(t, target, settings[next]))
				}
				if t.Failed() {
					return
				}
			}
			t.Logf("%d runs, %d killed before their end, of %v each", kills, killed, took)
		})
	}
}

// The bytes are the same for any user, umask and clock.
func TestSurroundings(t *testing.T) {
	p := compile(t)
	want := p.must(t, "package")
	again := func(what string, wrap []string, pairs ...string) {
		t.Helper()
		for _, name := range []string{"out", "tmp"} {
			if err := errors.Join(os.RemoveAll(p.path(name)), os.Mkdir(p.path(name), 0o755), os.Chmod(p.path(name), 0o777)); err != nil {
				t.Fatal(err)
			}
		}
		q := *p
		q.wrap = wrap
		same(t, what, want, q.must(t, "package", pairs...))
		err := filepath.WalkDir(p.path("out"), func(path string, d fs.DirEntry, err error) error {
			if err != nil || path == p.path("out") {
				return err
			}
			info, err := d.Info()
			if err == nil && (info.Mode().Perm()&0o022 != 0 || d.Type().IsRegular() && info.Mode().Perm() != 0o644) {
				t.Errorf("%s: %s has mode %v", what, path, info.Mode())
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
	for _, umask := range []string{"077", "000"} {
		again("umask "+umask, []string{"/bin/sh", "-c", "umask " + umask + `; exec "$@"`, "sh"})
	}
	again("wrong HOME and time zone", nil, "HOME=/nonexistent", "TZ=Pacific/Kiritimati", "LC_ALL=tr_TR.UTF-8")
	for _, year := range []int{1970, 2100} {
		mtime := time.Date(year, 1, 1, 0, 0, 1, 0, time.UTC)
		for _, name := range []string{"in/alpine-latest-x86_64.tar", "in/concrete-x86_64.tar", "in"} {
			if err := os.Chtimes(p.path(name), mtime, mtime); err != nil {
				t.Fatal(err)
			}
		}
		again(fmt.Sprintf("inputs of %d", year), nil)
	}
	if os.Geteuid() == 0 {
		for dir := p.path("out"); dir != os.TempDir(); dir = filepath.Dir(dir) {
			if err := os.Chmod(dir, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Chmod(filepath.Dir(p.binary), 0o755); err != nil {
			t.Fatal(err)
		}
		again("a user without a name", []string{testutil.Tool(t, "setpriv"), "--reuid=12345", "--regid=12345", "--clear-groups"})
	}
	for _, limit := range []string{"--nofile=20", "--as=4000000000", "--stack=1000000", "--nproc=200"} {
		again(limit, []string{testutil.Tool(t, "prlimit"), limit})
	}
	for _, epoch := range []string{"0", "4102444800"} { // 1970 and 2100
		p.must(t, "package", "SOURCE_DATE_EPOCH="+epoch)
	}
}

// Low limits cause an error or a crash, and nothing is lost.
func TestLowLimits(t *testing.T) {
	p := compile(t)
	p.must(t, "package")
	for _, limit := range []string{"--nofile=6", "--nofile=9", "--data=100000000", "--as=700000000"} {
		before := tree(t, p.path("out"))
		p.wrap = []string{testutil.Tool(t, "prlimit"), limit}
		status, text := p.run(t, "archives", "SOURCE_DATE_EPOCH=1", "ARCHIVE_COMPRESSION=zstd:best")
		t.Logf("%s: status %d: %.150s", limit, status, text)
		p.wrap = nil
		if status == 0 {
			p.must(t, "package")
			continue
		}
		p.unchanged(t, limit, before)
		p.must(t, "package")
	}
}

// The passphrase and the secret key are in no argument, no output and no other file,
// whether the key can be opened or not.
func TestSecrets(t *testing.T) {
	p := compile(t)
	gpg := newGPG(t)
	const passphrase = "correct-horse-battery-staple"
	key := gpg.key("secrets", "ed25519", passphrase, "never")
	line := strings.Split(string(read(t, key)), "\n")[3] // of the armored key
	for what, row := range map[string]struct {
		content, more string
		want          int
	}{
		"right":  {passphrase + "\n", "", 0},
		"wrong":  {passphrase + "-wrong\n", "", 1},
		"binary": {"\x00" + passphrase + "\xff", "", 1},
		"killed": {passphrase + "\n", "SOURCE_DATE_EPOCH=1700000002", -1},
	} {
		c, text := p.command(t, "package", "GPG_KEY_PATH="+key, "GPG_PASSPHRASE_PATH="+gpg.file("passphrase", row.content), row.more)
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		if row.want < 0 {
			time.Sleep(100 * time.Millisecond) // somewhere in it; on a fast machine behind it
			if err := c.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
		ended := make(chan bool)
		go func() { _ = c.Wait(); close(ended) }() // ProcessState has the result
		arguments := ""
		for running := true; running; {
			select {
			case <-ended:
				running = false
			case <-time.After(2 * time.Millisecond):
				files, _ := filepath.Glob("/proc/[0-9]*/cmdline") // the pattern is well formed
				for _, file := range files {
					if text, err := os.ReadFile(file); err == nil && !bytes.Contains(text, []byte("gpg")) {
						arguments += string(text)
					}
				}
			}
		}
		if got := c.ProcessState.ExitCode(); got != row.want && row.want >= 0 {
			t.Errorf("%s: status %d, want %d: %s", what, got, row.want, text)
		}
		for _, needle := range []string{passphrase, line} {
			if strings.Contains(arguments, needle) {
				t.Errorf("%s: a secret in the arguments of a process", what)
			}
			if strings.Contains(text.String(), needle) {
				t.Errorf("%s: a secret is printed: %s", what, text)
			}
			for _, dir := range []string{"out", "tmp", "in"} {
				for name, body := range tree(t, p.path(dir)) {
					if strings.Contains(body, needle) {
						t.Errorf("%s: a secret in %s", what, name)
					}
				}
			}
		}
	}
}

// A failing system call (writing, patching a header, mode, sync, rename) is reported,
// and the files that were good stay.
func TestSystemCallsFail(t *testing.T) {
	strace := testutil.Tool(t, "strace")
	for call, fault := range map[string]string{
		"fsync": "EIO", "pwrite64": "ENOSPC", "fchmod": "EIO", "renameat": "EIO",
	} {
		t.Run(call, func(t *testing.T) {
			p := compile(t)
			p.must(t, "archives")
			p.wrap = []string{strace, "-f", "-qq", "-o", "/dev/null", "-e", "trace=" + call, "-e", "inject=" + call + ":error=" + fault + ":when=1"}
			p.fails(t, "archives", []string{"prebuilt-"}, "SOURCE_DATE_EPOCH=1700000009", "JOBS=1", "HELPERS=alpine-latest-x86_64")
			p.wrap = nil
			p.must(t, "archives", "SOURCE_DATE_EPOCH=1700000009")
		})
	}
}
