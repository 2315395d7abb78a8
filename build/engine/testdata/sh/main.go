// Command sh stands in for a root filesystem's programs: as /bin/sh it knows
// "-c echo WORD", under any other name it runs its arguments, as dumb-init and
// a helper image's /entrypoint do.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

func main() {
	if filepath.Base(os.Args[0]) == "sh" {
		fmt.Println(strings.TrimPrefix(os.Args[2], "echo "))
		return
	}
	program := os.Args[1]
	if program == "sh" {
		program = "/bin/sh"
	}
	if err := syscall.Exec(program, os.Args[1:], os.Environ()); err != nil {
		fmt.Fprintln(os.Stderr, program, err)
		os.Exit(127)
	}
}
