package verify

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"time"

	"pretag/build/release"
)

// rpmkeysCheck is the name of the check of rpms by the program rpmkeys.
const rpmkeysCheck = "rpmkeys"

// rpmkeys has rpm's own program check the signature of each rpm of a delivery that the
// key signer has signed, with the delivered key alone. An error is only ctx's, or that
// of a full disk.
func rpmkeys(ctx context.Context, out, signer string, packages []release.Package) (results []Result, err error) {
	var rpms []release.Package
	for _, p := range packages {
		if p.Format == release.RPM && signer != "" {
			rpms = append(rpms, p)
		}
	}
	if len(rpms) == 0 {
		return nil, nil
	}
	program, err := exec.LookPath("rpmkeys")
	if err != nil {
		return []Result{{Subject: release.RPM, Check: rpmkeysCheck, Status: Skipped, Says: "rpmkeys is not installed"}}, nil
	}
	db, err := os.MkdirTemp("", "pretag-rpmkeys-")
	if err != nil {
		return nil, err
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
	imported, importErr := run("--import", filepath.Join(out, release.KeyName))
	for _, p := range rpms {
		start := time.Now()
		r := Result{Subject: path.Join(p.Format, p.File), Check: rpmkeysCheck, Says: version}
		if importErr != nil {
			r.judge([]string{fmt.Sprintf("%s cannot read %s: %s", version, release.KeyName, imported)})
		} else {
			text, err := run("--checksig", "-v", p.Path)
			r.judge(lines(signedAsRPM(text, err, signer)))
			r.Repeat = fmt.Sprintf("rpmkeys --checksig -v %s", p.Path)
		}
		if err := context.Cause(ctx); err != nil {
			return nil, err
		}
		r.Seconds = time.Since(start).Seconds()
		results = append(results, r)
	}
	return results, nil
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
