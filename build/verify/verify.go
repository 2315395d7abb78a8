// Package verify checks what was built: on disk, file by file; in every container
// engine of the machine, loaded as GitLab Runner loads it; and, with a gitlab-runner
// program, by running CI jobs. It reports what it saw and does not change what it checks.
package verify

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"

	"pretag/build/engine"
	"pretag/build/release"
)

// A Status is how a check ended.
type Status string

// The ways for a check to end.
const (
	Passed  Status = "passed"
	Refused Status = "refused"     // the engine refused the archive, as this version of it is known to
	Failed  Status = "failed"      // see the problems
	Void    Status = "void"        // passed, but its control passed too: it proves nothing
	Skipped Status = "not checked" // Says has the reason; never counted as passed
)

// A Result is one check of one thing.
type Result struct {
	Subject  string   `json:"subject"` // a helper or a file below OUT
	Check    string   `json:"check"`
	Status   Status   `json:"status"`
	Says     string   `json:"says,omitempty"`     // what was seen
	Problems []string `json:"problems,omitempty"` // got and want
	Repeat   string   `json:"repeat,omitempty"`   // shell command that shows it again
	Trace    string   `json:"trace,omitempty"`    // of a job: file next to the report
	Seconds  float64  `json:"seconds"`

	log string // content of Trace
}

// judge sets the status: failed if there are problems.
func (r *Result) judge(problems []string) {
	r.Status, r.Problems = Passed, problems
	if len(problems) > 0 {
		r.Status = Failed
	}
}

// An EngineResult is what one engine did.
type EngineResult struct {
	Kind       engine.Kind `json:"kind"`
	Version    string      `json:"version,omitempty"`
	Driver     string      `json:"driver,omitempty"`     // of its image store
	NotChecked string      `json:"notChecked,omitempty"` // why, where it did not run
	Results    []Result    `json:"results,omitempty"`    // helper by helper
	// ProvedBy names, by form of archive and by way to load, the helper whose image
	// proves that way. The other images are loaded once.
	ProvedBy map[string]map[string]string `json:"provedBy,omitempty"`
	Seconds  float64                      `json:"seconds"`
}

// reportSchema is raised when a field of report.json changes its meaning or is removed.
const reportSchema = 2

// A Report is everything that was found. Apart from seconds and traces, equal
// deliveries on equal machines give equal reports.
type Report struct {
	Schema   int               `json:"schema"`
	Version  string            `json:"runnerVersion"`
	Totals   Totals            `json:"totals"`
	Job      JobRunner         `json:"job"`
	Archives []release.Archive `json:"archives"`
	Packages []release.Package `json:"packages"`
	Disk     []Result          `json:"disk"`
	Engines  []EngineResult    `json:"engines"`
}

// Totals counts the checks by their status.
type Totals struct {
	Passed            int `json:"passed"`
	Refused           int `json:"refused"`
	Failed            int `json:"failed"`
	Void              int `json:"void"`
	NotChecked        int `json:"notChecked"`
	Engines           int `json:"engines"`           // that ran
	EnginesNotChecked int `json:"enginesNotChecked"` // that did not
}

// A JobRunner is the GitLab Runner that ran the jobs.
type JobRunner struct {
	Version    string `json:"version,omitempty"`
	NotChecked string `json:"notChecked,omitempty"` // why there is none
}

func (j JobRunner) String() string {
	if j.Version == "" {
		return "not checked: " + j.NotChecked
	}
	return "run by GitLab Runner " + j.Version
}

// Options say what is verified and how.
type Options struct {
	Out      string            // the directory that package wrote
	Reports  string            // the directory that the reports are written into
	Engines  []string          // that must be there; nil for every one found
	Runner   string            // a gitlab-runner program; empty for the one in PATH
	Progress func(line string) // is called when a step ends; calls do not overlap
}

