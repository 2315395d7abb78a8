package verify

import (
	"bytes"
	_ "embed" // of report.html
	"encoding/xml"
	"fmt"
	"html/template"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"text/tabwriter"
	"unicode"

	"pretag/build/engine"
	"pretag/build/internal/atomicfile"
	"pretag/build/internal/text"
	"pretag/build/release"
)

// Where the reports are below OUT. They are not part of what is delivered.
const (
	traces = "jobs" // below VerifyDir: the traces of jobs

	// Page is the report for a person.
	Page = release.VerifyDir + "/report.html"
)

// Write writes report.json, junit.xml, report.html and the traces of jobs into the new
// directory verify/ below out.
func (r Report) Write(out string) error {
	r.Totals = r.Count()
	dir := filepath.Join(out, release.VerifyDir)
	if err := os.MkdirAll(filepath.Join(dir, traces), 0o755); err != nil {
		return err
	}
	for _, e := range r.Engines {
		for i := range e.Results {
			if err := e.Results[i].writeTrace(dir, e.Kind); err != nil {
				return err
			}
		}
	}
	for _, f := range []struct {
		name   string
		render func() ([]byte, error)
	}{
		{"report.json", func() ([]byte, error) { return release.JSON(r) }},
		{"junit.xml", r.junit},
		{"report.html", r.html},
	} {
		content, err := f.render()
		if err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
		if err := atomicfile.WriteBytes(filepath.Join(dir, f.name), content); err != nil {
			return err
		}
	}
	return nil
}

// writeTrace writes the log of a job, if r is one, and sets Trace to its path below dir.
func (r *Result) writeTrace(dir string, kind engine.Kind) error {
	if r.log == "" {
		return nil
	}
	r.Trace = path.Join(traces, fmt.Sprintf("%s-%s-%s.txt", kind, r.Subject, r.Check))
	return atomicfile.WriteBytes(filepath.Join(dir, r.Trace), []byte(printable(r.log)))
}

// printable removes from a program's output what not every reader can show: escape
// sequences and invalid UTF-8.
func printable(s string) string {
	s = regexp.MustCompile("\x1b\\[[0-9;]*[A-Za-z]").ReplaceAllString(s, "")
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\r':
			return '\n'
		case r == '\n' || r == '\t' || unicode.IsPrint(r):
			return r
		}
		return -1
	}, strings.ToValidUTF8(s, "?"))
}

// Table returns the report for a terminal: helpers by engines, which image proves
// which way to load, and every problem with the command that repeats it.
func (r Report) Table() string {
	var b bytes.Buffer
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprint(t, "HELPER\tON DISK")
	for _, e := range r.Engines {
		fmt.Fprintf(t, "\t%s", strings.ToUpper(strings.TrimSpace(string(e.Kind)+" "+e.Version)))
	}
	fmt.Fprintln(t)
	for _, f := range r.Archives {
		fmt.Fprintf(t, "%s\t%s", f.Helper, summarize(about(r.Disk, release.ArchivesDir+"/"+f.Name)))
		for _, e := range r.Engines {
			fmt.Fprintf(t, "\t%s", e.Cell(f))
		}
		fmt.Fprintln(t)
	}
	t.Flush()
	for _, word := range [][2]string{
		{pipeOnly, "the engine takes the archive decompressed from a pipe, as the loader sends it, but not as a file; ARCHIVE_COMPRESSION=gzip is for such engines"},
		{"not run", "loaded and compared, but the image is for another architecture"},
	} {
		if strings.Contains(b.String(), word[0]) {
			fmt.Fprintf(&b, "%s: %s\n", word[0], word[1])
		}
	}
	for _, skipped := range r.Disk {
		if skipped.Status == Skipped {
			fmt.Fprintf(&b, "%s: %s: not checked: %s\n", skipped.Subject, skipped.Check, skipped.Says)
		}
	}
	for _, e := range r.Engines {
		if e.NotChecked != "" {
			fmt.Fprintf(&b, "%s: not checked: %s\n", e.Kind, e.NotChecked)
		}
		for _, proof := range e.Proofs() {
			fmt.Fprintf(&b, "%s: %s\n", e.Kind, proof)
		}
	}
	fmt.Fprintf(&b, "job: %s\n", r.Job)
	for _, p := range r.Problems() {
		fmt.Fprintf(&b, "\n%s: %s: %s FAILED\n", p.Place, p.Subject, p.Check)
		for _, problem := range p.Problems {
			fmt.Fprintf(&b, "  %s\n", problem)
		}
		if p.Repeat != "" {
			fmt.Fprintf(&b, "  repeat: %s\n", p.Repeat)
		}
	}
	fmt.Fprintf(&b, "%s\n", r.Summary())
	return b.String()
}

