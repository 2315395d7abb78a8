package build

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"pretag/build/archive"
	"pretag/build/release"
	"pretag/build/sign"
)

// Reproduce builds the packages twice, loaders included, in processes of their own
// and under different conditions, and compares every file. diffoscope explains
// the differences if it is installed.
func Reproduce(ctx context.Context, c Config, environ []string, ui *UI) error {
	unlock, err := lockOut(c.Out)
	if err != nil {
		return err
	}
	defer unlock()
	dir, err := filepath.Abs(filepath.Join(c.Out, "reproduce"))
	if err != nil {
		return err
	}
	passphrase, err := c.readSecrets(ctx)
	if err != nil {
		return err
	}
	inputs, err := archive.Inputs(ctx, c.archiveOptions())
	if err := errors.Join(err, os.RemoveAll(dir)); err != nil {
		return err
	}
	run, host := `exec "$0" package`, "this one's"
	otherRun, otherHost := run, host
	if exec.Command("unshare", "--uts", "hostname", "any").Run() == nil { // it takes CAP_SYS_ADMIN; uts_namespaces(7)
		otherHost = "another-host"
		otherRun = `exec unshare --uts sh -c 'hostname another-host; exec "$0" package' "$0"`
	}
	outs := []string{filepath.Join(dir, "first", "out"), filepath.Join(dir, "second, a longer name", "out")}
	if c.LoaderDir != "" {
		ui.Warn("both builds take the loaders in %s", c.LoaderDir)
	}
	ui.Say("building in %s with umask 022, host name %s", outs[0], host)
	if err := c.rebuild(ctx, outs[0], inputs, "umask 022; "+run, passphrase, environ, []string{
		"TZ=UTC", "LC_ALL=C", "GOMAXPROCS=1", "JOBS=1",
	}); err != nil {
		return err
	}
	ui.Say("building in %s with umask 077, host name %s, other TZ, LC_ALL, JOBS, GOCACHE", outs[1], otherHost)
	slices.Reverse(inputs)
	if err := c.rebuild(ctx, outs[1], inputs, "umask 077; "+otherRun, passphrase, environ, []string{
		"TZ=Pacific/Kiritimati", "LC_ALL=tr_TR.UTF-8", "GOMAXPROCS=4", "JOBS=3",
		"GOCACHE=" + filepath.Join(dir, "gocache"), // empty, so that the loaders are compiled again
	}); err != nil {
		return err
	}
	same, differences, err := compareTrees(ctx, outs[0], outs[1])
	if err != nil {
		return err
	}
	for _, name := range differences {
		out, err := exec.CommandContext(ctx, "diffoscope", "--max-text-report-size=4000", filepath.Join(outs[0], name), filepath.Join(outs[1], name)).Output()
		if errors.Is(err, exec.ErrNotFound) {
			out = []byte("diffoscope, which would explain it, is not installed")
		}
		ui.Say("%s differs\n%s", name, bytes.TrimSpace(out))
	}
	if len(differences) > 0 {
		return fmt.Errorf("%d of %d files differ; they are in %s", len(differences), same+len(differences), dir)
	}
	return errors.Join(ui.Print(fmt.Sprintf("%d files, each the same in both builds\n", same)), os.RemoveAll(dir))
}

// readSecrets returns the passphrase of the signing key. It may come from a pipe, which
// can be read only once. The builds read the key themselves.
func (c Config) readSecrets(ctx context.Context) (passphrase []byte, err error) {
	if info, err := os.Stat(c.Key); err == nil && !info.Mode().IsRegular() {
		return nil, errors.New("GPG_KEY_PATH names a pipe, and reproduce reads the key twice; want a file")
	}
	if c.Passphrase == "" {
		return nil, nil
	}
	return sign.ReadPassphrase(ctx, c.Passphrase)
}

// rebuild runs script, a shell command whose $0 is this program, with the variables
// that decide what is built and with other conditions. A passphrase goes through a pipe.
func (c Config) rebuild(ctx context.Context, out string, inputs []string, script string, passphrase []byte, environ, conditions []string) error {
	in := filepath.Join(filepath.Dir(out), "in")
	program, programErr := os.Executable()
	if err := errors.Join(programErr, os.MkdirAll(in, 0o755)); err != nil {
		return err
	}
	for _, input := range inputs {
		for _, file := range []string{input, input + release.OriginSuffix} {
			path, err := filepath.Abs(file)
			if err := errors.Join(err, os.Symlink(path, filepath.Join(in, filepath.Base(file)))); err != nil {
				return err
			}
		}
	}
	// The sources are the same, under a path that differs.
	source := filepath.Join(filepath.Dir(out), "source")
	here, err := os.Getwd()
	if err := errors.Join(err, os.Symlink(here, source)); err != nil {
		return err
	}
	command := exec.CommandContext(ctx, "sh", "-c", script, program)
	command.Dir = source
	command.Env = append(slices.Clone(c.GoEnviron), "PWD="+source)
	if c.LoaderDir != "" { // they may have been built where Go is
		command.Env = append(command.Env, "LOADERS="+c.LoaderDir)
	}
	for _, entry := range environ {
		name, _, _ := strings.Cut(entry, "=")
		if name != passphraseVariable && slices.ContainsFunc(variables(), func(v variable) bool { return v.name == name && v.record != nil }) {
			command.Env = append(command.Env, entry)
		}
	}
	command.Env = append(command.Env, "SOURCE_DATE_EPOCH="+strconv.FormatInt(c.Time.Unix(), 10), "HELPER_IMAGES="+in, "OUT="+out)
	command.Env = append(command.Env, conditions...)
	if passphrase != nil {
		read, write, err := os.Pipe()
		if err != nil {
			return err
		}
		defer read.Close()
		_, err = write.Write(passphrase) // less than a pipe holds
		if err := errors.Join(err, write.Close()); err != nil {
			return err
		}
		command.ExtraFiles = []*os.File{read}
		command.Env = append(command.Env, passphraseVariable+"=/dev/fd/3") // the first of ExtraFiles
	}
	if text, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("build in %s: %w\n%s", out, errors.Join(context.Cause(ctx), err), bytes.TrimSpace(text))
	}
	return nil
}

// compareTrees counts the files that are the same in both directories and names
// the others.
func compareTrees(ctx context.Context, a, b string) (same int, differences []string, err error) {
	first, err := sumTree(ctx, a)
	if err != nil {
		return 0, nil, err
	}
	second, err := sumTree(ctx, b)
	all := maps.Clone(first)
	maps.Copy(all, second)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if first[name] != second[name] {
			differences = append(differences, name)
		}
	}
	return len(all) - len(differences), differences, err
}

// sumTree returns the sha256 of each file below dir, by its relative path.
func sumTree(ctx context.Context, dir string) (map[string]string, error) {
	sums := map[string]string{}
	err := fs.WalkDir(os.DirFS(dir), ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			sums[name], err = release.SHA256File(ctx, filepath.Join(dir, name))
		}
		return err
	})
	return sums, err
}
