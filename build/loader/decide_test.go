package loader

import (
	"testing"

	"pretag/build/catalogue"
)

// TestDecide judges what a store may have under the tag of an archive.
func TestDecide(t *testing.T) {
	h := newFakeHost(t)
	a := h.archive("alpine-x86_64", "x86_64-v19.3.0", "ours")
	rec, err := parseRecord(a.Info())
	if err != nil {
		t.Fatal(err)
	}
	config := imageConfig{Entrypoint: []string{"/entrypoint"}, Cmd: []string{"sh"}}
	other := digest("other")
	image := func(change func(*held)) *held {
		h := imageOf(a)
		h.Config = config
		change(&h)
		return &h
	}
	manifest := func(h *held) { h.ID = other } // Docker's containerd store
	line := func(id, imageID string) []entry {
		return []entry{{"docker", "root", a.RepoTag, id, imageID, "loaded"}}
	}
	for name, test := range map[string]struct {
		has    *held
		loaded []entry
		config *imageConfig
		want   string
		read   bool // the config in the archive decides
	}{
		"nothing":                     {has: nil, want: missing},
		"image ID":                    {has: image(func(*held) {}), want: present},
		"manifest, config not read":   {has: image(manifest), read: true},
		"manifest, same config":       {has: image(manifest), config: &config, want: present},
		"manifest, judged before":     {has: image(manifest), loaded: line(other, rec.id()), want: present},
		"manifest, other user":        {has: image(func(h *held) { manifest(h); h.Config.User = "nobody" }), config: &config, want: foreign},
		"manifest, other entrypoint":  {has: image(func(h *held) { manifest(h); h.Config.Entrypoint = []string{"/evil"} }), config: &config, want: foreign},
		"manifest, other command":     {has: image(func(h *held) { manifest(h); h.Config.Cmd = nil }), config: &config, want: foreign},
		"manifest, other environment": {has: image(func(h *held) { manifest(h); h.Config.Env = []string{"A=b"} }), config: &config, want: foreign},
		"manifest, other directory":   {has: image(func(h *held) { manifest(h); h.Config.WorkingDir = "/tmp" }), config: &config, want: foreign},
		"same layers, other platform": {has: image(func(h *held) { manifest(h); h.Architecture = "arm64" }), want: foreign},
		"other layers":                {has: image(func(h *held) { manifest(h); h.RootFS.Layers = nil }), want: foreign},
		"loaded before":               {has: image(func(h *held) { manifest(h); h.RootFS.Layers = nil }), loaded: line(other, digest("older")), want: superseded},
		"another one loaded before":   {has: image(func(h *held) { manifest(h); h.RootFS.Layers = nil }), loaded: line(digest("third"), rec.id()), want: foreign},
	} {
		t.Run(name, func(t *testing.T) {
			got, read := decide(rec, test.has, test.loaded, test.config)
			if got != test.want || read != test.read {
				t.Errorf("decide: %q, %t, want %q, %t", got, read, test.want, test.read)
			}
		})
	}
}

func TestDecidePrune(t *testing.T) {
	e := entry{"podman", "root", catalogue.Repository + ":x86_64-v19.2.0", digest("old"), digest("old"), "loaded"}
	found := e
	found.how = "found"
	old := &held{ID: e.id, RepoTags: []string{e.repoTag}}
	untagged := &held{ID: e.id}
	retagged := &held{ID: e.id, RepoTags: []string{"localhost/kept:1"}}
	newer := &held{ID: digest("new")}
	for name, test := range map[string]struct {
		entry        entry
		current      bool
		tagged, byID *held
		wanted       bool
		want         pruning
	}{
		"an archive holds it":                  {entry: e, current: true, tagged: old, byID: old, want: leave},
		"not the loader's":                     {entry: found, tagged: old, byID: old, want: forget},
		"superseded version":                   {entry: e, tagged: old, byID: old, want: untag},
		"Runner asks for it":                   {entry: e, tagged: old, byID: old, wanted: true, want: keep},
		"gone":                                 {entry: e, want: forget},
		"another image has the tag":            {entry: e, tagged: newer, want: forget},
		"rebuilt, untagged":                    {entry: e, tagged: newer, byID: untagged, want: remove},
		"rebuilt, Runner asks for the new one": {entry: e, tagged: newer, byID: untagged, wanted: true, want: remove}, // row H
		"has another tag":                      {entry: e, tagged: newer, byID: retagged, want: forget},
	} {
		t.Run(name, func(t *testing.T) {
			if got := decidePrune(test.entry, test.current, test.tagged, test.byID, test.wanted); got != test.want {
				t.Errorf("decidePrune: %d, want %d", got, test.want)
			}
		})
	}
}

func TestNewerThanKnown(t *testing.T) {
	newest := catalogue.Newest().String()
	for version, want := range map[string]string{
		"":                       "",
		"15.8.0":                 "",
		newest:                   "",
		"99.0.0":                 "GitLab Runner 99.0.0 is newer than " + newest + ", the newest version that this loader knows; the names are those of " + newest,
		"99.0.1~pre.1.gabcdef01": "GitLab Runner 99.0.1~pre.1.gabcdef01 is newer than " + newest + ", the newest version that this loader knows; the names are those of " + newest,
	} {
		if got := newerThanKnown(version, "0123abcd"); got != want {
			t.Errorf("%q: got %q, want %q", version, got, want)
		}
	}
}
