// Package catalogue knows the helper images of every GitLab Runner version and
// every name that follows from one: helper, file, tag, platform, package. It
// opens no file.
package catalogue

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// A Helper is one helper image of the catalogue, over all versions that have it.
type Helper struct {
	Flavor   string
	Arch     string // GitLab Runner's word: x86_64, arm, arm64, ...
	Shell    string // "" or pwsh
	Platform v1.Platform
	Config   Config // what a flat root filesystem of it has lost

	built     []span // the versions that have it
	packaged  []span // the versions whose own package carries it
	released  []span // the versions whose release uploads it
	notPushed []span // the versions whose release did not push its tag
	standIns  []term // flavors of which it is a copy
	pushedAs  []term // flavors under which its image was pushed, where that is no stand-in
}

// A Config is the part of an image's config that a flat root filesystem has lost.
type Config struct {
	Entrypoint []string `yaml:"entrypoint"`
	Cmd        []string `yaml:"cmd"`
	Env        []string `yaml:"env"`
	User       string   `yaml:"user"`
	WorkingDir string   `yaml:"workdir"`

	// AssumedSince is the first version for which this is an assumption; "" for none.
	AssumedSince string `yaml:"assumed-since"`
}

// String returns the helper's name, such as ubuntu-x86_64-pwsh. HELPERS selects by it.
func (h Helper) String() string { return name(h.Flavor, h.Arch, h.Shell) }

// Equal reports whether h and other are the same helper of one catalogue.
func (h Helper) Equal(other Helper) bool { return h.String() == other.String() }

// File returns the archive's base name.
func (h Helper) File() string { return h.base() + Suffix }

func (h Helper) base() string { return base(h.Flavor, h.Arch, h.Shell) }

// Inputs returns the base names that an input tarball of h may have. The layout
// is read from the content, whatever the name.
func (h Helper) Inputs() []string {
	inputs := []string{h.String() + ".tar"}
	for _, suffix := range []string{".tar", ".tar.xz", ".tar.gz", ".tar.zst", ".tar.bz2", Suffix} {
		inputs = append(inputs, h.base()+suffix)
	}
	return inputs
}

// Tag returns the tag that GitLab Runner v looks for.
func (h Helper) Tag(v Version) string { return tag(h.Flavor, h.Arch, v.tagWord(), h.Shell) }

// GoArch returns the architecture in Go's words, which the names of packages use.
func (h Helper) GoArch() string { return h.Platform.Architecture }

// PackageSuffix returns what the helper adds to the base name of its package:
// alpine-amd64, ubuntu-arm64-pwsh.
func (h Helper) PackageSuffix() string { return name(h.Flavor, h.GoArch(), h.Shell) }

// Exists reports whether GitLab Runner v has the helper.
func (h Helper) Exists(v Version) bool { return holds(h.built, v) }

// Packaged reports whether the package of GitLab Runner v carries the helper:
// gitlab-runner, or gitlab-runner-helper-images from 17.7.0 on.
func (h Helper) Packaged(v Version) bool { return h.Exists(v) && holds(h.packaged, v) }

// Released reports whether the release of GitLab Runner v uploads the helper's tarball.
func (h Helper) Released(v Version) bool { return h.Exists(v) && holds(h.released, v) }

// IsDefault reports whether GitLab Runner v asks for the helper on a host of its
// architecture if neither flavor nor shell is configured.
func (h Helper) IsDefault(v Version) bool {
	return h.Shell == "" && h.Flavor == v.DefaultFlavor(h.Arch)
}

// StandIn returns the name of the helper of which h is a copy in GitLab Runner v,
// so that its tarball can be used for h; "" if there is none.
func (h Helper) StandIn(v Version) string {
	if flavor := pick(h.standIns, v); flavor != "" {
		return name(flavor, h.Arch, h.Shell)
	}
	return ""
}

// ConfigAssumed reports whether Config is an assumption for GitLab Runner v,
// because the real one is not public.
func (h Helper) ConfigAssumed(v Version) bool {
	return h.Config.AssumedSince != "" && !v.Before(h.Config.AssumedSince)
}

// A RegistryTag is a tag under which a registry may have a helper's image.
type RegistryTag struct {
	Tag     string
	Missing string // why the release did not push the tag; "" if it did
}

// revisionTagsOnly is the version whose release pushed tags with the git
// revision but none with vX.Y.Z (GitLab Runner v17.8.0, scripts/pusher).
const revisionTagsOnly = "17.8.0"

// RegistryTags returns the tags under which a registry has the image of h for
// GitLab Runner v, in the order to try. The first is the tag that Runner asks
// for. If the release did not push that one, the reason is given and a tag that
// names the same image follows, if there is one.
func (h Helper) RegistryTags(v Version) []RegistryTag {
	first := RegistryTag{Tag: h.Tag(v)}
	flavor, word := h.Flavor, v.tagWord()
	var reasons []string
	if v.String() == revisionTagsOnly {
		word, _ = KnownRevision(revisionTagsOnly)
		reasons = append(reasons, "only tags with the git revision")
	}
	if holds(h.notPushed, v) {
		if flavor = pick(h.pushedAs, v); flavor == "" {
			flavor = pick(h.standIns, v)
		}
		reasons = append(reasons, fmt.Sprintf("%s only as %s", h, flavor))
	}
	if len(reasons) == 0 {
		return []RegistryTag{first}
	}
	first.Missing = fmt.Sprintf("GitLab Runner %s pushed %s", v, strings.Join(reasons, " and "))
	return []RegistryTag{first, {Tag: tag(flavor, h.Arch, word, h.Shell)}}
}

