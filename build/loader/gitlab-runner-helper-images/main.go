// Command gitlab-runner-helper-images puts the helper images that are installed
// on this host into its container engines. See gitlab-runner-helper-images(8).
package main

import (
	"os"

	"pretag/build/loader"
)

func main() {
	os.Exit(loader.Main(loader.Process{Args: os.Args[1:], Environ: os.Environ(), Stdout: os.Stdout, Stderr: os.Stderr}))
}
