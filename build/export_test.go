package build

import (
	"context"

	"pretag/build/verify"

	"pretag/build/release"
)

// VerifyOnDisk is the part of Verify that needs no engine.
func VerifyOnDisk(ctx context.Context, c Config, _ *UI) error {
	report, err := verify.OnDisk(ctx, c.Out)
	if err != nil {
		return err
	}
	return report.Err()
}

// CompareTrees is the comparison of Reproduce.
func CompareTrees(a, b string) (same int, differences []string, err error) {
	return compareTrees(a, b)
}

// WriteManifest writes manifest.json and SHA256SUMS without a signature.
func WriteManifest(c Config, m release.Manifest) error {
	_, err := c.describe(c.Out, m.Archives, m.Packages, nil, nil)
	return err
}
