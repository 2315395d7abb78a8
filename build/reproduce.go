package build

import (
	"bytes"
	"cmp"
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
	"syscall"
	"time"

	"pretag/build/archive"
	"pretag/build/loaders"
	"pretag/build/release"
)

// reproduceDir is the folder below OUT in which Reproduce builds.
const reproduceDir = "reproduce"

// nobody is the user and group of the second build, where this one is root's
// (Debian Policy 9.2.2, "nobody" and "nogroup").
const nobody = 65534

// Reproduce builds the packages twice, in processes of their own and under
// conditions that differ, and compares every file of the two. What differs is
// explained by diffoscope, where that is installed.
func Reproduce(ctx context.Context, c Config, getenv func(string) string, ui *UI) error {
	unlock, err := lockOut(c.Out)
	if err != nil {
		return err
	}
	defer unlock()
	dir, err := filepath.Abs(filepath.Join(c.Out, reproduceDir))
	if err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	first, second, err := c.builds(ctx, dir, getenv("CATALOGUE"))
	if err != nil {
		return err
	}
	if err := c.rebuildLoaders(ctx, dir, &first, &second, ui); err != nil {
		return err
	}
	rows := [][]string{{"CONDITION", "FIRST", "SECOND"}}
	for _, name := range slices.Sorted(maps.Keys(first.conditions)) {
		rows = append(rows, []string{name, first.conditions[name], second.conditions[name]})
	}
	ui.Table(rows)
	for _, b := range []rebuild{first, second} {
		if err := b.run(ctx, c, getenv, ui); err != nil {
			return err
		}
	}
	same, differences, err := compareTrees(first.out, second.out)
	if err != nil {
		return err
	}
	for _, name := range differences {
		ui.Say("%s differs", name)
		explain(ctx, filepath.Join(first.out, name), filepath.Join(second.out, name), ui)
	}
	if len(differences) > 0 {
		return fmt.Errorf("%d of %d files differ; they are in %s", len(differences), same+len(differences), dir)
	}
	fmt.Fprintf(ui.Out, "%d files, all the same twice\n", same)
	return os.RemoveAll(dir)
}

// A rebuild is one of the two builds.
type rebuild struct {
	program    string // this one, where every user can run it
	inputs     string
	out        string
	umask      int
	nobody     bool
	hostname   string // "" leaves the host's
	env        []string
	conditions map[string]string // by what a person calls them
}

// builds lays out the two builds in dir. catalogue is the file of an own one, or "".
func (c Config) builds(ctx context.Context, dir, catalogue string) (first, second rebuild, err error) {
	self, err := os.Executable()
	if err != nil {
		return first, second, err
	}
	program := filepath.Join(dir, "pretag")
	first = rebuild{
		program: program, inputs: filepath.Join(dir, "first", "in"), out: filepath.Join(dir, "first", "out"), umask: 0o022,
		env:        []string{"TZ=UTC", "LC_ALL=C", "GOMAXPROCS=1", "JOBS=1"},
		conditions: map[string]string{"host name": "this one's", "input files": "0644, of 2001, in order", "user": "this one"},
	}
	second = rebuild{
		program: program, inputs: filepath.Join(dir, "second, a longer one", "helper tarballs"), out: filepath.Join(dir, "second, a longer one", "out"), umask: 0o077,
		env:        []string{"TZ=Pacific/Kiritimati", "LC_ALL=tr_TR.UTF-8", "GOMAXPROCS=4", "JOBS=3"},
		conditions: map[string]string{"host name": "this one's", "input files": "0600, of 2030, in reverse", "user": "this one"},
	}
	if mayNameHost() {
		second.hostname = "another-host"
		second.conditions["host name"] = second.hostname
	}
	if os.Geteuid() == 0 && c.Key == "" && reachable(dir) { // the key is root's alone
		second.nobody = true
		second.conditions["user"] = "nobody, without a home"
	}
	for _, b := range []*rebuild{&first, &second} {
		b.conditions["folder"], err = filepath.Rel(filepath.Dir(dir), b.out)
		if err != nil {
			return first, second, err
		}
		b.conditions["umask"] = fmt.Sprintf("%03o", b.umask)
		for _, pair := range b.env {
			name, value, _ := strings.Cut(pair, "=")
			b.conditions[name] = value
		}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return first, second, err
	}
	if err := copyFile(program, self, 0o755, time.Time{}); err != nil {
		return first, second, err
	}
	return first, second, errors.Join(c.copyInputs(ctx, first, catalogue, false, 0o644, 2001), c.copyInputs(ctx, second, catalogue, true, 0o600, 2030))
}

