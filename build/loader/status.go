package loader

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	helperimages "pretag/helper-images"

	"pretag/build/catalogue"
	"pretag/build/internal/nearest"
	"pretag/build/release"
)

// A row is one image of one target.
type row struct {
	Engine string `json:"engine"`
	User   string `json:"user"`
	Helper string `json:"helper"`
	Image  string `json:"image"`
	State  string `json:"state"`
	ID     string `json:"id"`
	Wanted bool   `json:"wanted"`

	target string
}

// status reports what GitLab Runner asks for and what the engines have.
func (r *run) status(ctx context.Context) error {
	if _, err := r.scan(); err != nil {
		return err
	}
	in, err := r.installation(ctx, true)
	if err != nil {
		return err
	}
	p := r.plan(ctx, in)
	chosen := r.chosen()
	rows := []row{}
	states := map[string]map[string]string{} // by target and reference
	err = r.each(ctx, p, func(ctx context.Context, t *target) error {
		own, err := r.targetRows(ctx, t, chosen, in)
		if err == nil {
			rows = append(rows, own...)
			states[t.String()] = map[string]string{}
			for _, each := range own {
				states[t.String()][each.Image] = each.State
			}
		}
		return err
	})
	if err != nil {
		return err
	}
	for i := range in.runners {
		r.judgeRunner(&in.runners[i], in, p, states)
	}
	if r.json {
		err = r.printJSON(in, rows)
	} else {
		r.printTable(in, rows)
		r.advise(in, rows, p, chosen)
	}
	for _, each := range rows {
		switch each.State {
		case foreign:
			r.note(exitForeign)
		case missing, superseded:
			r.note(exitTempFail)
		}
	}
	return err
}

// targetRows returns the rows of one target: the chosen archives, then what is asked
// for and is in none of them.
func (r *run) targetRows(ctx context.Context, t *target, chosen []record, in installation) ([]row, error) {
	images, err := r.journal("images")
	if err != nil {
		return nil, err
	}
	records := slices.Clone(chosen)
	var others []string
	for _, reference := range in.wants {
		same := func(rec record) bool { return rec.RepoTag == reference }
		if slices.ContainsFunc(records, same) {
			continue
		}
		if i := slices.IndexFunc(r.records, same); i >= 0 {
			records = append(records, r.records[i]) // one that HELPER leaves out
		} else {
			others = append(others, reference)
		}
	}
	found, err := r.look(ctx, t, append(references(records), others...)...)
	if err != nil {
		return nil, err
	}
	var rows []row
	add := func(helper, reference, state string) {
		id := ""
		if h := found[reference]; h != nil {
			id = h.ID
		}
		rows = append(rows, row{t.engine, t.user.name, helper, reference, state, id, slices.Contains(in.wants, reference), t.String()})
	}
	for _, rec := range records {
		state, err := r.judge(ctx, t, rec, found[rec.RepoTag], images)
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if err != nil {
			r.refuse(exitDataErr, "%s: %s: damaged: %s", t, rec.Helper, err)
			state = unknown
		}
		add(rec.Helper, rec.RepoTag, state)
	}
	for _, reference := range others {
		state := missing
		if found[reference] != nil {
			state = unpackaged
		}
		add("", reference, state)
	}
	return rows, nil
}

// judgeRunner finds out whether the engine that a runner asks has its image.
func (r *run) judgeRunner(each *runner, in installation, p plan, states map[string]map[string]string) {
	each.State = unknown
	i := slices.IndexFunc(p.targets, func(t *target) bool { return r.serves(t, *each) })
	if i >= 0 {
		each.target = p.targets[i].String()
	}
	filtered := r.engineWord != "auto" || r.user != ""
	switch {
	case each.Reason != "":
	case !in.installed || in.version == "":
		each.Reason = "the version of GitLab Runner is not known"
	case each.Image == "":
		each.Reason = "its image is not known"
	case each.remote:
		each.Reason = "its executor makes machines with engines of their own"
	case i < 0 && r.endpoint(each.Host).remote:
		each.Reason = "a remote engine is asked only as DOCKER_HOST"
	case i < 0 && filtered:
		each.Reason = "its engine is left out"
		return // as asked for: the exit status stays
	case i < 0:
		each.Reason = "no engine of this host answers there: set host in [runners.docker], or install docker"
	case states[each.target] == nil:
		each.Reason = "the engine does not answer"
	default:
		if each.State = states[each.target][each.Image]; each.State != "" {
			return
		}
		each.State, each.Reason = unknown, "the engine was not asked"
	}
	r.note(exitTempFail)
}

