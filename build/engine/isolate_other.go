//go:build !linux

package engine

import "syscall"

// isolate is never called here: [Find] finds no engine.
func isolate(bool) *syscall.SysProcAttr { return nil }
