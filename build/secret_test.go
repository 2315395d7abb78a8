//go:build acceptance

package build_test

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"pretag/build/testutil"
)

// reproduce takes a passphrase from a pipe, which gives it once, and builds twice. The
// passphrase is in no argument, no environment and no file: strace shows every execve
// and every write of all processes.
func TestReproducePassphrasePipe(t *testing.T) {
	const passphrase = "correct-horse-battery-staple"
	key := newGPG(t).key("piped", "ed25519", passphrase, "never")
	for name, prepare := range map[string]func(t *testing.T, p *program, c *exec.Cmd) (path string, write func() error){
		"named pipe": func(t *testing.T, p *program, _ *exec.Cmd) (string, func() error) {
			fifo := p.path("fifo")
			if err := syscall.Mkfifo(fifo, 0o600); err != nil {
				t.Fatal(err)
			}
			return fifo, func() error { return os.WriteFile(fifo, []byte(passphrase+"\n"), 0) }
		},
		"descriptor": func(t *testing.T, _ *program, c *exec.Cmd) (string, func() error) {
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { r.Close() })
			c.ExtraFiles = []*os.File{r}
			return "/dev/fd/3", func() error {
				_, err := w.WriteString(passphrase + "\n")
				return errors.Join(err, w.Close())
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := compile(t)
			trace := p.path("trace")
			p.wrap = []string{testutil.Tool(t, "strace"), "-f", "-qq", "-y", "-v", "-s", "65536", "--seccomp-bpf", "-e", "trace=execve,write,writev,pwrite64,sendto,sendmsg", "-o", trace}
			c, text := p.command(t, "reproduce", "HELPERS=alpine-latest-x86_64", "GPG_KEY_PATH="+key)
			path, write := prepare(t, p, c)
			c.Env = append(c.Env, "GPG_PASSPHRASE_PATH="+path)
			written := make(chan error, 1)
			go func() { written <- write() }()
			if err := c.Run(); err != nil || !strings.Contains(text.String(), "files are the same in both builds") {
				t.Fatalf("%v\n%s", err, text)
			}
			if err := <-written; err != nil {
				t.Fatal(err)
			}
			f, err := os.Open(trace)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			builds, piped := 0, 0
			lines := bufio.NewScanner(f)
			lines.Buffer(nil, 16<<20)
			for lines.Scan() {
				line := lines.Text()
				if strings.Contains(line, "execve(") && strings.Contains(line, `"GPG_PASSPHRASE_PATH=/dev/fd/3"`) && strings.Contains(line, `"package"]`) {
					builds++
				}
				switch {
				case !strings.Contains(line, passphrase):
				case strings.Contains(line, "write(") && strings.Contains(line, "<pipe:["):
					piped++
				default:
					t.Errorf("the passphrase leaves the process: %.300s", line)
				}
			}
			if err := lines.Err(); err != nil || builds < 2 || piped != 2 {
				t.Errorf("%d builds with a pipe, the passphrase was written %d times into a pipe, want 2 and 2; %v", builds, piped, err)
			}
			if err := os.Remove(trace); err != nil {
				t.Fatal(err)
			}
			os.Remove(p.path("fifo")) // tree would read it
			for file, body := range tree(t, p.dir) {
				if strings.Contains(body, passphrase) {
					t.Errorf("%s holds the passphrase", file)
				}
			}
		})
	}
}