// A Problem is a failed check and where it failed.
type Problem struct {
	Place string // on disk, or an engine
	Result
}

// Problems lists every failed check.
func (r Report) Problems() []Problem {
	var problems []Problem
	add := func(place string, results []Result) {
		for _, result := range results {
			if result.Status == Failed {
				problems = append(problems, Problem{place, result})
			}
		}
	}
	add("on disk", r.Disk)
	for _, e := range r.Engines {
		add(string(e.Kind), e.Results)
	}
	return problems
}

func about(results []Result, subject string) []Result {
	var of []Result
	for _, r := range results {
		if r.Subject == subject {
			of = append(of, r)
		}
	}
	return of
}

// Of lists the engine's results for one helper.
func (e EngineResult) Of(helper string) []Result { return about(e.Results, helper) }

// Cell is the engine's result for an archive in a few words. An engine that refuses one
// archive of a form refuses all of them, also those that were loaded by pipe alone.
func (e EngineResult) Cell(f release.Archive) string {
	cell := summarize(e.Of(f.Helper))
	form := method(f)
	for way := range e.ProvedBy[form] {
		if rest, ok := strings.CutPrefix(cell, loads); ok && e.proof(form, way).Status == Refused {
			return pipeOnly + rest
		}
	}
	return cell
}

// proof returns the result that proves, or does not prove, a way to load archives of a form.
func (e EngineResult) proof(form, way string) Result {
	for _, r := range e.Of(e.ProvedBy[form][way]) {
		if r.Check == way {
			return r
		}
	}
	return Result{Status: Skipped}
}

// Proofs says, for each form of archive, which image shows whether a way to load it works.
func (e EngineResult) Proofs() []string {
	var proofs []string
	for _, form := range slices.Sorted(maps.Keys(e.ProvedBy)) {
		helpers := e.ProvedBy[form]
		var ways []string
		for _, way := range slices.Sorted(maps.Keys(helpers)) {
			ways = append(ways, fmt.Sprintf("%s %s (%s)", way, e.proof(form, way).Status, helpers[way]))
		}
		proofs = append(proofs, fmt.Sprintf("%s archives: %s", form, strings.Join(ways, ", ")))
	}
	return proofs
}

// Words of summarize.
const (
	loads    = "ok"
	pipeOnly = "pipe only"
)

// summarize returns the results of one archive in a few words: ok, which checks
// failed, or how else it loads.
func summarize(results []Result) string {
	var failed []string
	run, job := true, ""
	for _, r := range results {
		if r.Status == Failed {
			failed = append(failed, r.Check)
		}
		switch {
		case r.Check == "run" && r.Status == Skipped:
			run = false
		case r.Check == jobCheck && r.Status == Passed:
			job = ", job ok"
		case r.Check == jobCheck && r.Status == Skipped:
			job = ", no job"
		}
	}
	var s string
	switch worst(results) {
	case Skipped:
		return string(Skipped)
	case Failed:
		return "FAILED: " + strings.Join(failed, ", ")
	case Refused:
		s = pipeOnly
	case Void:
		return "job void"
	case Passed:
		s = loads
	}
	if !run {
		s += ", not run"
	}
	return s + job
}

// The JUnit form, as far as GitLab reads it (GitLab, doc/ci/testing/unit_test_reports.md).
type junitSuites struct {
	XMLName xml.Name     `xml:"testsuites"`
	Name    string       `xml:"name,attr"`
	Suites  []junitSuite `xml:"testsuite"`
}

type junitSuite struct {
	Name     string      `xml:"name,attr"`
	Tests    int         `xml:"tests,attr"`
	Failures int         `xml:"failures,attr"`
	Skipped  int         `xml:"skipped,attr"`
	Time     string      `xml:"time,attr"`
	Cases    []junitCase `xml:"testcase"`
}

type junitCase struct {
	Class   string        `xml:"classname,attr"`
	Name    string        `xml:"name,attr"`
	Time    string        `xml:"time,attr"`
	Failure *junitMessage `xml:"failure"`
	Skipped *junitMessage `xml:"skipped"`
	Output  string        `xml:"system-out,omitempty"`
}

