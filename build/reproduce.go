package build

import (
	"bytes"
	"context"
	"errors"
	"fmt"
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
	if c.LoaderDir != "" {
		ui.Warn("both builds take the loaders in %s", c.LoaderDir)
	}
	command, host := `exec "$0" package`, "this one's"
	if exec.Command("unshare", "--uts", "hostname", "any").Run() == nil { // it takes CAP_SYS_ADMIN; uts_namespaces(7)
		command, host = `exec unshare --uts sh -c 'hostname another-host; exec "$0" package' "$0"`, "another-host"
	}
	first, second := filepath.Join(dir, "first"), filepath.Join(dir, "second, a longer name")
	for _, build := range []struct {
		dir, about, script string
		conditions         []string
	}{
		{
			first, "umask 022, host name this one's", `umask 022; exec "$0" package`,
			[]string{"TZ=UTC", "LC_ALL=C", "GOMAXPROCS=1", "JOBS=1"},
		},
		{
			second, "umask 077, host name " + host + ", other TZ, LC_ALL, JOBS, GOCACHE", "umask 077; " + command,
			// GOCACHE is empty, so that the loaders are compiled again.
			[]string{"TZ=Pacific/Kiritimati", "LC_ALL=tr_TR.UTF-8", "GOMAXPROCS=4", "JOBS=3", "GOCACHE=" + filepath.Join(dir, "gocache")},
		},
	} {
		ui.Say("building in %s with %s", build.dir, build.about)
		variables := append(c.environ(environ), build.conditions...)
		if err := rebuild(ctx, build.dir, inputs, build.script, passphrase, variables); err != nil {
			return err
		}
		slices.Reverse(inputs)
	}
	same, differences, err := compareTrees(ctx, filepath.Join(first, "out"), filepath.Join(second, "out"))
	if err != nil {
		return err
	}
	for _, name := range differences {
		out, err := exec.CommandContext(ctx, "diffoscope", "--max-text-report-size=4000", filepath.Join(first, "out", name), filepath.Join(second, "out", name)).Output()
		if errors.Is(err, exec.ErrNotFound) {
			out = []byte("diffoscope, which would explain it, is not installed")
		}
		ui.Say("%s differs\n%s", name, bytes.TrimSpace(out))
	}
	if len(differences) > 0 {
		return fmt.Errorf("%d of %d files differ; they are in %s", len(differences), same+len(differences), dir)
	}
	return errors.Join(ui.Print(fmt.Sprintf("%d files are the same in both builds\n", same)), os.RemoveAll(dir))
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

// environ returns those of the variables in environ that decide what is built, without
// the passphrase.
func (c Config) environ(environ []string) []string {
	kept := append(slices.Clone(c.GoEnviron), "SOURCE_DATE_EPOCH="+strconv.FormatInt(c.Time.Unix(), 10))
	if c.LoaderDir != "" { // they may have been built where Go is
		kept = append(kept, "LOADERS="+c.LoaderDir)
	}
	for _, v := range variables() {
		if v.record == nil || v.name == passphraseVariable || v.name == "SOURCE_DATE_EPOCH" {
			continue
		}
		for _, entry := range environ {
			if strings.HasPrefix(entry, v.name+"=") {
				kept = append(kept, entry)
			}
		}
	}
	return kept
}

// rebuild runs script, a shell command whose $0 is this program, with those variables.
// Inputs, sources and OUT are below dir. A passphrase goes through a pipe.
func rebuild(ctx context.Context, dir string, inputs []string, script string, passphrase []byte, environ []string) error {
	in, source := filepath.Join(dir, "in"), filepath.Join(dir, "source")
	here, hereErr := os.Getwd()
	program, programErr := os.Executable()
	if err := errors.Join(hereErr, programErr, os.MkdirAll(in, 0o755)); err != nil {
		return err
	}
	errs := []error{os.Symlink(here, source)} // the same sources, under another path
	for _, input := range inputs {
		for _, file := range []string{input, input + release.OriginSuffix} {
			path, err := filepath.Abs(file)
			errs = append(errs, err, os.Symlink(path, filepath.Join(in, filepath.Base(file))))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	command := exec.CommandContext(ctx, "sh", "-c", script, program)
	command.Dir = source
	command.Env = append(environ, "PWD="+source, "HELPER_IMAGES="+in, "OUT="+filepath.Join(dir, "out"))
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
		return fmt.Errorf("build in %s: %w\n%s", dir, errors.Join(context.Cause(ctx), err), bytes.TrimSpace(text))
	}
	return nil
}

// compareTrees counts the files that are the same in both directories and names
// the others.
func compareTrees(ctx context.Context, a, b string) (same int, differences []string, err error) {
	first, err := release.SHA256Tree(ctx, a)
	if err != nil {
		return 0, nil, err
	}
	second, err := release.SHA256Tree(ctx, b)
	all := maps.Clone(first)
	maps.Copy(all, second)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if first[name] != second[name] {
			differences = append(differences, name)
		}
	}
	return len(all) - len(differences), differences, err
}