// serves reports whether the target is the engine that the runner asks.
func (r *run) serves(t *target, each runner) bool {
	if each.remote {
		return false
	}
	if t.engine == "docker" {
		return r.same(t.host, each.Host)
	}
	uid := r.endpoint(each.Host).podmanUID
	return uid != "" && uid == fmt.Sprint(t.user.uid)
}

func (r *run) printTable(in installation, rows []row) {
	switch {
	case !in.installed:
		r.say("GitLab Runner is not installed here.")
	default:
		r.say("GitLab Runner %s will ask for (*):", in.version)
		for _, reference := range in.wants {
			r.say("  %s", reference)
		}
		if note := newerThanKnown(in.version, in.revision); note != "" {
			r.say("  %s", note)
		}
	}
	for _, reason := range in.unclear {
		r.say("  unknown: %s", reason)
	}
	r.say("")
	lines := [][]string{{"", "ENGINE", "USER", "HELPER", "STATE", "ID", "IMAGE"}}
	for _, each := range rows {
		mark, engine, id := "", each.Engine, "-"
		if each.Wanted {
			mark = "*"
		}
		if each.target != each.Engine+"/"+each.User {
			engine = each.target
		}
		if each.ID != "" {
			id = each.ID[:12]
		}
		helper := each.Helper
		if helper == "" {
			helper = "-"
		}
		lines = append(lines, []string{mark, engine, each.User, helper, each.State, id, each.Image})
	}
	r.table(lines)
	if len(in.runners) == 0 {
		return
	}
	r.say("")
	lines = [][]string{{"RUNNER", "ENGINE", "STATE", "IMAGE"}}
	for _, each := range in.runners {
		engine := each.target
		if engine == "" {
			engine = each.Host
			if engine == "" {
				engine = r.defaultHost()
			}
		}
		state := each.State
		if each.Reason != "" {
			state += ": " + each.Reason
		}
		image := each.Image
		if image == "" {
			image = "-"
		}
		lines = append(lines, []string{each.Name, engine, state, image})
	}
	r.table(lines)
}

func (r *run) table(lines [][]string) {
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 0, 1, ' ', 0)
	for _, line := range lines {
		for i := range line {
			line[i] = visible(line[i])
		}
		fmt.Fprintln(w, strings.Join(line, "\t"))
	}
	w.Flush() // a strings.Builder cannot fail
	fmt.Fprint(r.Stdout, text.String())
}

// newerThanKnown says so if Runner is newer than every version whose names are
// known; otherwise it returns "".
func newerThanKnown(version, revision string) string {
	newest := catalogue.Newest()
	if version == "" || catalogue.InstalledVersion(version, revision).Compare(newest) <= 0 {
		return ""
	}
	return fmt.Sprintf("GitLab Runner %s is newer than %s, the newest version that this loader knows; the names are those of %[2]s", version, newest)
}

func (r *run) printJSON(in installation, rows []row) error {
	type installed struct {
		Version  string   `json:"version"`
		Revision string   `json:"revision"`
		Wants    []string `json:"wants"`
		Unknown  []string `json:"unknown"`
	}
	encoder := json.NewEncoder(r.Stdout)
	encoder.SetEscapeHTML(false)
	return encoder.Encode(struct {
		Runner  installed `json:"runner"`
		Images  []row     `json:"images"`
		Runners []runner  `json:"runners"`
	}{
		installed{in.version, in.revision, append([]string{}, in.wants...), append([]string{}, in.unclear...)},
		rows,
		append([]runner{}, in.runners...),
	})
}

