//go:build acceptance

package build_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pretag/build"
	"pretag/build/testutil"
	"pretag/build/verify"
)

// A gpgHome is a GnuPG home directory.
type gpgHome struct {
	*testing.T
	dir string
}

func newGPG(t *testing.T) gpgHome {
	t.Helper()
	testutil.Tool(t, "gpg")
	// the path of a socket must be short
	dir, err := os.MkdirTemp("", "gpg")
	if err != nil {
		t.Fatal(err)
	}
	g := gpgHome{t, dir}
	t.Cleanup(func() {
		exec.Command("gpgconf", "--homedir", dir, "--kill", "all").Run() //nolint:errcheck // there may be no agent
		os.RemoveAll(dir)
	})
	return g
}

func (g gpgHome) run(args ...string) string {
	g.Helper()
	command := exec.Command("gpg", append([]string{"--homedir", g.dir, "--batch", "--quiet", "--pinentry-mode", "loopback"}, args...)...)
	var stderr bytes.Buffer
	command.Stderr = &stderr
	out, err := command.Output()
	if err != nil {
		g.Fatalf("gpg %s: %v: %s", strings.Join(args, " "), err, &stderr)
	}
	return string(out)
}

// key makes a key and returns the file of the secret key.
func (g gpgHome) key(name, algorithm, passphrase, expiry string, more ...string) (secret string) {
	g.Helper()
	g.run(append(more, "--passphrase", passphrase, "--quick-gen-key", name+" <"+name+"@example.com>", algorithm, "sign", expiry)...)
	return g.file(name+".asc", g.run("--armor", "--passphrase", passphrase, "--export-secret-keys", name+"@example.com"))
}

func (g gpgHome) file(name, content string) string {
	g.Helper()
	path := filepath.Join(g.dir, name)
	write(g.T, path, []byte(content))
	return path
}

// rpmkeys, debsig-verify and gpgv accept signed packages and sums, and reject them if a
// byte is changed. Signed builds are reproducible, too.
func TestSigned(t *testing.T) {
	gpg := newGPG(t)
	passphrase := gpg.file("passphrase", "correct horse\n")
	for _, algorithm := range []string{"rsa3072", "ed25519"} {
		t.Run(algorithm, func(t *testing.T) {
			key := gpg.key(algorithm, algorithm, "correct horse", "never")
			b, again := newBench(t, "alpine-x86_64.tar"), newBench(t, "alpine-x86_64.tar")
			b.must(t, build.Package, "HELPERS=alpine-x86_64", "GPG_KEY_PATH="+key, "GPG_PASSPHRASE_PATH="+passphrase)
			// Key and passphrase need not be on a disk.
			again.must(t, build.Package, "HELPERS=alpine-x86_64", "GPG_KEY_PATH="+descriptor(t, key), "GPG_PASSPHRASE_PATH="+descriptor(t, passphrase))
			same(t, "signed again", tree(t, b.path("out")), tree(t, again.path("out")))
			verifySums(t, b.path("out"))
			verifyRPM(t, b.path("out"))
			verifyDeb(t, gpg, b.path("out"), algorithm)
			verifyOurselves(t, b)
			if strings.Contains(b.err.String()+b.out.String(), "correct horse") {
				t.Error("the passphrase was shown")
			}
		})
	}
}

// descriptor returns a /dev/fd/N from which the content of a file can be read once.
func descriptor(t *testing.T, path string) string {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	_, err = w.Write(read(t, path)) // less than a pipe holds
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("/dev/fd/%d", r.Fd())
}

