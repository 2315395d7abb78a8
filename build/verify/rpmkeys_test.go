package verify

import (
	"errors"
	"testing"
)

// What each version of rpm prints of a package that is signed, by another key, or not.
func TestSignedAsRPM(t *testing.T) {
	const key = "0123456789ABCDEF"
	for name, row := range map[string]struct {
		text string
		err  error
		ok   bool
	}{
		"rpm 4.18": {"a.rpm:\n    Header V4 RSA/SHA256 Signature, key ID 89abcdef: OK\n    Header SHA256 digest: OK\n    V4 RSA/SHA256 Signature, key ID 89abcdef: OK\n", nil, true},
		"rpm 4.20": {"a.rpm:\n    Header OpenPGP V4 EdDSA/SHA256 signature, key ID 0123456789abcdef: OK\n", nil, true},
		"unsigned": {"a.rpm:\n    Header SHA256 digest: OK\n    Payload SHA256 digest: OK\n", nil, false},
		"another":  {"a.rpm:\n    Header V4 RSA/SHA256 Signature, key ID 01234567: OK\n", nil, false},
		"no key":   {"a.rpm:\n    Header V4 RSA/SHA256 Signature, key ID 89abcdef: NOKEY\n", errors.New("exit status 1"), false},
		"damaged":  {"a.rpm:\n    Header V4 RSA/SHA256 Signature, key ID 89abcdef: OK\n    V4 RSA/SHA256 Signature, key ID 89abcdef: BAD\n", errors.New("exit status 1"), false},
	} {
		if err := signedAsRPM(row.text, row.err, key); (err == nil) != row.ok {
			t.Errorf("%s: error %v, want none: %v", name, err, row.ok)
		}
	}
}
