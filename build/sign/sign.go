// Package sign makes detached OpenPGP signatures, in process: equal bytes get
// equal signatures. Key and passphrase come from files; neither appears in an
// error, and neither does the path of a passphrase, which may be the passphrase.
package sign

import (
	"bytes"
	"context"
	"crypto"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// A Signer signs with one key.
type Signer struct {
	entity *openpgp.Entity
	key    *packet.PublicKey // that signs
	config *packet.Config
}

// Load reads the one secret key in the file at path, armored or not. passphrase
// is the path of a file whose first line unlocks it; "" for a key without one. Both
// are read once, so a named pipe or /dev/fd/N works.
// Signatures are dated at, or when the key was made or last renewed if that is
// later: a signature older than its key is invalid, and OpenPGP judges a
// key by its newest self-signature. now is only used to choose the key and to
// refuse one that has expired.
func Load(ctx context.Context, path, passphrase string, at, now time.Time) (*Signer, error) {
	entity, err := read(ctx, path)
	if err == nil {
		err = unlock(ctx, entity, passphrase)
	}
	if err != nil {
		return nil, fmt.Errorf("signing key %s: %w", path, err)
	}
	key, ok := entity.SigningKey(now)
	if !ok {
		return nil, fmt.Errorf("signing key %s: %w", path, unusable(entity, now))
	}
	self, _ := entity.PrimarySelfSignature()
	for _, made := range []time.Time{key.PublicKey.CreationTime, key.SelfSignature.CreationTime, self.CreationTime} {
		if made.After(at) {
			at = made
		}
	}
	if _, ok := entity.SigningKeyById(at, key.PublicKey.KeyId); !ok {
		return nil, fmt.Errorf("signing key %s: at %s: %w", path, at.UTC().Format(time.RFC3339), unusable(entity, at))
	}
	withoutSalt := false
	return &Signer{entity, key.PublicKey, &packet.Config{
		DefaultHash:                           crypto.SHA256, // what rpm 4.14 (EL 8) and debsig-verify take
		SigningKeyId:                          key.PublicKey.KeyId,
		Time:                                  func() time.Time { return at },
		NonDeterministicSignaturesViaNotation: &withoutSalt,
	}}, nil
}

// read reads a key ring that holds one secret key.
func read(ctx context.Context, path string) (*openpgp.Entity, error) {
	data, err := readSecret(ctx, path, maxKey)
	if err != nil {
		return nil, err
	}
	keys, err := readKeys(data)
	if err != nil {
		return nil, fmt.Errorf("not an OpenPGP key: %w", err)
	}
	secret := slices.DeleteFunc(slices.Clone(keys), func(key *openpgp.Entity) bool { return key.PrivateKey == nil })
	switch {
	case len(secret) == 1:
		return secret[0], nil
	case len(keys) > 0 && len(secret) == 0:
		return nil, errors.New("a public key; export the secret one (gpg --export-secret-keys)")
	}
	return nil, fmt.Errorf("%d secret keys, want one: export one by its fingerprint", len(secret))
}

// armorStart begins each armored block (RFC 9580 6.2.1).
const armorStart = "-----BEGIN PGP"

// readKeys reads the keys of a file: of each of its armored blocks, or of one
// binary key ring.
func readKeys(data []byte) (openpgp.EntityList, error) {
	if !bytes.Contains(data, []byte(armorStart)) {
		return openpgp.ReadKeyRing(bytes.NewReader(data))
	}
	var keys openpgp.EntityList
	for _, block := range bytes.SplitAfter(data, []byte(armorStart))[1:] {
		more, err := openpgp.ReadArmoredKeyRing(io.MultiReader(strings.NewReader(armorStart), bytes.NewReader(block)))
		if err != nil {
			return nil, err
		}
		keys = append(keys, more...)
	}
	return keys, nil
}

// unlock takes the passphrase off the key and its subkeys.
func unlock(ctx context.Context, entity *openpgp.Entity, passphrase string) error {
	locked := entity.PrivateKey.Encrypted
	for _, subkey := range entity.Subkeys {
		locked = locked || subkey.PrivateKey != nil && subkey.PrivateKey.Encrypted
	}
	switch {
	case !locked && passphrase == "":
		return nil
	case !locked:
		return errors.New("has no passphrase, but a file with one was given")
	case passphrase == "":
		return errors.New("is locked with a passphrase; give GPG_PASSPHRASE_PATH")
	}
	secret, err := ReadPassphrase(ctx, passphrase)
	if err != nil {
		return err
	}
	if err := entity.DecryptPrivateKeys(secret); err != nil {
		return errors.New("the first line of the file that GPG_PASSPHRASE_PATH names does not unlock it")
	}
	return nil
}

// unusable says why a key cannot sign.
func unusable(entity *openpgp.Entity, now time.Time) error {
	self, identity := entity.PrimarySelfSignature()
	switch {
	case entity.Revoked(now) || identity != nil && identity.Revoked(now):
		return errors.New("is revoked")
	case self != nil && entity.PrimaryKey.KeyExpired(self, now):
		expiry := entity.PrimaryKey.CreationTime.Add(time.Duration(*self.KeyLifetimeSecs) * time.Second)
		return fmt.Errorf("expired at %s", expiry.UTC().Format(time.RFC3339))
	}
	return errors.New("has no valid key that may sign")
}

// KeyID is the 64-bit ID of the key that signs, in hex, upper case.
func (s *Signer) KeyID() string { return fmt.Sprintf("%016X", s.config.SigningKeyId) }

// Sign makes a binary detached signature of all that data holds.
func (s *Signer) Sign(data io.Reader) ([]byte, error) {
	var signature bytes.Buffer
	err := openpgp.DetachSign(&signature, s.entity, data, s.config)
	return signature.Bytes(), err
}

// Armored is Sign, as text.
func (s *Signer) Armored(data io.Reader) ([]byte, error) {
	signature, err := s.Sign(data)
	if err != nil {
		return nil, err
	}
	return armored(openpgp.SignatureType, func(w io.Writer) error {
		_, err := w.Write(signature)
		return err
	})
}

// Public is the key's public half, armored.
func (s *Signer) Public() ([]byte, error) {
	return armored(openpgp.PublicKeyType, s.entity.Serialize)
}

func armored(kind string, fill func(io.Writer) error) ([]byte, error) {
	var text bytes.Buffer
	w, err := armor.Encode(&text, kind, nil)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(fill(w), w.Close()); err != nil {
		return nil, err
	}
	text.WriteByte('\n')
	return text.Bytes(), nil
}

// A Key is a public key that checks signatures.
type Key struct{ entities openpgp.EntityList }

// ReadKey reads armored public keys.
func ReadKey(r io.Reader) (Key, error) {
	entities, err := openpgp.ReadArmoredKeyRing(r)
	return Key{entities}, err
}

// Check verifies a detached signature of all that data holds, at the time that
// the signature names, and returns the ID of the key that made it.
func (k Key) Check(data io.Reader, signature []byte) (keyID string, err error) {
	plain, err := dearmor(signature)
	if err != nil {
		return "", err
	}
	made, err := parse(plain)
	if err != nil {
		return "", err
	}
	keyID = fmt.Sprintf("%016X", *made.IssuerKeyId)
	config := &packet.Config{Time: func() time.Time { return made.CreationTime }}
	if _, err := openpgp.CheckDetachedSignature(k.entities, data, bytes.NewReader(plain), config); err != nil {
		return keyID, fmt.Errorf("signature by key %s: %w", keyID, err)
	}
	return keyID, nil
}

// Issuer is the ID of the key that a signature, armored or not, says it was
// made with. Nobody has checked it.
func Issuer(signature []byte) (keyID string, err error) {
	plain, err := dearmor(signature)
	if err != nil {
		return "", err
	}
	made, err := parse(plain)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%016X", *made.IssuerKeyId), nil
}

func parse(signature []byte) (*packet.Signature, error) {
	p, err := packet.Read(bytes.NewReader(signature))
	if err != nil {
		return nil, fmt.Errorf("no OpenPGP signature: %w", err)
	}
	made, ok := p.(*packet.Signature)
	if !ok || made.IssuerKeyId == nil {
		return nil, errors.New("no OpenPGP signature that names its key")
	}
	return made, nil
}

func dearmor(signature []byte) ([]byte, error) {
	if !bytes.HasPrefix(signature, []byte(armorStart)) {
		return signature, nil
	}
	block, err := armor.Decode(bytes.NewReader(signature))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(block.Body)
}