// verify has rpmkeys check each rpm with the delivered key: it refuses an rpm of which a
// byte was changed, an unsigned one, and a key that this rpm cannot read.
func TestVerifyAsksRPMKeys(t *testing.T) {
	testutil.Tool(t, "rpmkeys")
	gpg := newGPG(t)
	b := newBench(t, "alpine-x86_64.tar")
	pairs := []string{"HELPERS=alpine-x86_64", "FORMATS=rpm"}
	results := func() (results []verify.Result) {
		t.Helper()
		report, err := verify.OnDisk(t.Context(), b.path("out"))
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range report.Disk {
			if r.Check == "rpmkeys" {
				results = append(results, r)
			}
		}
		return results
	}
	b.must(t, build.Package, pairs...)
	unsigned := tree(t, b.path("out"))
	if got := results(); len(got) != 0 {
		t.Errorf("unsigned: %+v, want no check", got)
	}
	b.must(t, build.Package, append(pairs, "GPG_KEY_PATH="+gpg.key("rsa", "rsa2048", "", "never"))...)
	rpms, err := filepath.Glob(b.path("out", "rpm", "*.rpm"))
	if err != nil {
		t.Fatal(err)
	}
	want := func(what string, status verify.Status, says string) {
		t.Helper()
		got := results()
		if len(got) != len(rpms) {
			t.Fatalf("%s: %d results for %d rpms", what, len(got), len(rpms))
		}
		r := got[slices.IndexFunc(got, func(r verify.Result) bool { return r.Subject == "rpm/"+filepath.Base(rpms[0]) })]
		if r.Status != status || !strings.Contains(strings.Join(r.Problems, "\n"), says) {
			t.Errorf("%s: %+v, want %s and %q", what, r, status, says)
		}
	}
	want("signed", verify.Passed, "")
	for _, at := range []int64{-100, 3000} { // in the payload, in the header
		back := flipByte(t, rpms[0], at)
		want("changed", verify.Failed, "exit status 1")
		back()
	}
	signed := read(t, rpms[0])
	write(t, rpms[0], []byte(unsigned["rpm/"+filepath.Base(rpms[0])]))
	want("unsigned", verify.Failed, "no valid signature by key ")
	write(t, rpms[0], signed)
	// rpm 4.18 reads no NIST key, rpm 4.20 no Brainpool key.
	b.must(t, build.Package, append(pairs, "GPG_KEY_PATH="+gpg.key("brainpool", "brainpoolP256r1", "", "never"))...)
	want("a key that rpm cannot read", verify.Failed, "cannot read signing-key.asc: ")
	t.Setenv("PATH", t.TempDir())
	if got := results(); len(got) != 1 || got[0].Status != verify.Skipped || got[0].Says != "rpmkeys is not installed" {
		t.Errorf("without rpmkeys: %+v", got)
	}
}

// try runs a program and returns its output.
func try(t *testing.T, program string, args ...string) (string, error) {
	t.Helper()
	out, err := exec.Command(testutil.Tool(t, program), args...).CombinedOutput()
	return string(out), err
}

// flipByte changes a byte of the file, and changes it back when the test ends.
func flipByte(t *testing.T, path string, at int64) (back func()) {
	t.Helper()
	flip := func() {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		b := make([]byte, 1)
		if at < 0 {
			info, err := f.Stat()
			if err != nil {
				t.Fatal(err)
			}
			at += info.Size()
		}
		if _, err := f.ReadAt(b, at); err != nil {
			t.Fatal(err)
		}
		b[0] ^= 1
		if _, err := f.WriteAt(b, at); err != nil {
			t.Fatal(err)
		}
	}
	flip()
	return flip
}

func verifySums(t *testing.T, out string) {
	t.Helper()
	keyring := filepath.Join(t.TempDir(), "key.gpg")
	if text, err := try(t, "gpg", "--batch", "--yes", "--output", keyring, "--dearmor", filepath.Join(out, "signing-key.asc")); err != nil {
		t.Fatal(text)
	}
	sums := filepath.Join(out, "SHA256SUMS")
	if text, err := try(t, "gpgv", "--keyring", keyring, sums+".asc", sums); err != nil {
		t.Error(text)
	}
	defer flipByte(t, sums, 3)()
	if text, err := try(t, "gpgv", "--keyring", keyring, sums+".asc", sums); err == nil {
		t.Errorf("gpgv takes changed sums: %s", text)
	}
}

