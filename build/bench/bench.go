// Package bench compares pretag, as whole processes, with the ways in which
// such archives and packages are made today. It measures and judges nothing; the
// Go benchmarks of the parts stand beside the parts.
package bench

import (
	"bufio"
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"pretag/build/catalogue"
)

// Options say what to compare and where.
type Options struct {
	Dir       string // of everything written; inputs stay there for the next time
	Program   string // path of pretag: a program that takes targets as arguments
	Rounds    int    // how often each way runs
	Catalogue *catalogue.Catalogue
	Say       func(format string, args ...any) // told of each run
}

// A comparison lists ways to the same end, by the names of their scripts. The
// first is pretag's.
type comparison struct {
	what string
	ways []string
	from []start // a round has one, the next round the next
}

// A start is what a way starts from.
type start struct {
	dir     string // of tarballs or archives
	helpers string // which of them, comma-separated
}

func (s start) String() string {
	if n := strings.Count(s.helpers, ","); n > 0 {
		return fmt.Sprintf("%d helpers", n+1)
	}
	return s.helpers
}

// comparisons are made in this order.
func comparisons(in inputs) []comparison {
	return []comparison{
		{"archives of two root filesystems", []string{"pretag"}, in.two},
		{"archives of twenty root filesystems", []string{"pretag"}, in.twenty},
		{"archive of a root filesystem (.tar.xz)", []string{"pretag", "floor", "podman", "crane"}, in.flat},
		{"archive of a root filesystem, smallest", []string{"pretag-ultra", "xz"}, in.flat},
		{"archive of an oci-archive", []string{"pretag", "skopeo", "today"}, in.oci},
		{"rpm of three archives", []string{"pretag-rpm", "rpmbuild"}, in.archives},
		{"deb of three archives", []string{"pretag-deb", "dpkg-deb"}, in.archives},
		{"rpm and deb of eight oci-archives", []string{"pretag-packages", "today"}, in.eight},
	}
}

//go:embed ways/*.sh
var scripts embed.FS

// A way is a shell script that makes the file result. Its first comment says
// what it is; a line "# needs:" lists programs, and root where it must be that.
type way struct {
	name   string
	script string
	lacks  string // what of its needs is not here
}

func loadWay(name string) (way, error) {
	script, err := fs.ReadFile(scripts, path.Join("ways", name+".sh"))
	if err != nil {
		return way{}, err
	}
	w := way{script: string(script)}
	for scanner := bufio.NewScanner(strings.NewReader(w.script)); scanner.Scan(); {
		line, comment := strings.CutPrefix(scanner.Text(), "# ")
		if !comment {
			continue
		}
		needs, ok := strings.CutPrefix(line, "needs: ")
		if !ok {
			w.name = line
			continue
		}
		for _, need := range strings.Fields(needs) {
			if _, err := exec.LookPath(need); err != nil && need != "root" || need == "root" && os.Geteuid() != 0 {
				w.lacks = strings.TrimSpace(w.lacks + " " + need)
			}
		}
	}
	return w, nil
}

// Compare runs every way, Rounds times. The ways take turns, in one order and
// then in the other, so that whatever else the machine does meets all of them. A way whose programs are not here is not measured, and listed so.
func Compare(ctx context.Context, o Options) (Report, error) {
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return Report{}, err
	}
	if why := lacksInputs(filepath.Join(dir, "input")); why != "" {
		return Report{Missing: []string{"whole builds: " + why}}, nil
	}
	env, err := o.programs(ctx, dir)
	if err != nil {
		return Report{}, err
	}
	in, err := o.inputs(ctx, filepath.Join(dir, "input"), env)
	if err != nil {
		return Report{}, err
	}
	var report Report
	for _, c := range comparisons(in) {
		ways, err := report.present(c.ways)
		if err != nil {
			return report, err
		}
		runs := make([][]Usage, len(ways))
		for round := range o.Rounds {
			from := c.from[round%len(c.from)]
			for turn := range ways {
				i := turn
				if round%2 == 1 {
					i = len(ways) - 1 - turn
				}
				u, err := run(ctx, filepath.Join(dir, "work"), ways[i].script, from, env)
				if err != nil {
					return report, fmt.Errorf("%s: %s: %w", ways[i].name, from, err)
				}
				runs[i] = append(runs[i], u)
				o.Say("%s: %s: %s", from, ways[i].name, u)
			}
		}
		for i, w := range ways {
			report.Rows = append(report.Rows, Row{c.what, w.name, runs[i], runs[0]})
		}
	}
	return report, nil
}

// present loads the ways that can be measured here and lists the others.
func (r *Report) present(names []string) (ways []way, err error) {
	for _, name := range names {
		w, err := loadWay(name)
		if err != nil {
			return nil, err
		}
		if w.lacks != "" {
			r.Missing = append(r.Missing, fmt.Sprintf("%s: no %s", w.name, w.lacks))
			continue
		}
		ways = append(ways, w)
	}
	return ways, nil
}

// run runs a script once, in a folder that is gone afterwards.
func run(ctx context.Context, work, script string, from start, env []string) (_ Usage, err error) {
	if err := errors.Join(os.RemoveAll(work), os.MkdirAll(work, 0o755)); err != nil {
		return Usage{}, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	return measure(ctx, work, slices.Concat(env, []string{
		"INPUT=" + from.dir,
		"HELPERS=" + from.helpers,
		"REPOSITORY=registry.example.com/gitlab-runner-helper",
	}), script)
}

// programs builds those that the ways use beside installed ones, and returns the
// environment of every way: nothing of our own but the search path and the home.
func (o Options) programs(ctx context.Context, dir string) ([]string, error) {
	crane, encode := filepath.Join(dir, "crane"), filepath.Join(dir, "encode")
	// crane has a module of its own, so that its dependencies are not pretag's.
	if err := errors.Join(
		os.RemoveAll(filepath.Join(dir, "ways")),
		os.CopyFS(dir, scripts),
		command(ctx, "go", "build", "-C", "build/bench/peers", "-o", crane, "github.com/google/go-containerregistry/cmd/crane"),
		command(ctx, "go", "build", "-o", encode, "./build/bench/encode"),
	); err != nil {
		return nil, err
	}
	env := slices.DeleteFunc(os.Environ(), func(s string) bool { return !strings.HasPrefix(s, "PATH=") && !strings.HasPrefix(s, "HOME=") })
	return append(env, "PRETAG="+o.Program, "CRANE="+crane, "ENCODE="+encode, "WAYS="+filepath.Join(dir, "ways"), "RUNNER_VERSION=19.3.0", "SOURCE_DATE_EPOCH=1767225600"), nil
}
