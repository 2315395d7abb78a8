package engine

import "syscall"

// isolate returns the attributes of an engine's first process. It ends with this
// process. As root it has its own namespaces, and everything in them ends with it.
func isolate(root bool) *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{
		Setpgid:   true, // an interrupt at the terminal is ours to handle
		Pdeathsig: syscall.SIGTERM,
	}
	if root {
		attr.Pdeathsig = syscall.SIGKILL
		attr.Cloneflags = syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC
	}
	return attr
}
