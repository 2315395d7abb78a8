package build

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"text/tabwriter"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"

	"pretag/build/internal/text"
)

// Everything that talks to the user is in this file. Its rules:
//
//   - Results go to Out, progress and warnings to Err, so that output can be
//     piped. Errors are returned, and the caller prints them once.
//   - On a terminal each task has a bar; elsewhere a line is printed when a task
//     is done. Nothing else is animated.
//   - Sizes are in units of 1000, times in seconds.
//   - Control characters are escaped, because names come from foreign files.

// A UI shows the user what happens.
type UI struct {
	Out, Err io.Writer
	Bars     bool // Err is a terminal
}

// Terminal returns the UI of this process.
func Terminal() *UI {
	return &UI{os.Stdout, os.Stderr, term.IsTerminal(int(os.Stderr.Fd()))}
}

// Warn reports a problem that the user may want to fix.
func (ui *UI) Warn(format string, args ...any) { ui.Say("warning: "+format, args...) }

// Say reports one line of progress.
func (ui *UI) Say(format string, args ...any) {
	fmt.Fprintln(ui.Err, text.Visible(fmt.Sprintf(format, args...)))
}

// Write writes a result that only programs read.
func (ui *UI) Write(result []byte) error {
	_, err := ui.Out.Write(result)
	return err
}

// Print prints a result.
func (ui *UI) Print(result string) error {
	_, err := io.WriteString(ui.Out, text.Visible(result))
	return err
}

// Table prints rows in columns; the first row is the heading.
func (ui *UI) Table(rows [][]string) {
	tw := tabwriter.NewWriter(ui.Out, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		fmt.Fprintln(tw, text.Visible(strings.Join(row, "\t")))
	}
	tw.Flush()
}

// A Progress shows how far several tasks have come: each as a bar on a terminal,
// else by one line when it is done. Its methods may be called by several goroutines.
type Progress struct {
	ui    *UI
	total int

	mu   sync.Mutex
	done int
	bars *mpb.Progress // nil if there is no terminal
	bar  map[string]*mpb.Bar
}

// Progress begins to show the progress of total tasks.
func (ui *UI) Progress(total int) *Progress {
	p := &Progress{ui: ui, total: total, bar: map[string]*mpb.Bar{}}
	if ui.Bars {
		p.bars = mpb.New(mpb.WithOutput(ui.Err), mpb.WithWidth(80))
	}
	return p
}

// At reports that done of total bytes of a task are done.
func (p *Progress) At(task string, done, total int64) {
	if p.bars == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bar[task] == nil {
		p.bar[task] = p.bars.AddBar(total,
			mpb.PrependDecorators(decor.Name(task, decor.WCSyncSpaceR)),
			mpb.AppendDecorators(decor.Percentage(), decor.OnComplete(decor.AverageSpeed(decor.SizeB1000(0), " % .1f"), " done")))
	}
	p.bar[task].SetCurrent(done)
}

// Done reports that a task has ended, and how.
func (p *Progress) Done(task, outcome string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done++
	if p.bars == nil {
		p.ui.Say("[%d/%d] %s: %s", p.done, p.total, task, outcome)
	} else if bar := p.bar[task]; bar != nil {
		bar.SetTotal(-1, true)
	}
}

// Close removes the bars of tasks that have not ended.
func (p *Progress) Close() {
	if p.bars == nil {
		return
	}
	p.mu.Lock()
	for _, bar := range p.bar {
		bar.Abort(true)
	}
	p.mu.Unlock()
	p.bars.Wait()
}
