package build

import (
	"context"
	"errors"
	"fmt"

	"pretag/build/manifest"
)

// CheckMore is the part of Verify that checks signatures, bills of materials and
// provenance.
func CheckMore(ctx context.Context, c Config, _ *UI) error {
	m, err := manifest.Read(c.Out)
	if err != nil {
		return err
	}
	sums, err := manifest.ReadSums(c.Out)
	if err != nil {
		return err
	}
	var errs []error
	for _, check := range append(c.signatures(m), c.accounts(ctx, m, sums)...) {
		if err := check.Do(); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", check.Subject, err))
		}
	}
	return errors.Join(errs...)
}

// CompareTrees is the comparison of Reproduce.
func CompareTrees(a, b string) (same int, differences []string, err error) {
	return compareTrees(a, b)
}
