package build

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Test runs all tests of the project: the fast ones and those that need root,
// engines or other programs.
func Test(ctx context.Context, ui *UI) error {
	return ui.run(ctx, "go", "test", "-tags=acceptance", "-timeout=60m", "./...")
}

// Bench runs the Go benchmarks, and then compares whole builds with the tools
// used today, if those are installed.
func Bench(ctx context.Context, ui *UI) error {
	if err := ui.run(ctx, "go", "test", "-run=^$", "-bench=.", "-benchmem", "./build/..."); err != nil {
		return err
	}
	program, err := os.Executable()
	if err != nil {
		return err
	}
	return ui.run(ctx, ".ci/bench", filepath.Join(defaultOut, "bench"), program)
}

// Check runs all linters, even if one of them fails.
func Check(ctx context.Context, ui *UI) error {
	return errors.Join(
		ui.run(ctx, "go", "vet", "-tags=acceptance", "./..."),
		ui.run(ctx, "env", "GOOS=darwin", "GOARCH=arm64", "go", "vet", "./..."),
		ui.run(ctx, "env", "GOOS=linux", "GOARCH=386", "go", "vet", "./..."),
		ui.run(ctx, "env", "GOOS=linux", "GOARCH=s390x", "go", "vet", "./..."),
		ui.run(ctx, "go", "vet", "-tags=mage", "."),
		ui.run(ctx, "env", "GOOS=windows", "go", "vet", "-tags=mage", "."),
		ui.run(ctx, "go", "tool", "staticcheck", "-tags=acceptance", "./..."),
		ui.run(ctx, "go", "tool", "staticcheck", "-tags=mage", "."),
		ui.run(ctx, "go", "tool", "gofumpt", "-d", "."),
		govulncheck(ctx, ui),
		ui.run(ctx, "sh", "-c", "grep -rlE --exclude='*.go' '^#!.*sh$' .ci build packaging | xargs shellcheck"),
	)
}

// run runs a command and shows its output.
func (ui *UI) run(ctx context.Context, name string, args ...string) error {
	ui.Say("%s %s", name, strings.Join(args, " "))
	command := exec.CommandContext(ctx, name, args...)
	command.Stdout, command.Stderr = ui.Out, ui.Err
	if err := command.Run(); err != nil {
		return fmt.Errorf("%s: %w", strings.Join(command.Args[:min(3, len(command.Args))], " "), err)
	}
	return nil
}

// vulnerable is the exit status of govulncheck if it found something
// (golang.org/x/vuln v1.9.0, internal/scan/errors.go).
const vulnerable = 3

// govulncheck only warns if the vulnerability database cannot be reached.
func govulncheck(ctx context.Context, ui *UI) error {
	err := ui.run(ctx, "go", "tool", "govulncheck", "./...")
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.ExitCode() != vulnerable {
		ui.Warn("cannot check for known vulnerabilities: %v", err)
		return nil
	}
	return err
}
