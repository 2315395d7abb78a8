package build

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
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
	scripts, err := shellScripts()
	if err != nil {
		return err
	}
	return errors.Join(
		ui.run(ctx, "go", "vet", "-tags=acceptance", "./..."),
		ui.run(ctx, "env", "GOOS=darwin", "GOARCH=arm64", "go", "vet", "./..."),
		ui.run(ctx, "env", "GOOS=linux", "GOARCH=386", "go", "vet", "./..."),
		ui.run(ctx, "env", "GOOS=linux", "GOARCH=s390x", "go", "vet", "./..."),
		ui.run(ctx, "go", "vet", "-tags=mage", "."),
		ui.run(ctx, "env", "GOOS=windows", "go", "vet", "-tags=mage", "."),
		ui.run(ctx, "go", "tool", "staticcheck", "-tags=acceptance", "./..."),
		ui.run(ctx, "go", "tool", "staticcheck", "-tags=mage", "."),
		gofumpt(ctx, ui),
		govulncheck(ctx, ui),
		ui.run(ctx, "shellcheck", scripts...),
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

// gofumpt reports files that are not formatted.
func gofumpt(ctx context.Context, ui *UI) error {
	ui.Say("go tool gofumpt -l .")
	out, err := exec.CommandContext(ctx, "go", "tool", "gofumpt", "-l", ".").Output()
	if err == nil && len(out) > 0 {
		err = fmt.Errorf("not formatted: %s", strings.Join(strings.Fields(string(out)), ", "))
	}
	if err != nil {
		return fmt.Errorf("gofumpt: %w", err)
	}
	return nil
}

// vulnerable is the exit status of govulncheck if it found something
// (golang.org/x/vuln v1.9.0, internal/scan/errors.go).
const vulnerable = 3

// govulncheck only warns if the vulnerability database cannot be reached.
func govulncheck(ctx context.Context, ui *UI) error {
	ui.Say("go tool govulncheck ./...")
	out, err := exec.CommandContext(ctx, "go", "tool", "govulncheck", "./...").CombinedOutput()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.ExitCode() != vulnerable {
		lines := bytes.Split(bytes.TrimSpace(out), []byte("\n"))
		ui.Warn("govulncheck did not run: %s", lines[len(lines)-1])
		return nil
	}
	if err != nil {
		return fmt.Errorf("govulncheck: %w\n%s", err, out)
	}
	return nil
}

// shellScripts lists the files below .ci, build and packaging that are shell scripts.
func shellScripts() ([]string, error) {
	var scripts []string
	for _, dir := range []string{".ci", "build", "packaging"} {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			head, err := firstLine(path)
			if strings.HasPrefix(head, "#!") && strings.HasSuffix(head, "sh") {
				scripts = append(scripts, path)
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return scripts, nil
}

func firstLine(path string) (string, error) {
	data, err := os.ReadFile(path)
	line, _, _ := strings.Cut(string(data), "\n")
	return line, err
}
