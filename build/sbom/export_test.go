package sbom

import "context"

// Headers returns the packages' headers in an rpm database.
func Headers(ctx context.Context, db, wal []byte) ([][]byte, error) { return rpmHeaders(ctx, db, wal) }

// GoVersion returns the version of a Go toolchain.
func GoVersion(s string) string { return goVersion(s) }
