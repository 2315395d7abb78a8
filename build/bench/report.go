package bench

import (
	"fmt"
	"slices"
	"strings"
)

// A Report is what a comparison found.
type Report struct {
	Rows    []Row
	Missing []string // ways that were not measured, and why
}

// A Row is one way, with its runs beside pretag's: the i-th of both began with
// the same input in the same round.
type Row struct {
	What   string // is made
	Way    string
	Runs   []Usage
	Pretag []Usage
}

// String is one run in words.
func (u Usage) String() string {
	return fmt.Sprintf("%.1f s, %.1f CPU s, %.0f MB of memory, makes %.1f MB", u.Wall.Seconds(), u.CPU.Seconds(), float64(u.Memory)/1e6, float64(u.Size)/1e6)
}

// Table gives the medians of each way, and the medians of pretag's share in them.
func (r Report) Table() [][]string {
	table := [][]string{{"WHAT", "WAY", "WALL s", "CPU s", "MEMORY MB", "SIZE MB", "PRETAG: WALL", "CPU", "MEMORY", "SIZE"}}
	for _, row := range r.Rows {
		line := []string{row.What, row.Way}
		for _, m := range measures() {
			line = append(line, fmt.Sprintf("%.1f", median(row.Runs, func(i int) float64 { return m(row.Runs[i]) })))
		}
		for _, m := range measures() {
			line = append(line, fmt.Sprintf("%.2f", median(row.Runs, func(i int) float64 { return m(row.Pretag[i]) / m(row.Runs[i]) })))
		}
		table = append(table, line)
	}
	return table
}

// measures are what is compared: seconds and megabytes.
func measures() []func(Usage) float64 {
	return []func(Usage) float64{
		func(u Usage) float64 { return u.Wall.Seconds() },
		func(u Usage) float64 { return u.CPU.Seconds() },
		func(u Usage) float64 { return float64(u.Memory) / 1e6 },
		func(u Usage) float64 { return float64(u.Size) / 1e6 },
	}
}

// median is of what value gives for each run.
func median(runs []Usage, value func(int) float64) float64 {
	values := make([]float64, len(runs))
	for i := range runs {
		values[i] = value(i)
	}
	slices.Sort(values)
	return (values[(len(values)-1)/2] + values[len(values)/2]) / 2
}

// Markdown is the table for a page.
func (r Report) Markdown() string {
	var b strings.Builder
	for i, line := range r.Table() {
		fmt.Fprintf(&b, "| %s |\n", strings.Join(line, " | "))
		if i == 0 {
			fmt.Fprintf(&b, "|%s\n", strings.Repeat("---|", len(line)))
		}
	}
	for _, missing := range r.Missing {
		fmt.Fprintf(&b, "\nNot measured: %s\n", missing)
	}
	return b.String()
}
