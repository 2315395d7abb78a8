package build

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"
)

// All talk to the user is here. Its rules:
//
//   - Results go to Out, the course of work and warnings to Err, so that
//     output can be piped. Errors are returned; the caller prints them once.
//   - On a terminal there is a bar for each helper at work; elsewhere a line
//     for each one that is done. Nothing else moves.
//   - Sizes are in units of 1000, times in seconds.
//   - What comes out of a file may hold anything: control characters are
//     spelled out, so that no file writes to the terminal.

// A UI is where the user is told what happens.
type UI struct {
	Out, Err io.Writer
	Bars     bool // Err is a terminal
}

// Terminal is the UI of this process.
func Terminal() *UI {
	return &UI{os.Stdout, os.Stderr, term.IsTerminal(int(os.Stderr.Fd()))}
}

// Warn tells of something that the user may want to mend.
func (ui *UI) Warn(format string, args ...any) {
	fmt.Fprintln(ui.Err, visible(fmt.Sprintf("warning: "+format, args...)))
}

// Say tells one line of the course of work.
func (ui *UI) Say(format string, args ...any) {
	fmt.Fprintln(ui.Err, visible(fmt.Sprintf(format, args...)))
}

// Archives prints the table of archives.
func (ui *UI) Archives(results []Result) {
	rows := [][]string{{"HELPER", "PLATFORM", "IMAGE ID", "INPUT", "UNPACKED", "ARCHIVE", "TIME", "REPOTAG"}}
	for _, r := range results {
		f := r.File
		took := seconds(r.Took)
		if r.Kept {
			took = "kept"
		}
		rows = append(rows, []string{
			f.Helper, f.Platform, shortID(f.ImageID), Bytes(f.Input.Size), Bytes(f.UnpackedSize), Bytes(f.Size), took, f.RepoTag,
		})
	}
	ui.Table(rows)
}

// Table prints rows in columns; the first row is the heading.
func (ui *UI) Table(rows [][]string) {
	tw := tabwriter.NewWriter(ui.Out, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		fmt.Fprintln(tw, visible(strings.Join(row, "\t")))
	}
	tw.Flush()
}

// visible spells out the control characters in s, but for line breaks and tabs.
func visible(s string) string {
	control := func(r rune) bool { return unicode.IsControl(r) && r != '\n' && r != '\t' }
	if !strings.ContainsFunc(s, control) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if control(r) {
			fmt.Fprintf(&b, "\\x%02x", r)
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

// Bytes spells a size for people.
func Bytes(n int64) string {
	switch {
	case n < 1000:
		return fmt.Sprintf("%d B", n)
	case n < 1_000_000:
		return fmt.Sprintf("%.1f kB", float64(n)/1e3)
	case n < 1_000_000_000:
		return fmt.Sprintf("%.1f MB", float64(n)/1e6)
	}
	return fmt.Sprintf("%.2f GB", float64(n)/1e9)
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }

func shortID(id string) string { return strings.TrimPrefix(id, "sha256:")[:min(12, max(0, len(id)-7))] }

// bars is where bars are shown; nil where there is no terminal.
func (ui *UI) bars() *mpb.Progress {
	if !ui.Bars {
		return nil
	}
	return mpb.New(mpb.WithOutput(ui.Err), mpb.WithWidth(80))
}

// addBar adds the bar of a helper of which there are total bytes.
func addBar(bars *mpb.Progress, name string, total int64) *mpb.Bar {
	return bars.AddBar(total,
		mpb.PrependDecorators(decor.Name(name, decor.WCSyncSpaceR)),
		mpb.AppendDecorators(decor.Percentage(), decor.OnComplete(decor.AverageSpeed(decor.SizeB1000(0), " % .1f"), " done")))
}

// Tasks shows work on several helpers at once.
type Tasks struct {
	ui    *UI
	bars  *mpb.Progress // nil: no terminal
	mu    sync.Mutex
	done  int
	total int
}

// Tasks begins work on total helpers.
func (ui *UI) Tasks(total int) *Tasks {
	return &Tasks{ui: ui, total: total, bars: ui.bars()}
}

// Close waits until everything is shown.
func (t *Tasks) Close() {
	if t.bars != nil {
		t.bars.Wait()
	}
}

// A Task is work on one helper.
type Task struct {
	tasks *Tasks
	name  string
	bar   *mpb.Bar
}

// Begin begins work on a helper whose input has size bytes.
func (t *Tasks) Begin(name string, size int64) *Task {
	task := &Task{tasks: t, name: name}
	if t.bars != nil {
		task.bar = addBar(t.bars, name, size)
	}
	return task
}

// Read tells of n bytes of the input that have been read.
func (t *Task) Read(n int) {
	if t.bar != nil {
		t.bar.IncrBy(n)
	}
}

// End ends work on the helper.
func (t *Task) End(r Result) {
	if t.bar != nil {
		if r.Err != nil {
			t.bar.Abort(true)
		}
		t.bar.SetTotal(-1, true)
		return
	}
	t.tasks.mu.Lock()
	defer t.tasks.mu.Unlock()
	t.tasks.done++
	at := fmt.Sprintf("[%d/%d] %s", t.tasks.done, t.tasks.total, t.name)
	switch {
	case r.Err != nil:
		t.tasks.ui.Say("%s: failed", at)
	case r.Kept:
		t.tasks.ui.Say("%s: kept %s", at, r.File.Name)
	default:
		t.tasks.ui.Say("%s: %s, %s in %s", at, r.File.Name, Bytes(r.File.Size), seconds(r.Took))
	}
}

// A Meter shows how many bytes of each helper are here, on a terminal.
type Meter struct {
	bars *mpb.Progress // nil: no terminal
	mu   sync.Mutex
	of   map[string]*mpb.Bar
}

// Meter begins to show bytes.
func (ui *UI) Meter() *Meter {
	return &Meter{of: map[string]*mpb.Bar{}, bars: ui.bars()}
}

// At tells that done of total bytes of a helper are here.
func (m *Meter) At(name string, done, total int64) {
	if m.bars == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.of[name] == nil {
		m.of[name] = addBar(m.bars, name, total)
	}
	m.of[name].SetCurrent(done)
}

// Close ends the bars, finished or not.
func (m *Meter) Close() {
	if m.bars == nil {
		return
	}
	for _, bar := range m.of {
		bar.Abort(false)
	}
	m.bars.Wait()
}
