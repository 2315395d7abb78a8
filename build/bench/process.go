package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A Usage is what one run of a way took, from the start of its first process to
// the end of its last.
type Usage struct {
	Wall   time.Duration
	CPU    time.Duration // user and system, of all processes
	Memory int64         // bytes, the most that all processes had resident together
	Size   int64         // bytes, of what was made
}

// interval is how often memory is looked at.
const interval = 50 * time.Millisecond

// measure runs a shell script in the folder dir. The script leaves what it makes
// in the file result. As root it has its own process and mount namespaces, so that
// no daemon outlives it and each process's CPU is accounted for.
func measure(ctx context.Context, dir string, env []string, script string) (Usage, error) {
	argv := []string{"sh", "-c", script}
	if os.Geteuid() == 0 {
		argv = append([]string{"unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"}, argv...)
	}
	command := exec.CommandContext(ctx, argv[0], argv[1:]...)
	command.Dir, command.Env = dir, env
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	command.Cancel = func() error { return syscall.Kill(-command.Process.Pid, syscall.SIGKILL) }
	out, err := os.Create(filepath.Join(dir, "output")) // no pipe: Wait would wait for whom the script leaves behind
	if err != nil {
		return Usage{}, err
	}
	defer out.Close()
	command.Stdout, command.Stderr = out, out
	started := time.Now()
	if err := command.Start(); err != nil {
		return Usage{}, err
	}
	done := make(chan struct{})
	peak := make(chan int64)
	go func() { peak <- watch(command.Process.Pid, done) }()
	err = command.Wait()
	u := Usage{Wall: time.Since(started)}
	_ = syscall.Kill(-command.Process.Pid, syscall.SIGKILL) // it has ended where nobody is left
	close(done)
	u.Memory = <-peak
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return Usage{}, cause
		}
		text, readErr := os.ReadFile(out.Name())
		return Usage{}, errors.Join(fmt.Errorf("%w: %s", err, bytes.TrimSpace(text)), readErr)
	}
	u.CPU = command.ProcessState.UserTime() + command.ProcessState.SystemTime()
	info, err := os.Stat(filepath.Join(dir, "result"))
	if err != nil {
		return Usage{}, err
	}
	u.Size = info.Size()
	return u, nil
}

// watch returns the most memory, in bytes, that a process and its descendants
// had resident together until done is closed. The kernel's own ru_maxrss is of
// the largest process alone, and counts what that had before exec.
func watch(pid int, done <-chan struct{}) (peak int64) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-done:
			return peak
		case <-ticker.C:
			peak = max(peak, resident(strconv.Itoa(pid)))
		}
	}
}

// resident is the memory of a process and its descendants, in bytes. A process
// that has ended meanwhile has none.
func resident(pid string) int64 {
	statm, _ := os.ReadFile("/proc/" + pid + "/statm") // proc(5): size resident ..., in pages
	var size, pages int64
	fmt.Sscan(string(statm), &size, &pages)
	total := pages * int64(os.Getpagesize())
	lists, _ := filepath.Glob("/proc/" + pid + "/task/*/children") // the pattern is well formed
	for _, list := range lists {
		children, _ := os.ReadFile(list)
		for _, child := range strings.Fields(string(children)) {
			total += resident(child)
		}
	}
	return total
}
