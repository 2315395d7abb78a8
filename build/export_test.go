package build

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"pretag/build/verify"
)

// VerifyOnDisk is the part of Verify that needs no engine. Its error has every problem.
func VerifyOnDisk(ctx context.Context, c Config, _ *UI) error {
	report, err := verify.OnDisk(ctx, c.Out)
	errs := []error{err}
	for _, p := range report.Problems() {
		errs = append(errs, fmt.Errorf("%s: %s: %s", p.Subject, p.Check, strings.Join(p.Problems, "; ")))
	}
	return errors.Join(errs...)
}

// CompareTrees is the comparison of Reproduce.
func CompareTrees(ctx context.Context, a, b string) (same int, differences []string, err error) {
	return compareTrees(ctx, a, b)
}

// VariablesTable returns the table of variables in Markdown.
func VariablesTable() string {
	var b strings.Builder
	b.WriteString("| variable | meaning | default |\n|---|---|---|\n")
	for _, v := range variables() {
		shown := v.shown
		if shown == "" && v.fallback != "" {
			shown = "`" + v.fallback + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", v.name, strings.ReplaceAll(v.help, "|", `\|`), shown)
	}
	return b.String()
}
