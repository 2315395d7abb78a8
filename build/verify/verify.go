// Package verify proves that what was built is what it claims: on disk, file by
// file, and in every container engine at hand, loaded the way GitLab Runner
// loads it. It reports what it saw and changes nothing of what it checks.
package verify

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"pretag/build/engine"
	"pretag/build/release"
)

// A Status is how a check ended.
type Status string

// The ways for a check to end.
const (
	Passed  Status = "passed"
	Refused Status = "refused"     // the engine said no, as it was expected to
	Failed  Status = "failed"      // see the problems
	Skipped Status = "not checked" // what it says tells why; never counted as passed
)

// A Result is one check of one thing.
type Result struct {
	Subject  string   `json:"subject"` // a helper, a file below OUT, a control
	Check    string   `json:"check"`
	Status   Status   `json:"status"`
	Says     string   `json:"says,omitempty"`     // what was seen
	Problems []string `json:"problems,omitempty"` // got and want
	Repeat   string   `json:"repeat,omitempty"`   // shell command that shows it again
	Seconds  float64  `json:"seconds"`
}

// judge settles the status by the problems.
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
	Controls   []Result    `json:"controls,omitempty"`   // checks of the checks
	Results    []Result    `json:"results,omitempty"`    // helper by helper
	Seconds    float64     `json:"seconds"`
}

// A Report is everything that was found. But for the seconds, equal deliveries
// on equal machines give equal reports.
type Report struct {
	Version  string            `json:"runnerVersion"`
	Archives []release.Archive `json:"archives"`
	Packages []release.Package `json:"packages"`
	Disk     []Result          `json:"disk"`
	Engines  []EngineResult    `json:"engines"`
}

// Sound lists the archives whose check on disk passed. Only of those do the
// records say what an engine should make of them.
func (r Report) Sound() []release.Archive {
	return slices.DeleteFunc(slices.Clone(r.Archives), func(f release.Archive) bool {
		return worst(about(r.Disk, "helper-images/"+f.Name)) != Passed
	})
}

// Err is nil when nothing failed. Otherwise it names every failed check with
// its first problems; Table has all.
func (r Report) Err() error {
	var errs []error
	for _, p := range r.Problems() {
		few := p.Problems
		if more := len(few) - 2; more > 1 {
			few = append(slices.Clone(few[:2]), fmt.Sprintf("and %d more", more))
		}
		errs = append(errs, fmt.Errorf("%s: %s: %s: %s", p.Place, p.Subject, p.Check, strings.Join(few, "; ")))
	}
	return errors.Join(errs...)
}

// Summary counts the checks, in a sentence.
func (r Report) Summary() string {
	count := map[Status]int{}
	add := func(results []Result) {
		for _, result := range results {
			count[result.Status]++
		}
	}
	add(r.Disk)
	var engines, absent int
	for _, e := range r.Engines {
		add(e.Controls)
		add(e.Results)
		if e.NotChecked == "" {
			engines++
		} else {
			absent++
		}
	}
	s := fmt.Sprintf("%d passed, %d failed", count[Passed], count[Failed])
	if n := count[Refused]; n > 0 {
		s += fmt.Sprintf(", %d refused as expected", n)
	}
	if n := count[Skipped]; n > 0 {
		s += fmt.Sprintf(", %d not checked", n)
	}
	s += fmt.Sprintf("; %d engine", engines)
	if engines != 1 {
		s += "s"
	}
	if absent > 0 {
		s += fmt.Sprintf(", %d not checked", absent)
	}
	return s
}
