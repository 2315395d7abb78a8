//go:build acceptance

package linuxpkg_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"pretag/build/release"
	"pretag/build/testutil"
	"pretag/build/testutil/archivetest"
)

// newKey returns a key whose signatures of equal bytes are equal.
func newKey(t *testing.T) (*openpgp.Entity, *packet.Config) {
	t.Helper()
	off := false
	config := &packet.Config{
		RSABits: 2048, Algorithm: packet.PubKeyAlgoRSA, Time: testutil.Created, NonDeterministicSignaturesViaNotation: &off,
	}
	key, err := openpgp.NewEntity("Test", "", "test@example.com", config)
	if err != nil {
		t.Fatal(err)
	}
	return key, config
}

// signer returns Options.Sign for the key.
func signer(key *openpgp.Entity, config *packet.Config) func(io.Reader) ([]byte, error) {
	return func(data io.Reader) ([]byte, error) {
		var signature bytes.Buffer
		err := openpgp.DetachSign(&signature, key, data, config)
		return signature.Bytes(), err
	}
}

// TestSigned: what Options.Sign makes is a signature to rpm and gpgv, and two
// signed builds are equal.
func TestSigned(t *testing.T) {
	key, config := newKey(t)
	dir := t.TempDir()
	public := filepath.Join(dir, "key.gpg")
	f, err := os.Create(public)
	if err != nil {
		t.Fatal(err)
	}
	if err := key.Serialize(f); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	archives := archivetest.Archives(t, dir, "alpine-x86_64")
	signed := func(out string) []release.Package {
		opts := options(t, filepath.Join(dir, out))
		opts.Sign = signer(key, config)
		return build(t, opts, archives).Packages
	}
	packages := signed("first")
	for i, p := range signed("second") {
		if p.SHA256 != packages[i].SHA256 {
			t.Errorf("%s: two signed builds differ", p.File)
		}
	}

	rpm, deb := find(t, packages, release.RPM, ours, "x86_64"), find(t, packages, release.Deb, ours, "amd64")
	if got := metadata(t, rpm.Path).Signatures; len(got) != 2 || got[0].Place != "header" || got[1].Place != "header and payload" {
		t.Errorf("rpm: signatures %+v", got)
	}
	signatures := metadata(t, deb.Path).Signatures
	if len(signatures) != 1 || signatures[0].Place != "_gpgorigin" {
		t.Fatalf("deb: signatures %+v", signatures)
	}

	t.Run("rpm", func(t *testing.T) {
		root := t.TempDir()
		run(t, testutil.Tool(t, "rpm"), "--root", root, "--initdb")
		armored := filepath.Join(dir, "key.asc")
		testutil.Tool(t, "gpg")
		run(t, "gpg", "--homedir", t.TempDir(), "--batch", "--output", armored, "--enarmor", public)
		data, err := os.ReadFile(armored)
		if err != nil {
			t.Fatal(err)
		}
		write(t, armored, bytes.ReplaceAll(data, []byte("ARMORED FILE"), []byte("PUBLIC KEY BLOCK")))
		run(t, "rpm", "--root", root, "--import", armored)
		out := run(t, "rpm", "--root", root, "-Kv", rpm.Path)
		id := fmt.Sprintf("%08x", uint32(key.PrimaryKey.KeyId)) // the low half, as rpm 4.18 prints it
		for _, want := range []string{"Header V4 RSA/SHA256 Signature, key ID " + id + ": OK", "    V4 RSA/SHA256 Signature, key ID " + id + ": OK"} {
			if !strings.Contains(out, want) {
				t.Errorf("rpm -Kv: no %q in\n%s", want, out)
			}
		}
	})
	t.Run("deb", func(t *testing.T) {
		testutil.Tool(t, "gpgv")
		testutil.Tool(t, "ar")
		signature, signedData := filepath.Join(dir, "signature"), filepath.Join(dir, "signed")
		write(t, signature, signatures[0].Data)
		out := run(t, "ar", "p", deb.Path, "debian-binary", "control.tar.gz", "data.tar.gz")
		write(t, signedData, []byte(out))
		run(t, "gpgv", "--keyring", public, signature, signedData)
		write(t, signedData, []byte(out+"x"))
		if out, err := try("gpgv", "--keyring", public, signature, signedData); err == nil {
			t.Errorf("gpgv takes other data:\n%s", out)
		}
	})
}