// Run checks everything in o.Out on disk and, in every engine, the archives that
// are right on disk. It writes the reports. An error says that the checks could
// not be made; what they found is in the report, and [Report.Err] is its verdict.
func Run(ctx context.Context, o Options) (Report, error) {
	// Nearly all memory is one decoder's window of 128 MiB, which costs the garbage
	// collector no time. By default it would wait for as much garbage again.
	defer debug.SetGCPercent(debug.SetGCPercent(20))
	report, d, err := begin(ctx, o.Out)
	if err != nil {
		return report, err
	}
	sound := report.sound()
	runner, why, err := findRunner(ctx, o.Runner, sound)
	if err != nil {
		return report, err
	}
	report.Job.NotChecked = why
	if runner != nil {
		report.Job.Version = runner.program.Version
	}
	s := session{decoder: d.decoder, runner: runner, progress: o.Progress}
	for _, f := range sound {
		s.images = append(s.images, expected{f, d.configs[f.Name]})
	}
	// The other checks on disk use the processor while an engine waits for its disk.
	var others []Result
	var diskErr error
	var all sync.WaitGroup
	all.Go(func() { others, diskErr = d.checkOthers(ctx) })
	report.Engines, err = s.run(ctx, o.Engines)
	all.Wait()
	report.Disk = append(report.Disk, others...)
	return report, errors.Join(err, diskErr, report.Write(o.Reports))
}

// OnDisk is the part of Run that needs no engine. It writes no report.
func OnDisk(ctx context.Context, out string) (Report, error) {
	report, d, err := begin(ctx, out)
	if err != nil {
		return report, err
	}
	others, err := d.checkOthers(ctx)
	report.Disk = append(report.Disk, others...)
	return report, err
}

// begin reads what is in out, and checks the archives.
func begin(ctx context.Context, out string) (Report, *delivery, error) {
	d, err := readDelivery(ctx, out)
	if err != nil {
		return Report{}, nil, err
	}
	report := Report{Schema: reportSchema, Version: d.Version, Archives: d.Archives, Packages: d.Packages}
	report.Disk, err = d.checkArchives(ctx)
	return report, d, err
}

// sound lists the archives whose check on disk passed. Only their records describe
// the images that engines should make of them.
func (r Report) sound() []release.Archive {
	return slices.DeleteFunc(slices.Clone(r.Archives), func(f release.Archive) bool {
		return worst(about(r.Disk, release.ArchivesDir+"/"+f.Name)) != Passed
	})
}

// Err is nil if nothing failed. It only counts what failed: Table has the details.
func (r Report) Err() error {
	t := r.Count()
	if t.Failed == 0 {
		return nil
	}
	return fmt.Errorf("verify: %d of %d checks failed", t.Failed, t.Passed+t.Refused+t.Failed+t.Void)
}

// Count returns the totals of the report.
func (r Report) Count() Totals {
	var t Totals
	count := map[Status]*int{Passed: &t.Passed, Refused: &t.Refused, Failed: &t.Failed, Void: &t.Void, Skipped: &t.NotChecked}
	all := [][]Result{r.Disk}
	for _, e := range r.Engines {
		all = append(all, e.Results)
		if e.NotChecked == "" {
			t.Engines++
		} else {
			t.EnginesNotChecked++
		}
	}
	for _, result := range slices.Concat(all...) {
		*count[result.Status]++
	}
	return t
}

// Summary returns the totals in a sentence.
func (r Report) Summary() string {
	t := r.Count()
	s := fmt.Sprintf("%d passed, %d failed", t.Passed, t.Failed)
	for _, also := range []struct {
		n    int
		what string
	}{{t.Void, "void"}, {t.Refused, "refused as expected"}, {t.NotChecked, "not checked"}} {
		if also.n > 0 {
			s += fmt.Sprintf(", %d %s", also.n, also.what)
		}
	}
	s += fmt.Sprintf("; %d engine", t.Engines)
	if t.Engines != 1 {
		s += "s"
	}
	if t.EnginesNotChecked > 0 {
		s += fmt.Sprintf(", %d not checked", t.EnginesNotChecked)
	}
	return s
}
