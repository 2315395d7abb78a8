//go:build mage

// pretag runs on Linux and macOS. On Windows every target ends with one sentence.
package main

import (
	"errors"
	"fmt"
	"os"
)

// init runs before mage looks at its arguments, so that every target gets the
// same answer.
func init() {
	fmt.Fprintln(os.Stderr, errWindows)
	os.Exit(1)
}

var errWindows = errors.New("pretag does not run on Windows; run it in WSL 2 or in a Linux container")

// Package is here because mage needs a target.
func Package() error { return errWindows }