// rebuildLoaders gives each build loaders of its own. This user builds them, as the
// other has neither sources nor modules: the second ones from another path and with
// an empty build cache.
func (c Config) rebuildLoaders(ctx context.Context, dir string, first, second *rebuild, ui *UI) error {
	arches := c.hostArches()
	if len(arches) == 0 {
		return nil
	}
	source, err := filepath.Abs(".")
	if err != nil {
		return err
	}
	elsewhere := filepath.Join(dir, "another path")
	if err := os.Symlink(source, elsewhere); err != nil {
		return err
	}
	environ := slices.DeleteFunc(slices.Clone(c.GoEnviron), func(entry string) bool { return strings.HasPrefix(entry, "GOCACHE=") })
	for _, each := range []struct {
		build *rebuild
		loaders.Options
		condition string
	}{
		{first, loaders.Options{Source: source, Environ: c.GoEnviron}, "the project's folder"},
		{second, loaders.Options{Source: elsewhere, Environ: append(environ, "GOCACHE="+filepath.Join(dir, "go-cache"))}, "another path, empty build cache"},
	} {
		each.Out, each.GoArches = filepath.Join(dir, "loaders "+filepath.Base(filepath.Dir(each.build.out))), arches
		ui.Say("building loaders for %s: %s", strings.Join(arches, ", "), each.condition)
		_, err := loaders.Build(ctx, each.Options)
		if errors.Is(err, loaders.ErrNoToolchain) {
			ui.Warn("the loaders are the same files in both builds: %s", err)
			each.Out, err = filepath.Abs(cmp.Or(c.LoaderDir, filepath.Join(c.Out, loaderDir)))
			each.condition = "built ahead"
		}
		if err != nil {
			return err
		}
		each.build.env = append(each.build.env, "LOADERS="+each.Out)
		each.build.conditions["loaders"] = each.condition
	}
	return nil
}

// mayNameHost reports whether this process may have a host name of its own:
// root may not in most containers (CAP_SYS_ADMIN; uts_namespaces(7)).
func mayNameHost() bool {
	command := exec.Command("hostname", "any")
	command.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUTS}
	return command.Run() == nil
}

// reachable reports whether every user can get to the folder.
func reachable(dir string) bool {
	for dir = filepath.Dir(dir); ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil || info.Mode().Perm()&0o001 == 0 {
			return false
		}
		if dir == filepath.Dir(dir) {
			return true
		}
	}
}

// copyInputs copies the tarballs, what lies beside them, and the catalogue.
func (c Config) copyInputs(ctx context.Context, b rebuild, catalogue string, reverse bool, mode fs.FileMode, year int) error {
	files, err := archive.Inputs(ctx, c.archiveOptions())
	if err != nil {
		return err
	}
	if catalogue != "" {
		files = append(files, catalogue)
	}
	slices.Sort(files)
	files = slices.Compact(files)
	if reverse {
		slices.Reverse(files)
	}
	for _, dir := range []string{b.inputs, b.out} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	for _, file := range files {
		for _, suffix := range []string{"", release.OriginSuffix} {
			err := copyFile(filepath.Join(b.inputs, filepath.Base(file)+suffix), file+suffix, mode, time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC))
			if err != nil && !(suffix != "" && errors.Is(err, fs.ErrNotExist)) {
				return err
			}
		}
	}
	if !b.nobody {
		return nil
	}
	return filepath.WalkDir(filepath.Dir(b.out), func(path string, _ fs.DirEntry, err error) error {
		return errors.Join(err, os.Lchown(path, nobody, nobody))
	})
}

