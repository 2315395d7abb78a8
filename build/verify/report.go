package verify

import (
	"bytes"
	_ "embed" // of report.html
	"encoding/json"
	"encoding/xml"
	"fmt"
	"html/template"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"pretag/build/internal/atomicfile"
)

// folder is where the reports go, below OUT; it is no part of what is delivered.
const folder = "verify"

// Write writes report.json, junit.xml and report.html into verify/ below out,
// and returns their paths.
func (r Report) Write(out string) ([]string, error) {
	dir := filepath.Join(out, folder)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	var paths []string
	for _, f := range []struct {
		name   string
		render func(io.Writer) error
	}{
		{"report.json", r.writeJSON},
		{"junit.xml", r.writeJUnit},
		{"report.html", r.writeHTML},
	} {
		path := filepath.Join(dir, f.name)
		if err := atomicfile.Write(path, func(w *os.File) error { return f.render(w) }); err != nil {
			return paths, err
		}
		paths = append(paths, path)
	}
	return paths, nil
}

func (r Report) writeJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(r)
}

// Table is what a person reads at the terminal: helpers by engines,
// what the controls showed, and every problem with the command that repeats it.
func (r Report) Table() string {
	var b bytes.Buffer
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprint(t, "HELPER\tON DISK")
	for _, e := range r.Engines {
		fmt.Fprintf(t, "\t%s", strings.ToUpper(strings.TrimSpace(string(e.Kind)+" "+e.Version)))
	}
	fmt.Fprintln(t)
	for _, f := range r.Archives {
		fmt.Fprintf(t, "%s\t%s", f.Helper, summarize(about(r.Disk, "helper-images/"+f.Name)))
		for _, e := range r.Engines {
			fmt.Fprintf(t, "\t%s", e.Cell(f.Helper))
		}
		fmt.Fprintln(t)
	}
	fmt.Fprint(t, "controls\t")
	for _, e := range r.Engines {
		fmt.Fprintf(t, "\t%s", e.controlsCell())
	}
	fmt.Fprintln(t)
	t.Flush()
	for _, word := range [][2]string{
		{"pipe only", "takes the archive from zstd -dc, as the loader does it, and not as a file; ARCHIVE_COMPRESSION=gzip is for such engines"},
		{"not run", "is loaded and compared, but not of this machine's architecture"},
		{"fired", "archives that are wrong on purpose were found out"},
	} {
		if strings.Contains(b.String(), word[0]) {
			fmt.Fprintf(&b, "%s: %s\n", word[0], word[1])
		}
	}
	for _, e := range r.Engines {
		if e.NotChecked != "" {
			fmt.Fprintf(&b, "%s: not checked: %s\n", e.Kind, e.NotChecked)
		}
	}
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
	var table strings.Builder
	for line := range strings.Lines(b.String()) {
		table.WriteString(strings.TrimRight(line, " \n") + "\n")
	}
	return table.String()
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
		add(string(e.Kind), e.Controls)
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

// Cell is the engine's verdict on a helper, in a word or three.
func (e EngineResult) Cell(helper string) string { return summarize(e.Of(helper)) }

func (e EngineResult) controlsCell() string {
	switch worst(e.Controls) {
	case Skipped:
		return string(Skipped)
	case Failed:
		return "FAILED"
	}
	return "fired"
}

// summarize tells of one archive's results in one place: ok, what failed, or how else it loads.
func summarize(results []Result) string {
	var failed []string
	run := true
	for _, r := range results {
		if r.Status == Failed {
			failed = append(failed, r.Check)
		}
		if r.Check == "run" && r.Status == Skipped {
			run = false
		}
	}
	var s string
	switch worst(results) {
	case Skipped:
		return string(Skipped)
	case Failed:
		return "FAILED: " + strings.Join(failed, ", ")
	case Refused:
		s = "pipe only"
	case Passed:
		s = "ok"
	}
	if !run {
		s += ", not run"
	}
	return s
}

// The JUnit form, as far as GitLab reads it (GitLab, doc/ci/testing/unit_test_reports.md).
type junitSuites struct {
	XMLName  xml.Name     `xml:"testsuites"`
	Name     string       `xml:"name,attr"`
	Tests    int          `xml:"tests,attr"`
	Failures int          `xml:"failures,attr"`
	Skipped  int          `xml:"skipped,attr"`
	Suites   []junitSuite `xml:"testsuite"`
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

// writeJUnit writes a suite for the disk and one for each engine. Engines that
// did not run are skipped cases.
func (r Report) writeJUnit(w io.Writer) error {
	all := junitSuites{Name: "pretag verify"}
	add := func(s junitSuite) {
		for _, c := range s.Cases {
			s.Tests++
			if c.Failure != nil {
				s.Failures++
			}
			if c.Skipped != nil {
				s.Skipped++
			}
		}
		all.Tests += s.Tests
		all.Failures += s.Failures
		all.Skipped += s.Skipped
		all.Suites = append(all.Suites, s)
	}
	disk := junitSuite{Name: "on disk"}
	var seconds float64
	for _, result := range r.Disk {
		disk.Cases = append(disk.Cases, result.junit(""))
		seconds += result.Seconds
	}
	disk.Time = junitTime(seconds)
	add(disk)
	for _, e := range r.Engines {
		s := junitSuite{Name: strings.TrimSpace(string(e.Kind) + " " + e.Version), Time: junitTime(e.Seconds)}
		if e.NotChecked != "" {
			s.Cases = []junitCase{{Class: string(e.Kind), Name: "engine", Time: junitTime(0), Skipped: &junitMessage{Message: e.NotChecked}}}
		}
		for _, c := range e.Controls {
			s.Cases = append(s.Cases, c.junit("control: "))
		}
		for _, c := range e.Results {
			s.Cases = append(s.Cases, c.junit(""))
		}
		add(s)
	}
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	e := xml.NewEncoder(w)
	e.Indent("", "  ")
	if err := e.Encode(all); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}

func (r Result) junit(prefix string) junitCase {
	c := junitCase{Class: prefix + r.Subject, Name: r.Check, Time: junitTime(r.Seconds), Output: r.Says}
	switch r.Status {
	case Failed:
		text := strings.Join(r.Problems, "\n")
		if r.Repeat != "" {
			text += "\nrepeat: " + r.Repeat
		}
		c.Failure = &junitMessage{r.Problems[0], text}
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

// writeHTML writes one page that needs nothing else: no script, no font, no picture.
func (r Report) writeHTML(w io.Writer) error {
	var largest int64
	for _, f := range r.Archives {
		largest = max(largest, f.UnpackedSize, f.Size)
	}
	t, err := template.New("report.html").Funcs(template.FuncMap{
		"size":    size,
		"percent": func(n, of int64) string { return fmt.Sprintf("%.2f%%", 100*float64(n)/float64(max(of, 1))) },
		"largest": func() int64 { return largest },
		"seconds": func(s float64) string { return fmt.Sprintf("%.1f s", s) },
		"class":   func(s Status) string { return strings.ReplaceAll(string(s), " ", "-") },
		"worst":   worst,
		"checks":  checks,
		"disk":    func(f string) []Result { return about(r.Disk, "helper-images/"+f) },
		"cell":    summarize,
	}).Parse(page)
	if err != nil {
		return err
	}
	return t.Execute(w, r)
}

// size is n bytes for a person, in units of 1000.
func size(n int64) string {
	for _, u := range []struct {
		unit string
		size float64
	}{{"GB", 1e9}, {"MB", 1e6}, {"kB", 1e3}} {
		if f := float64(n) / u.size; f >= 1 {
			return fmt.Sprintf("%.1f %s", f, u.unit)
		}
	}
	return fmt.Sprintf("%d B", n)
}

// A checkText tells a person what a check is.
type checkText struct{ Name, Text string }

func checks() []checkText {
	return []checkText{
		{"load", "podman load or docker load takes the archive as it is, and the store then holds exactly this image under exactly its tag"},
		{"runner", "the same over the engine's API, step by step as GitLab Runner 17.9 and later loads it"},
		{"pipe", "the same for the archive's plain tar through a pipe, as the loader brings it"},
		{"lookup", "GitLab Runner's first look at the engine, all that versions below 17.9 need, finds the preloaded image"},
		{"stored", "what the store gives out again has the image ID and the diff IDs, computed from its bytes"},
		{"run", "the image runs without a network, through its own entrypoint, and prints a word of its own"},
	}
}