func verifyRPM(t *testing.T, out string) {
	t.Helper()
	db := t.TempDir()
	if text, err := try(t, "rpmkeys", "--dbpath", db, "--import", filepath.Join(out, "signing-key.asc")); err != nil {
		t.Fatal(text)
	}
	rpm := one(t, filepath.Join(out, "rpm", "gitlab-runner-helper-images-1*.x86_64.rpm"))
	// rpm -K exits 0 on an unsigned package: look for the signatures themselves
	signatures := func() (header, all bool, text string) {
		text, _ = try(t, "rpmkeys", "--dbpath", db, "-Kv", rpm)
		for line := range strings.Lines(text) {
			ok := strings.Contains(line, "Signature, key ID") && strings.HasSuffix(strings.TrimSpace(line), ": OK")
			header = header || ok && strings.Contains(line, "Header")
			all = all || ok && !strings.Contains(line, "Header")
		}
		return header, all, text
	}
	if header, all, text := signatures(); !header || !all {
		t.Error(text)
	}
	defer flipByte(t, rpm, -100)()
	if _, all, text := signatures(); all {
		t.Errorf("rpmkeys takes a changed payload:\n%s", text)
	}
}

// verifyDeb makes the policy and the key ring that debsig-verify wants (debsig-verify(1)).
func verifyDeb(t *testing.T, gpg gpgHome, out, name string) {
	t.Helper()
	var id string
	for line := range strings.Lines(gpg.run("--with-colons", "--list-keys", name+"@example.com")) {
		if fields := strings.Split(line, ":"); fields[0] == "pub" {
			id = fields[4]
		}
	}
	policies, keyrings := filepath.Join(t.TempDir(), "policies"), filepath.Join(t.TempDir(), "keyrings")
	if err := os.MkdirAll(filepath.Join(keyrings, id), 0o755); err != nil {
		t.Fatal(err)
	}
	policy := `<?xml version="1.0"?>
<!DOCTYPE Policy SYSTEM "https://www.debian.org/debsig/1.0/policy.dtd">
<Policy xmlns="https://www.debian.org/debsig/1.0/">
<Origin Name="test" id="` + id + `" Description="test"/>
<Selection><Required Type="origin" File="key.gpg" id="` + id + `"/></Selection>
<Verification MinOptional="0"><Required Type="origin" File="key.gpg" id="` + id + `"/></Verification>
</Policy>`
	write(t, filepath.Join(policies, id, "test.pol"), []byte(policy))
	if text, err := try(t, "gpg", "--batch", "--output", filepath.Join(keyrings, id, "key.gpg"), "--dearmor", filepath.Join(out, "signing-key.asc")); err != nil {
		t.Fatal(text)
	}
	deb := one(t, filepath.Join(out, "deb", "gitlab-runner-helper-images_*_amd64.deb"))
	verify := []string{"--policies-dir", policies, "--keyrings-dir", keyrings, deb}
	if text, err := try(t, "debsig-verify", verify...); err != nil {
		t.Errorf("%v: %s", err, text)
	}
	defer flipByte(t, deb, 500)()
	if text, err := try(t, "debsig-verify", verify...); err == nil {
		t.Errorf("debsig-verify takes a changed package: %s", text)
	}
}

// verifyOurselves: inspect names the key, and verify reports a signature of other bytes.
func verifyOurselves(t *testing.T, b *bench) {
	t.Helper()
	if err := b.inspect(t, one(t, b.path("out", "deb", "gitlab-runner-helper-images_*_amd64.deb"))); err != nil {
		t.Error(err)
	}
	contains(t, b.out.String(), "signature    _gpgorigin, by key ")
	b.must(t, build.VerifyOnDisk)
	// the same sums in another order: only the signature differs
	path := b.path("out", "SHA256SUMS")
	lines := strings.SplitAfter(string(read(t, path)), "\n")
	slices.Reverse(lines)
	write(t, path, []byte(strings.Join(lines, "")))
	testutil.WantError(t, b.run(t, build.VerifyOnDisk), "SHA256SUMS: signature: ")
}