func copyFile(to, from string, mode fs.FileMode, mtime time.Time) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = out.ReadFrom(in)
	return errors.Join(err, out.Chmod(mode), out.Close(), os.Chtimes(to, time.Time{}, mtime))
}

// run runs the package target of this program under the build's conditions.
func (b rebuild) run(ctx context.Context, c Config, getenv func(string) string, ui *UI) error {
	script := fmt.Sprintf(`umask %03o && exec "$0" package`, b.umask)
	if b.hostname != "" {
		script = "hostname " + b.hostname + " && " + script
	}
	if b.nobody {
		script = strings.Replace(script, `exec "$0"`, fmt.Sprintf(`exec setpriv --reuid=%d --regid=%d --clear-groups "$0"`, nobody, nobody), 1)
	}
	command := exec.CommandContext(ctx, "sh", "-c", script, b.program)
	command.Env = append([]string{
		"PATH=" + getenv("PATH"),
		"HELPER_IMAGES=" + b.inputs,
		"OUT=" + b.out,
		"SOURCE_DATE_EPOCH=" + strconv.FormatInt(c.Time.Unix(), 10),
	}, b.env...)
	for _, name := range settingNames() {
		if value := getenv(name); value != "" {
			if name == "CATALOGUE" {
				value = filepath.Join(b.inputs, filepath.Base(value))
			}
			command.Env = append(command.Env, name+"="+value)
		}
	}
	if b.hostname != "" {
		command.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUTS}
	}
	var output bytes.Buffer
	command.Stdout, command.Stderr = &output, &output
	ui.Say("building in %s", b.out)
	if err := command.Run(); err != nil {
		return fmt.Errorf("build in %s: %w\n%s", b.out, cmp.Or(context.Cause(ctx), err), bytes.TrimSpace(output.Bytes()))
	}
	return nil
}

// settingNames lists the variables that both builds take as they are.
func settingNames() []string {
	return []string{
		"RUNNER_VERSION", "RUNNER_REVISION", "PACKAGES_ITERATION", "HELPERS", "CATALOGUE", "IMAGE_REPOSITORY",
		"ARCHIVE_COMPRESSION", "FORMATS", "PACKAGE_LAYOUT", "PACKAGE_MAINTAINER", "PACKAGE_VENDOR", "PACKAGE_HOMEPAGE",
		"GPG_KEY_PATH", "GPG_PASSPHRASE_PATH",
	}
}

// compareTrees counts the files that are the same in both folders and names the others.
func compareTrees(a, b string) (same int, differences []string, err error) {
	sums := map[string][2]string{}
	for i, dir := range []string{a, b} {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			name, err := filepath.Rel(dir, path)
			if err != nil {
				return err
			}
			sum, err := release.SHA256File(path)
			pair := sums[name]
			pair[i] = sum
			sums[name] = pair
			return err
		})
		if err != nil {
			return 0, nil, err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(sums)) {
		if sums[name][0] == sums[name][1] {
			same++
		} else {
			differences = append(differences, name)
		}
	}
	return same, differences, nil
}

// explain lets diffoscope say how two files differ.
func explain(ctx context.Context, a, b string, ui *UI) {
	out, err := exec.CommandContext(ctx, "diffoscope", "--max-text-report-size", "4000", a, b).Output()
	if errors.Is(err, exec.ErrNotFound) {
		ui.Warn("diffoscope is not installed; it would say how")
		return
	}
	ui.Say("%s", bytes.TrimSpace(out))
}
