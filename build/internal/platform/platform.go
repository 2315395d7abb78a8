// Package platform compares platforms.
package platform

import v1 "github.com/google/go-containerregistry/pkg/v1"

// Same reports whether an image for one platform is one for the other. A
// variant that is left out is the usual one (containerd/platforms v1.0.0, database.go).
func Same(a, b v1.Platform) bool {
	return a.OS == b.OS && a.Architecture == b.Architecture && variant(a) == variant(b)
}

func variant(p v1.Platform) string {
	switch p.Architecture + "/" + p.Variant {
	case "arm/":
		return "v7"
	case "arm64/v8", "amd64/v1":
		return ""
	}
	return p.Variant
}

// Of is the platform that a config names.
func Of(c *v1.ConfigFile) v1.Platform {
	return v1.Platform{OS: c.OS, Architecture: c.Architecture, Variant: c.Variant}
}

// IsAttestation reports whether an index's entry is one of BuildKit's
// attestations (moby/buildkit v0.25, docs/attestations/attestation-storage.md).
func IsAttestation(d v1.Descriptor) bool {
	return d.Annotations["vnd.docker.reference.type"] == "attestation-manifest" ||
		d.Platform != nil && d.Platform.OS == "unknown" && d.Platform.Architecture == "unknown"
}
