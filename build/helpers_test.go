package build_test

import (
	"crypto/rand"
	"pretag/build/testutil"
	"testing"
)

// incompressible returns a root filesystem of about size bytes.
func incompressible(t *testing.T, size int) []byte {
	t.Helper()
	body := make([]byte, size)
	if _, err := rand.Read(body); err != nil {
		t.Fatal(err)
	}
	return testutil.Tar(t, testutil.File("usr/noise", string(body)))
}
