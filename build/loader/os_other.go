//go:build !linux

package loader

import "syscall"

// The loader runs on Linux only. Elsewhere it is compiled so that the linters and the
// tests of other packages can run.

func newSession() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setsid: true} }

func kernelMachine() string { return "" }
