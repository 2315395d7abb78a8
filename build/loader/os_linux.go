package loader

import "syscall"

// newSession starts a program in a session of its own, which ends with this process.
func newSession() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
}

// kernelMachine is the kernel's word for the architecture, or empty.
func kernelMachine() string {
	var name syscall.Utsname
	if err := syscall.Uname(&name); err != nil {
		return ""
	}
	var word []byte
	for _, c := range name.Machine {
		if c == 0 {
			break
		}
		word = append(word, byte(c))
	}
	return string(word)
}
