package sign

import (
	"fmt"
	"strings"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// RPMWarning says which versions of rpm cannot read the key, or is empty. A package
// whose key rpm cannot read cannot be verified with it.
func (s *Signer) RPMWarning() string {
	for _, key := range []*packet.PublicKey{s.entity.PrimaryKey, s.key} {
		if kind, cannot := rpmCannot(key); cannot != "" {
			return fmt.Sprintf("key %s is a %s key: %s; RSA and Ed25519 keys are read by all", key.KeyIdString(), kind, cannot)
		}
	}
	return ""
}

// rpmCannot returns which versions of rpm cannot read a key: rpm 4.18
// reads no NIST and no Brainpool curve, rpm 4.20 no Brainpool curve (observed with the
// rpms of Debian 12 and 13).
func rpmCannot(key *packet.PublicKey) (kind, cannot string) {
	curve, err := key.Curve()
	kind = string(curve)
	switch key.PubKeyAlgo {
	case packet.PubKeyAlgoRSA, packet.PubKeyAlgoRSASignOnly, packet.PubKeyAlgoDSA:
		return "", ""
	case packet.PubKeyAlgoEdDSA:
		if err == nil && curve == packet.Curve25519 {
			return "", ""
		}
	case packet.PubKeyAlgoECDSA:
		switch {
		case strings.HasPrefix(kind, "Brainpool"):
			return kind, "rpm 4.18 and rpm 4.20 cannot read it"
		case strings.HasPrefix(kind, "P"):
			return "NIST " + kind, "rpm 4.18 and older cannot read it"
		}
	}
	if err != nil {
		kind = fmt.Sprintf("algorithm %d", key.PubKeyAlgo)
	}
	return kind, "whether rpm can read it is not known"
}