// advise says on standard error what brings the images that are asked for and missing.
func (r *run) advise(in installation, rows []row, p plan, chosen []record) {
	said := map[string]bool{}
	say := func(format string, args ...any) {
		if text := visible(fmt.Sprintf(format, args...)); !said[text] {
			said[text] = true
			fmt.Fprintln(r.Stderr, text)
		}
	}
	if !in.installed {
		for _, rec := range chosen {
			say("The archives would bring %s.", rec.RepoTag)
		}
	}
	for _, each := range rows {
		switch {
		case !each.Wanted || each.State != missing && each.State != foreign:
		case each.State == foreign:
			i := slices.IndexFunc(r.records, func(rec record) bool { return rec.RepoTag == each.Image })
			say("Another image has the tag: %s is %s, want %s (to replace it: gitlab-runner-helper-images load --replace %s)", each.Image, each.ID, r.records[i].id(), each.ID[:12])
		case each.Helper != "" && !r.selected(each.Helper):
			say("HELPER=%q leaves out %s.", strings.Join(r.globs, ","), each.Helper)
		case each.Helper != "":
			say("To load %s: gitlab-runner-helper-images load", each.Helper)
		case !strings.HasPrefix(each.Image, catalogue.Repository+":"):
			say("No package has %s: config.toml asks for it with helper_image.", each.Image)
		default:
			say("No archive here has %s: %s", each.Image, r.missingPackage(each.Image, in))
		}
	}
	r.adviseContainerd(chosen, say)
}

// missingPackage says which package holds the image that is asked for, or that
// there is none, and what flavor may have been meant.
func (r *run) missingPackage(reference string, in installation) string {
	tag := reference[strings.LastIndexByte(reference, ':')+1:]
	all, err := catalogue.Parse("catalogue.yaml", helperimages.Catalogue)
	if err != nil {
		return err.Error()
	}
	version := catalogue.InstalledVersion(in.version, in.revision)
	flavors := map[string]bool{}
	for _, h := range all.Existing(version) {
		if h.Arch == catalogue.RunnerArch(r.machine()) {
			flavors[h.Flavor] = true
		}
		if h.Tag(version) == tag {
			name := "gitlab-runner-helper-images"
			if !h.Packaged(version) || h.Shell != "" {
				name += "-" + h.PackageSuffix()
			}
			return fmt.Sprintf("install its package, %s of version %s", name, in.version)
		}
	}
	flavor := strings.TrimSuffix(tag, "-pwsh")
	flavor = strings.TrimSuffix(flavor, "-"+catalogue.RunnerArch(r.machine())+"-"+in.word())
	known := slices.Sorted(maps.Keys(flavors))
	if near, close := nearest.Word(flavor, known); close {
		return fmt.Sprintf("GitLab Runner %s has no flavor %q for this host; did you mean %q?", in.version, flavor, near)
	}
	return fmt.Sprintf("GitLab Runner %s has no such image; its flavors for this host are %s", in.version, strings.Join(known, ", "))
}

// adviseContainerd says what to type on a host whose engine is containerd alone.
func (r *run) adviseContainerd(chosen []record, say func(string, ...any)) {
	for _, each := range []struct{ socket, command, namespace string }{
		{"/run/k3s/containerd/containerd.sock", "k3s ctr", "k8s.io"},
		{"/run/containerd/containerd.sock", "ctr", "NAMESPACE"},
	} {
		if _, err := os.Stat(r.path(each.socket)); err != nil || r.find("docker") != "" && each.command == "ctr" {
			continue
		}
		for _, rec := range chosen {
			say("For containerd: zstd -dc %s | %s -n %s images import -", rec.Path, each.command, each.namespace)
		}
		return
	}
}

// unlisted returns the names of archives without a record.
func (r *run) unlisted() ([]string, error) {
	entries, err := os.ReadDir(r.archives)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var names []string
	for _, entry := range entries {
		name := entry.Name()
		if !strings.HasPrefix(name, "prebuilt-") || !strings.HasSuffix(name, catalogue.Suffix) {
			continue
		}
		if _, err := os.Stat(filepath.Join(r.archives, name+release.InfoSuffix)); errors.Is(err, fs.ErrNotExist) {
			names = append(names, name)
		}
	}
	return names, nil
}
