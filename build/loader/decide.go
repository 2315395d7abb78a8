package loader

import (
	"slices"
	"strings"
)

// States of the image under an archive's tag.
const (
	present    = "present"    // the store has the image
	missing    = "missing"    // the store has no image under the tag
	superseded = "superseded" // an older image that the loader has loaded
	foreign    = "foreign"    // another image
	unpackaged = "unpackaged" // an image that Runner asks for and no archive holds
	unknown    = "unknown"    // it could not be found out
)

// An imageConfig is the part of an image's config that decides how a container runs.
type imageConfig struct {
	Entrypoint, Cmd, Env []string
	User, WorkingDir     string
}

func (c imageConfig) equal(other imageConfig) bool {
	return slices.Equal(c.Entrypoint, other.Entrypoint) && slices.Equal(c.Cmd, other.Cmd) && slices.Equal(c.Env, other.Env) &&
		c.User == other.User && c.WorkingDir == other.WorkingDir
}

// A held image is one that an engine has, as it describes it.
type held struct {
	ID           string // hex; on Docker's containerd store of a manifest, elsewhere of the config
	RepoTags     []string
	Os           string
	Architecture string
	Comment      string
	Config       imageConfig
	RootFS       struct{ Layers []string }
}

// similar reports whether the image has the layers and the platform of the record.
func (h *held) similar(rec record) bool {
	return slices.Equal(h.RootFS.Layers, rec.DiffIDs) && h.Os == "linux" && h.Architecture == rec.goarch
}

// imported reports whether the image looks like one that GitLab Runner imported
// from the root filesystem in its own package: the engine's comment, and the
// entrypoint that Runner gives (v15.8.0, executors/docker/docker.go; comments of
// podman 4.3.1 and Docker 28).
func (h *held) imported() bool {
	return strings.HasPrefix(strings.ToLower(h.Comment), "imported from") && len(h.RootFS.Layers) == 1 &&
		slices.Equal(h.Config.Entrypoint, []string{"/usr/bin/dumb-init", "/entrypoint"})
}

// decide judges the image that a store has under the tag of a record, nil for
// none. loaded are the lines of the state about this store. config is the
// config in the archive; needConfig is true if it is nil and decides.
func decide(rec record, h *held, loaded []entry, config *imageConfig) (state string, needConfig bool) {
	known := func(match func(entry) bool) bool {
		return slices.ContainsFunc(loaded, func(e entry) bool { return e.repoTag == rec.RepoTag && e.id == h.ID && match(e) })
	}
	switch {
	case h == nil:
		return missing, false
	case h.ID == rec.id():
		return present, false
	case known(func(e entry) bool { return e.imageID == rec.id() }):
		return present, false // an engine that names images by manifest, compared in an earlier run
	case h.similar(rec) && config == nil:
		return "", true
	case h.similar(rec) && config.equal(h.Config):
		return present, false
	case known(func(entry) bool { return true }):
		return superseded, false
	}
	return foreign, false
}

// A pruning is what prune does about one line of the state.
type pruning int

// The prunings.
const (
	leave  pruning = iota // nothing: an installed archive holds the image
	forget                // drop the line: the image is gone, has another tag, or is not the loader's
	keep                  // GitLab Runner asks for the image
	untag                 // remove the tag, which names the image
	remove                // remove the image, which has no tag anymore
)

// decidePrune judges a line of the state. current: an installed archive holds the
// image under that tag. tagged is the image that has the tag now, and byID the one
// with the line's ID, nil for none. wanted: Runner asks for the tag.
func decidePrune(e entry, current bool, tagged, byID *held, wanted bool) pruning {
	switch {
	case current:
		return leave
	case e.how == "found":
		return forget
	case tagged != nil && tagged.ID == e.id && wanted:
		return keep // only here: another image may have the tag by now
	case tagged != nil && tagged.ID == e.id:
		return untag
	case byID != nil && byID.ID == e.id && len(byID.RepoTags) == 0:
		return remove
	}
	return forget
}