// A Catalogue is a valid table of helpers, in the order of its file.
type Catalogue struct{ helpers []Helper }

// Helpers returns the helpers of all versions.
func (c *Catalogue) Helpers() []Helper { return slices.Clone(c.helpers) }

// Lookup returns the helper of that name.
func (c *Catalogue) Lookup(name string) (Helper, bool) {
	return c.find(func(h Helper) bool { return h.String() == name })
}

// Existing returns the helpers that GitLab Runner v has.
func (c *Catalogue) Existing(v Version) []Helper { return c.filter(Helper.Exists, v) }

// Default returns the helpers that the package of GitLab Runner v carries.
func (c *Catalogue) Default(v Version) []Helper { return c.filter(Helper.Packaged, v) }

// DefaultHelper returns the helper that GitLab Runner v asks for on a host of
// this architecture if nothing is configured. goarch is in Go's words.
func (c *Catalogue) DefaultHelper(v Version, goarch string) (Helper, bool) {
	return c.find(func(h Helper) bool { return h.GoArch() == goarch && h.IsDefault(v) && h.Exists(v) })
}

func (c *Catalogue) find(match func(Helper) bool) (Helper, bool) {
	i := slices.IndexFunc(c.helpers, match)
	if i < 0 {
		return Helper{}, false
	}
	return c.helpers[i], true
}

func (c *Catalogue) filter(keep func(Helper, Version) bool, v Version) []Helper {
	var kept []Helper
	for _, h := range c.helpers {
		if keep(h, v) {
			kept = append(kept, h)
		}
	}
	return kept
}

// set returns the rule of a word that names a set of helpers.
func set(word string) (in func(Helper, Version) bool, ok bool) {
	switch word {
	case "default":
		return Helper.Packaged, true
	case "all":
		return Helper.Exists, true
	case "release":
		return Helper.Released, true
	}
	return nil, false
}

// Select returns the helpers of GitLab Runner v that any of the words selects,
// each once, in the catalogue's order. A word is a set (default, all, release) or
// a glob over helper names (path.Match). All words that select nothing are
// reported together.
func (c *Catalogue) Select(words []string, v Version) ([]Helper, error) {
	if err := c.CheckWords(words, v); err != nil {
		return nil, err
	}
	chosen := map[string]bool{}
	var errs []error
	for _, word := range words {
		in, isSet := set(word)
		if !isSet {
			in = func(h Helper, v Version) bool { return h.matches(word) && h.Exists(v) }
		}
		found := c.filter(in, v)
		for _, h := range found {
			chosen[h.String()] = true
		}
		switch other, _ := c.find(func(h Helper) bool { return h.matches(word) }); {
		case len(found) > 0:
		case isSet:
			errs = append(errs, fmt.Errorf("%q: the catalogue has no such helpers for GitLab Runner %s", word, v))
		default:
			errs = append(errs, fmt.Errorf("%q: GitLab Runner %s has no such helper; %s exists %s", word, v, other, spans(other.built)))
		}
	}
	return c.filter(func(h Helper, _ Version) bool { return chosen[h.String()] }, v), errors.Join(errs...)
}

// CheckWords reports the words that Select takes for no version. The names that
// the message lists are those of GitLab Runner v.
func (c *Catalogue) CheckWords(words []string, v Version) error {
	var errs []error
	listed := false // once is enough
	for _, word := range words {
		if _, err := path.Match(word, ""); err != nil {
			errs = append(errs, fmt.Errorf("%q: %w", word, err))
			continue
		}
		if _, isSet := set(word); isSet || slices.ContainsFunc(c.helpers, func(h Helper) bool { return h.matches(word) }) {
			continue
		}
		hint := ""
		switch {
		case strings.ContainsAny(word, " \t;"):
			hint = "; separate them by commas"
		case !listed:
			hint, listed = "; there are "+names(c.Existing(v))+" and the sets default, all, release", true
		}
		errs = append(errs, fmt.Errorf("%q: no helper matches%s", word, hint))
	}
	return errors.Join(errs...)
}

// matches reports whether the glob, whose form has been checked, names h.
func (h Helper) matches(glob string) bool {
	ok, _ := path.Match(glob, h.String())
	return ok
}

func names(helpers []Helper) string {
	names := make([]string, len(helpers))
	for i, h := range helpers {
		names[i] = h.String()
	}
	return strings.Join(names, ", ")
}

// holds reports whether any of the spans holds v.
func holds(spans []span, v Version) bool {
	return slices.ContainsFunc(spans, func(s span) bool { return s.holds(v) })
}

func spans(spans []span) string {
	words := make([]string, len(spans))
	for i, s := range spans {
		words[i] = s.String()
	}
	return strings.Join(words, ", ")
}

// A term is a word that holds in a range of versions.
type term struct {
	word string
	span span
}

// pick returns the word of the term that holds in v, or "".
func pick(terms []term, v Version) string {
	for _, t := range terms {
		if t.span.holds(v) {
			return t.word
		}
	}
	return ""
}