// A key that was renewed after SOURCE_DATE_EPOCH can sign, and so can its subkey.
func TestSignedByRenewedKey(t *testing.T) {
	const made = "20200101T000000!"
	for _, usage := range []string{"sign", "cert"} {
		t.Run(usage, func(t *testing.T) {
			gpg := newGPG(t)
			gpg.run("--faked-system-time", made, "--passphrase", "", "--quick-gen-key", "renewed", "rsa2048", usage, "10y")
			id := strings.Fields(strings.ReplaceAll(gpg.run("--with-colons", "--list-keys"), ":", " "))
			fingerprint := id[slices.Index(id, "fpr")+1]
			if usage == "cert" {
				gpg.run("--faked-system-time", made, "--passphrase", "", "--quick-add-key", fingerprint, "rsa2048", "sign", "10y")
				gpg.run("--passphrase", "", "--quick-set-expire", fingerprint, "20y", "*")
			}
			gpg.run("--passphrase", "", "--quick-set-expire", fingerprint, "20y")
			key := gpg.file("key.asc", gpg.run("--armor", "--export-secret-keys", fingerprint))
			b := newBench(t, "alpine-x86_64.tar")
			b.must(t, build.Package, "HELPERS=alpine-x86_64", "GPG_KEY_PATH="+key)
			verifySums(t, b.path("out"))
			verifyRPM(t, b.path("out"))
			b.must(t, build.VerifyOnDisk)
		})
	}
}

func TestKeyRefused(t *testing.T) {
	gpg := newGPG(t)
	plain := gpg.key("plain", "rsa2048", "", "never")
	locked := gpg.key("locked", "rsa2048", "secret", "never")
	expired := gpg.key("expired", "rsa2048", "", "1d", "--faked-system-time", "20200101T000000!")
	two := gpg.file("two.asc", gpg.run("--armor", "--export-secret-keys", "plain@example.com", "expired@example.com"))
	public := gpg.file("public.asc", gpg.run("--armor", "--export", "plain@example.com"))
	right, wrong := gpg.file("right", "secret\n"), gpg.file("wrong", "hunter2\n")
	brief := gpg.key("brief", "rsa2048", "", "2y")
	for name, row := range map[string]struct{ key, passphrase, want string }{
		"locked":              {locked, "", "is locked with a passphrase; give GPG_PASSPHRASE_PATH"},
		"wrong passphrase":    {locked, wrong, "does not unlock it"},
		"needless passphrase": {plain, right, "has no passphrase"},
		"two keys":            {two, "", "2 secret keys, want one"},
		"public":              {public, "", "a public key"},
		"no key":              {right, "", "not an OpenPGP key"},
		"expired":             {expired, "", "expired at 2020-01-02"},
		"expires before":      {brief, "", "at 2099-12-31T00:00:00Z: expired at "},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, "alpine-x86_64.tar")
			pairs := []string{"HELPERS=alpine-x86_64", "GPG_KEY_PATH=" + row.key}
			if row.key == brief {
				pairs = append(pairs, "SOURCE_DATE_EPOCH=4102358400")
			}
			if row.passphrase != "" {
				pairs = append(pairs, "GPG_PASSPHRASE_PATH="+row.passphrase)
			}
			err := b.run(t, build.Package, pairs...)
			testutil.WantError(t, err, row.want)
			if strings.Contains(fmt.Sprint(err), "hunter2") {
				t.Errorf("the passphrase is in %v", err)
			}
			b.leavesNothing(t)
		})
	}
}
