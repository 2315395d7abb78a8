package build

import (
	"context"
	"errors"
	"fmt"

	"pretag/build/manifest"
)

// CheckSignatures is the part of Verify that needs no engine.
func CheckSignatures(_ context.Context, c Config, _ *UI) error {
	m, err := manifest.Read(c.Out)
	if err != nil {
		return err
	}
	var errs []error
	for _, check := range c.signatures(m) {
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
