package build_test

import (
	"crypto/rand"
	"testing"

	"pretag/build/testutil"
)

// incompressible returns a root filesystem of about size bytes.
func incompressible(t *testing.T, size int) []byte {
	t.Helper()
	body := make([]byte, size)
	if _, err := rand.Read(body); err != nil {
		t.Fatal(err)
	}
	return testutil.Rootfs(t, "x", testutil.File("usr/noise", string(body)))
}
