// Command git is a substitute for git in test images: it prints the content of every
// file in a bare repository, for runnertest.
package main

import (
	"bytes"
	"compress/zlib"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

func main() {
	if len(os.Args) == 2 && os.Args[1] == "--version" {
		fmt.Println("git version 0")
		return
	}
	if len(os.Args) != 3 || os.Args[1] != "print" {
		fmt.Fprintf(os.Stderr, "arguments are %q\n", os.Args)
		os.Exit(2)
	}
	objects, err := filepath.Glob(filepath.Join(os.Args[2], "objects", "??", "*"))
	if err != nil || len(objects) == 0 {
		fmt.Fprintln(os.Stderr, "no objects", err)
		os.Exit(1)
	}
	for _, path := range objects {
		if err := show(path); err != nil {
			fmt.Fprintln(os.Stderr, path, err)
			os.Exit(1)
		}
	}
}

func show(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	r, err := zlib.NewReader(f)
	if err != nil {
		return err
	}
	content, err := io.ReadAll(r)
	if header, body, ok := bytes.Cut(content, []byte{0}); ok && bytes.HasPrefix(header, []byte("blob ")) {
		os.Stdout.Write(body)
	}
	return err
}
