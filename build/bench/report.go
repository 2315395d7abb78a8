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
	header := []string{"WHAT", "WAY"}
	for _, m := range columns() {
		header = append(header, m.name)
	}
	for _, m := range columns() {
		if m.share != "" {
			header = append(header, m.share)
		}
	}
	table := [][]string{header}
	for _, row := range r.Rows {
		line := []string{row.What, row.Way}
		for _, m := range columns() {
			line = append(line, fmt.Sprintf(m.format, median(row.Runs, func(i int) float64 { return m.of(row.Runs[i]) })))
		}
		for _, m := range columns() {
			if m.share != "" {
				line = append(line, fmt.Sprintf("%.2f", median(row.Runs, func(i int) float64 { return m.of(row.Pretag[i]) / m.of(row.Runs[i]) })))
			}
		}
		table = append(table, line)
	}
	return table
}

// A column is a measure, with one more column where shares of it are of interest.
type column struct {
	name   string
	format string
	share  string // the name of that column; "" for none
	of     func(Usage) float64
}

func columns() []column {
	return []column{
		{"WALL s", "%.1f", "PRETAG: WALL", func(u Usage) float64 { return u.Wall.Seconds() }},
		{"CPU s", "%.1f", "CPU", func(u Usage) float64 { return u.CPU.Seconds() }},
		{"CORES", "%.2f", "", func(u Usage) float64 { return u.CPU.Seconds() / u.Wall.Seconds() }},
		{"MEMORY MB", "%.0f", "MEMORY", func(u Usage) float64 { return float64(u.Memory) / 1e6 }},
		{"SIZE MB", "%.1f", "SIZE", func(u Usage) float64 { return float64(u.Size) / 1e6 }},
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
