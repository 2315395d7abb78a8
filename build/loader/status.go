package loader

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	helperimages "pretag/helper-images"

	"pretag/build/catalogue"
	"pretag/build/internal/nearest"
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

	foreign string // which image has the tag instead
}

// status reports what GitLab Runner asks for and what the engines have.
func (r *run) status(ctx context.Context) error {
	if err := r.readState(); err != nil {
		return err
	}
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
	err = r.each(ctx, p, func(ctx context.Context, t *target) error {
		own, err := r.targetRows(ctx, t, chosen, in)
		rows = append(rows, own...)
		return err
	})
	if err != nil {
		return err
	}
	for i := range in.Runners {
		r.judgeRunner(&in.Runners[i], in, p, rows)
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

// targetRows returns the rows of one target: the chosen archives, then other images
// that are asked for.
func (r *run) targetRows(ctx context.Context, t *target, chosen []record, in installation) ([]row, error) {
	var wanted []string
	for _, reference := range slices.Concat(references(chosen), in.Wants) {
		if !slices.Contains(wanted, reference) {
			wanted = append(wanted, reference)
		}
	}
	found, err := r.look(ctx, t, wanted...)
	if err != nil {
		return nil, err
	}
	var rows []row
	for _, reference := range wanted {
		each := row{Engine: t.word, User: t.user.name, Image: reference, State: missing, Wanted: slices.Contains(in.Wants, reference)}
		h := found[reference]
		if h != nil {
			each.ID, each.State = h.ID, unpackaged
		}
		if i := slices.IndexFunc(r.records, func(rec record) bool { return rec.RepoTag == reference }); i >= 0 {
			rec := r.records[i]
			each.Helper = rec.Helper
			if each.State, err = judge(ctx, rec, h, r.images.entries(t)); err != nil {
				if ctx.Err() != nil {
					return nil, context.Cause(ctx)
				}
				r.refuse(exitDataErr, "%s: %s: damaged: %s", t, rec.Helper, err)
				each.State = unknown
			}
			if each.State == foreign {
				each.foreign = explainForeign(rec, h)
			}
		}
		rows = append(rows, each)
	}
	return rows, nil
}

// judgeRunner finds out whether the engine that a runner asks has its image.
func (r *run) judgeRunner(each *runner, in installation, p plan, rows []row) {
	each.State = unknown
	var asked *target
	if i := slices.IndexFunc(p.targets, func(t *target) bool { return r.serves(t, *each) }); i >= 0 {
		asked = p.targets[i]
		each.target = asked.String()
	}
	switch {
	case each.Reason != "":
	case !in.installed || in.Version == "":
		each.Reason = "the version of GitLab Runner is not known"
	case each.Image == "":
		each.Reason = "its image is not known"
	case each.remote:
		each.Reason = "its executor creates machines that have their own engines"
	case asked == nil && r.endpoint(each.Host) == endpoint{}:
		each.Reason = "a remote engine is asked only if it is DOCKER_HOST"
	case asked == nil && (r.engineWord != "auto" || r.user != ""):
		each.Reason = "its engine is left out"
		return // as asked for: the exit status stays
	case asked == nil:
		each.Reason = "no engine of this host answers there: set host in [runners.docker], or install docker"
	default:
		// An engine that answers has a row for each image that is asked for.
		i := slices.IndexFunc(rows, func(own row) bool {
			return own.Engine == asked.word && own.User == asked.user.name && own.Image == each.Image
		})
		if i >= 0 {
			each.State = rows[i].State
			return
		}
		each.Reason = "the engine does not answer"
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
	return r.endpoint(each.Host).podmanUID == t.user.number()
}

func (r *run) printTable(in installation, rows []row) {
	if in.installed {
		r.say("GitLab Runner %s will ask for (*):", in.Version)
		for _, reference := range in.Wants {
			r.say("  %s", reference)
		}
		if note := newerThanKnown(in.Version, in.Revision); note != "" {
			r.say("  %s", note)
		}
	} else {
		r.say("GitLab Runner is not installed here.")
	}
	for _, reason := range in.Unclear {
		r.say("  unknown: %s", reason)
	}
	r.say("")
	lines := [][]string{{"", "ENGINE", "USER", "HELPER", "STATE", "ID", "IMAGE"}}
	for _, each := range rows {
		mark := ""
		if each.Wanted {
			mark = "*"
		}
		lines = append(lines, []string{mark, each.Engine, each.User, cmp.Or(each.Helper, "-"), each.State, fmt.Sprintf("%.12s", cmp.Or(each.ID, "-")), each.Image})
	}
	r.table(lines)
	if len(in.Runners) == 0 {
		return
	}
	r.say("")
	lines = [][]string{{"RUNNER", "ENGINE", "STATE", "IMAGE"}}
	for _, each := range in.Runners {
		state := each.State
		if each.Reason != "" {
			state += ": " + each.Reason
		}
		lines = append(lines, []string{each.Name, cmp.Or(each.target, each.Host, r.defaultHost()), state, cmp.Or(each.Image, "-")})
	}
	r.table(lines)
}

// table prints lines whose cells are aligned.
func (r *run) table(lines [][]string) {
	w := tabwriter.NewWriter(r.Stdout, 0, 0, 1, ' ', 0)
	for _, line := range lines {
		for i := range line {
			line[i] = visible(line[i]) // tabs, too
		}
		fmt.Fprintln(w, strings.Join(line, "\t"))
	}
	w.Flush() // as with say, an error is not reported
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
	encoder := json.NewEncoder(r.Stdout)
	encoder.SetEscapeHTML(false)
	return encoder.Encode(map[string]any{"runner": in, "images": rows, "runners": in.Runners})
}

// advise says on standard error how to get the images that are asked for and missing.
func (r *run) advise(in installation, rows []row, p plan, chosen []record) {
	said := map[string]bool{}
	say := func(format string, args ...any) {
		text := fmt.Sprintf(format, args...)
		if !said[text] {
			r.warn("%s", text)
		}
		said[text] = true
	}
	if !in.installed {
		for _, rec := range chosen {
			say("load would bring %s.", rec.RepoTag)
		}
	}
	for _, each := range rows {
		switch {
		case !each.Wanted || each.State != missing && each.State != foreign:
		case each.State == foreign:
			say("Another image has the tag: %s", each.foreign)
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
	if command := r.containerd(); command != "" {
		for _, rec := range chosen {
			say("For containerd: zstd -dc %s | %s", rec.Path, command)
		}
	}
}

// missingPackage says which package holds the image that is asked for. If none does,
// it suggests a flavor.
func (r *run) missingPackage(reference string, in installation) string {
	tag := reference[strings.LastIndexByte(reference, ':')+1:]
	all, err := catalogue.Parse("catalogue.yaml", helperimages.Catalogue)
	if err != nil {
		return err.Error()
	}
	version := catalogue.InstalledVersion(in.Version, in.Revision)
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
			return fmt.Sprintf("install its package, %s of version %s", name, in.Version)
		}
	}
	flavor := strings.TrimSuffix(tag, "-pwsh")
	flavor = strings.TrimSuffix(flavor, "-"+catalogue.RunnerArch(r.machine())+"-"+in.word())
	known := slices.Sorted(maps.Keys(flavors))
	if near, close := nearest.Word(flavor, known); close {
		return fmt.Sprintf("GitLab Runner %s has no flavor %q for this host; did you mean %q?", in.Version, flavor, near)
	}
	return fmt.Sprintf("GitLab Runner %s has no such image; its flavors for this host are %s", in.Version, strings.Join(known, ", "))
}
