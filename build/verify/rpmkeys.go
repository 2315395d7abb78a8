package verify

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"pretag/build/release"
)

// rpmkeys has rpm's own program check the signature of each rpm of a signed delivery,
// with the delivered key alone.
func (d *delivery) rpmkeys(ctx context.Context, results *[]Result) (err error) {
	isRPM := func(p release.Package) bool { return p.Format == release.RPM }
	if d.Signer == "" || !slices.ContainsFunc(d.Packages, isRPM) {
		return nil
	}
	program, err := exec.LookPath("rpmkeys")
	if err != nil {
		*results = append(*results, Result{Subject: release.RPM, Check: "rpmkeys", Status: Skipped, Says: "rpmkeys is not installed"})
		return nil
	}
	db, err := os.MkdirTemp("", "pretag-rpmkeys-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(db)) }()
	run := func(args ...string) (string, error) {
		// rpm 6 can keep keys in files, in _keyringpath, in place of the database.
		command := exec.CommandContext(ctx, program, append([]string{"--dbpath", db, "--define", "_keyringpath " + filepath.Join(db, "keys")}, args...)...)
		command.Env = append(command.Environ(), "LC_ALL=C")
		text, err := command.CombinedOutput()
		return strings.TrimSpace(printable(string(text))), err
	}
	version, _ := run("--version")
	imported, importErr := run("--import", filepath.Join(d.out, release.KeyName))
	for _, p := range d.Packages {
		if !isRPM(p) {
			continue
		}
		r := Result{Subject: path.Join(p.Format, p.File), Check: "rpmkeys", Says: version, Repeat: "rpmkeys --checksig -v " + p.Path}
		err := timed(results, r, func(r *Result) error {
			if importErr != nil {
				r.judge([]string{fmt.Sprintf("%s cannot read %s: %s", version, release.KeyName, imported)})
			} else {
				text, err := run("--checksig", "-v", p.Path)
				r.judge(lines(signedAsRPM(text, err, d.Signer)))
			}
			return context.Cause(ctx)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// signedAsRPM judges what "rpmkeys --checksig -v" printed. It exits with 0 for an
// unsigned package, so its text must name the key: with 8 digits of its ID in rpm 4.18,
// with more in later versions.
func signedAsRPM(text string, err error, keyID string) error {
	signed := false
	for line := range strings.Lines(text) {
		line = strings.ToLower(strings.TrimSpace(line))
		before, result, _ := strings.Cut(line, "signature, key ")
		signed = signed || before != line && strings.HasSuffix(result, ": ok") && strings.Contains(result, strings.ToLower(keyID[len(keyID)/2:])+":")
	}
	switch {
	case err != nil:
		return fmt.Errorf("%w: %s", err, strings.ReplaceAll(text, "\n", "; "))
	case !signed:
		return fmt.Errorf("no valid signature by key %s: %s", keyID, strings.ReplaceAll(text, "\n", "; "))
	}
	return nil
}
