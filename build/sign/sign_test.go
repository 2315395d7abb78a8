package sign_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"pretag/build/sign"
	"pretag/build/testutil"
)

var made = time.Unix(1_700_000_000, 0)

// armoredKey returns a new secret key, with a passphrase if that is not empty.
func armoredKey(t *testing.T, passphrase string, config packet.Config) string {
	t.Helper()
	config.Time = func() time.Time { return made }
	entity, err := openpgp.NewEntity("test", "", "test@example.com", &config)
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	w, err := armor.Encode(&text, openpgp.PrivateKeyType, nil)
	if err != nil {
		t.Fatal(err)
	}
	if passphrase != "" {
		if err := entity.EncryptPrivateKeys([]byte(passphrase), &config); err != nil {
			t.Fatal(err)
		}
		err = entity.SerializePrivateWithoutSigning(w, &config)
	} else {
		err = entity.SerializePrivate(w, &config)
	}
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return text.String() + "\n"
}

// ed25519 is the configuration of a key that is quick to make.
var ed25519 = packet.Config{Algorithm: packet.PubKeyAlgoEdDSA}

func file(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func load(key, passphrase string) error {
	_, err := sign.Load(context.Background(), key, passphrase, made, made)
	return err
}

// What editors and shells of other systems add to a secret is not part of it.
func TestPassphraseForms(t *testing.T) {
	key := file(t, armoredKey(t, "correct horse", ed25519))
	for name, content := range map[string]string{
		"plain":           "correct horse",
		"line":            "correct horse\n",
		"carriage return": "correct horse\r\nsecond line",
		"BOM":             "\ufeffcorrect horse\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			if err := load(key, file(t, content)); err != nil {
				t.Error(err)
			}
		})
	}
	for name, row := range map[string]struct{ content, want string }{
		"space":  {"correct horse \n", "does not unlock it"},
		"UTF-16": {"\xff\xfec\x00o\x00", "is UTF-16 text; save it as UTF-8"},
		"huge":   {strings.Repeat("x", 5000), "has more than 4096 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			passphrase := file(t, row.content)
			err := load(key, passphrase)
			testutil.WantError(t, err, row.want)
			if strings.Contains(err.Error(), passphrase) {
				t.Errorf("%v shows the value of GPG_PASSPHRASE_PATH", err)
			}
		})
	}
}

func TestKeyForms(t *testing.T) {
	one, other := armoredKey(t, "", ed25519), armoredKey(t, "", ed25519)
	for name, row := range map[string]struct{ content, want string }{
		"BOM and CRLF":     {"\ufeff" + strings.ReplaceAll(one, "\n", "\r\n"), ""},
		"text before":      {"my key\n" + one, ""},
		"two armored keys": {one + other, "2 secret keys, want one"},
		"passphrase":       {"correct horse\n", "not an OpenPGP key"},
		"empty":            {"", "0 secret keys, want one"},
	} {
		t.Run(name, func(t *testing.T) {
			err := load(file(t, row.content), "")
			if row.want == "" && err != nil {
				t.Error(err)
			}
			if row.want != "" {
				testutil.WantError(t, err, row.want)
			}
		})
	}
}

// A passphrase need not be on a disk. A pipe gives it once.
func TestPassphrasePipe(t *testing.T) {
	key := file(t, armoredKey(t, "correct horse", ed25519))
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := sign.CheckPassphrasePath(fifo); err != nil {
		t.Fatal(err)
	}
	written := make(chan error, 1)
	go func() { written <- os.WriteFile(fifo, []byte("correct horse\n"), 0) }()
	if err := errors.Join(load(key, fifo), <-written); err != nil {
		t.Error(err)
	}

	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(errors.New("interrupted"))
	_, err := sign.ReadPassphrase(ctx, fifo) // nobody writes
	testutil.WantError(t, err, "interrupted")
	if w, err := os.OpenFile(fifo, os.O_WRONLY, 0); err == nil { // ends the read that was left
		w.Close()
	}
}

// A secret in place of its path is not shown.
func TestCheckPath(t *testing.T) {
	key := armoredKey(t, "", ed25519)
	dir := t.TempDir()
	for _, check := range []func(string) error{sign.CheckKeyPath, sign.CheckPassphrasePath} {
		for _, row := range []struct{ value, want string }{
			{key, "<not shown>: holds a key or several lines, want the path of a file; in GitLab choose the variable type File"},
			{"hunter2", "<not shown>: no such file or directory; want the path of a file, not the secret itself"},
			{"/hunter2/hunter2", "<not shown>: no such file"},
			{strings.Repeat("hunter2", 1000), "file name too long; want the path of a file"},
			{dir, ": not a regular file or a named pipe"},
		} {
			err := check(row.value)
			testutil.WantError(t, err, row.want)
			if strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "BEGIN") {
				t.Errorf("shown: %v", err)
			}
		}
	}
	missing := filepath.Join(dir, "missing")
	testutil.WantError(t, sign.CheckKeyPath(missing), `"`+missing+`": no such file or directory`)
	if err := sign.CheckPassphrasePath(missing); err == nil || strings.Contains(err.Error(), missing) {
		t.Errorf("CheckPassphrasePath: error %v, want one without the value", err)
	}
}

func TestRPMWarning(t *testing.T) {
	for name, row := range map[string]struct {
		config packet.Config
		want   string
	}{
		"rsa":       {packet.Config{RSABits: 2048}, ""},
		"ed25519":   {ed25519, ""},
		"nist":      {packet.Config{Algorithm: packet.PubKeyAlgoECDSA, Curve: packet.CurveNistP256}, "is a NIST P256 key: rpm 4.18 and older cannot read it"},
		"brainpool": {packet.Config{Algorithm: packet.PubKeyAlgoECDSA, Curve: packet.CurveBrainpoolP256}, "is a BrainpoolP256 key: rpm 4.18 and rpm 4.20 cannot read it"},
		"ed448":     {packet.Config{Algorithm: packet.PubKeyAlgoEd448}, "whether rpm can read it is not known"},
	} {
		t.Run(name, func(t *testing.T) {
			signer, err := sign.Load(context.Background(), file(t, armoredKey(t, "", row.config)), "", made, made)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := signer.Armored(io.LimitReader(nil, 0)); err != nil {
				t.Error(err)
			}
			if got := signer.RPMWarning(); got != row.want && (row.want == "" || !strings.Contains(got, row.want)) {
				t.Errorf("got %q, want %q", got, row.want)
			}
		})
	}
}