type junitMessage struct {
	Message string `xml:"message,attr"`
	Text    string `xml:",chardata"`
}

// junit returns junit.xml: a suite for the disk and one for each engine. An engine
// that did not run is a skipped case.
func (r Report) junit() ([]byte, error) {
	var seconds float64
	for _, result := range r.Disk {
		seconds += result.Seconds
	}
	all := junitSuites{Name: "pretag verify", Suites: []junitSuite{suite("on disk", seconds, r.Disk)}}
	for _, e := range r.Engines {
		results := e.Results
		if e.NotChecked != "" {
			results = append([]Result{{Subject: string(e.Kind), Check: "engine", Status: Skipped, Says: e.NotChecked}}, results...)
		}
		all.Suites = append(all.Suites, suite(strings.TrimSpace(string(e.Kind)+" "+e.Version), e.Seconds, results))
	}
	content, err := xml.MarshalIndent(all, "", "  ")
	return slices.Concat([]byte(xml.Header), content, []byte("\n")), err
}

func suite(name string, seconds float64, results []Result) junitSuite {
	s := junitSuite{Name: name, Tests: len(results), Time: junitTime(seconds)}
	for _, r := range results {
		c := r.junit()
		if c.Failure != nil {
			s.Failures++
		}
		if c.Skipped != nil {
			s.Skipped++
		}
		s.Cases = append(s.Cases, c)
	}
	return s
}

func (r Result) junit() junitCase {
	c := junitCase{Class: r.Subject, Name: r.Check, Time: junitTime(r.Seconds), Output: r.Says}
	switch r.Status {
	case Failed:
		text := strings.Join(r.Problems, "\n")
		if r.Repeat != "" {
			text += "\nrepeat: " + r.Repeat
		}
		c.Failure = &junitMessage{r.Problems[0], text}
		if r.log != "" {
			c.Output = printable(r.log)
		}
	case Void:
		c.Failure = &junitMessage{Message: "void: " + r.Says}
	case Skipped:
		c.Skipped, c.Output = &junitMessage{Message: r.Says}, ""
	case Refused:
		c.Output = "refused, as expected: " + r.Says
	case Passed:
	}
	return c
}

func junitTime(seconds float64) string { return fmt.Sprintf("%.3f", seconds) }

//go:embed report.html
var page string

// html returns report.html, which needs no other file.
func (r Report) html() ([]byte, error) {
	var largest int64
	for _, f := range r.Archives {
		largest = max(largest, f.UnpackedSize, f.Size)
	}
	t, err := template.New("report.html").Funcs(template.FuncMap{
		"size":    text.Bytes,
		"percent": func(n, of int64) string { return fmt.Sprintf("%.2f%%", 100*float64(n)/float64(max(of, 1))) },
		"largest": func() int64 { return largest },
		"seconds": func(s float64) string { return fmt.Sprintf("%.1f s", s) },
		"class":   func(s Status) string { return strings.ReplaceAll(string(s), " ", "-") },
		"worst":   worst,
		"checks":  checks,
		"disk":    func(f string) []Result { return about(r.Disk, release.ArchivesDir+"/"+f) },
		"cell":    summarize,
	}).Parse(page)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	err = t.Execute(&b, r)
	return b.Bytes(), err
}

// A checkText explains a check.
type checkText struct{ Name, Text string }

func checks() []checkText {
	return []checkText{
		{"load", "podman load or docker load takes the archive as it is, and the store then holds exactly this image with exactly its tag"},
		{"runner", "the same through the engine's API, step by step as GitLab Runner 17.9 and later load it"},
		{"pipe", "the same for the decompressed archive from a pipe, as the loader sends it"},
		{"lookup", "the engine finds the image by its tag: GitLab Runner's first look, and all that versions below 17.9 need"},
		{"stored", "the store returns the image with the right image ID and diff IDs, computed from its bytes"},
		{"run", "the image runs without a network, through its own entrypoint, and prints a word that no other image prints"},
		{jobCheck, "GitLab Runner runs a CI job with the image, which was in the store before"},
		{jobControl, "the same job fails while neither the image nor its archive can be found"},
		{jobFileCheck, "the same job succeeds when GitLab Runner finds the archive in its own directory and loads it"},
	}
}
