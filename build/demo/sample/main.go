// Command sample stands for every program of the demo's helper images: what it
// does depends on the name that it is called by. It imports next to nothing, so
// that it is built for an architecture in a second.
package main

import (
	"os"
	"runtime"
	"strings"
	"syscall"
)

func main() {
	name := os.Args[0][strings.LastIndexByte(os.Args[0], '/')+1:]
	switch args := os.Args[1:]; {
	case (name == "dumb-init" || name == "entrypoint") && len(args) > 0:
		run(args)
	case name == "sh" && len(args) == 2 && args[0] == "-c":
		shell(args[1])
	case name == "gitlab-runner-helper":
		os.Stdout.WriteString("pretag demo helper, " + runtime.GOOS + "/" + runtime.GOARCH + "\n")
	}
}

// run becomes the program args[0], looked up like a shell does.
func run(args []string) {
	path := args[0]
	if !strings.Contains(path, "/") {
		for _, dir := range strings.Split(os.Getenv("PATH"), ":") {
			if _, err := os.Stat(dir + "/" + path); err == nil {
				path = dir + "/" + path
				break
			}
		}
	}
	die(path, syscall.Exec(path, args, os.Environ()))
}

// shell knows one command: echo.
func shell(command string) {
	words := strings.Fields(command)
	if len(words) > 0 && words[0] == "echo" {
		os.Stdout.WriteString(strings.Join(words[1:], " ") + "\n")
		return
	}
	run(words)
}

func die(path string, err error) {
	os.Stderr.WriteString(path + ": " + err.Error() + "\n")
	os.Exit(127)
}
