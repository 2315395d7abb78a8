package loader

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"pretag/build/internal/contextio"
	"pretag/build/internal/decompress"
)

// load loads the chosen archives into each target that lacks them. It starts
// over if the archives have changed meanwhile: systemd merges a request to start the
// unit into the run that is in progress.
func (r *run) load(ctx context.Context) error {
	if err := r.lock(ctx); err != nil {
		return err
	}
	r.removeLeftovers(ctx)
	for seen := ""; ; {
		now, err := r.scan()
		if err != nil {
			return err
		}
		if now == seen {
			return nil
		}
		seen, r.result = now, exitOK
		in, err := r.installation(ctx, r.pruneAfter)
		if err != nil {
			return err
		}
		p := r.plan(ctx, in)
		var chosen []record
		if len(p.targets) > 0 {
			if chosen = r.chosen(); len(chosen) == 0 {
				r.reportNone()
			}
		}
		if err := r.each(ctx, p, func(ctx context.Context, t *target) error { return r.loadTarget(ctx, t, chosen) }); err != nil {
			return err
		}
		if r.pruneAfter && r.result == exitOK && !r.dryRun {
			if err := r.pruneTargets(ctx, in, plan{targets: p.targets}); err != nil {
				return err
			}
		}
	}
}

// loadTarget loads what one target lacks.
func (r *run) loadTarget(ctx context.Context, t *target, chosen []record) error {
	found, err := r.look(ctx, t, references(chosen)...)
	if err != nil {
		return err
	}
	var info *engineInfo
	for _, rec := range chosen {
		name := t.String() + ": " + rec.Helper
		h := found[rec.RepoTag]
		state, err := judge(ctx, rec, h, r.images.entries(t))
		if err != nil {
			r.refuse(exitDataErr, "%s: damaged: %s", name, err)
			continue
		}
		replaced := state == foreign && r.replace != "" && strings.HasPrefix(h.ID, r.replace)
		switch {
		case state == present:
			if err := r.remember(t, rec, h.ID, "found"); err != nil {
				return err
			}
			r.say("%s: present", name)
			continue
		case state == foreign && !replaced:
			r.refuse(exitForeign, "%s: kept another image: %s", name, explainForeign(rec, h))
			continue
		}
		if err := r.sound(ctx, rec); err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			r.refuse(exitDataErr, "%s: damaged: %s", name, err)
			continue
		}
		if info == nil {
			answer, err := r.info(ctx, t)
			if err != nil {
				return err
			}
			info = &answer
		}
		if why := lack(info.directories, rec.UnpackedSize); why != "" {
			r.refuse(exitNoSpace, "%s: no space: %s", name, why)
			continue
		}
		if r.dryRun {
			r.say("%s: would load", name)
			continue
		}
		err = r.loadOne(ctx, t, rec, info.temp)
		var failed *callError
		switch {
		case err == nil:
			r.say("%s: loaded", name)
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.As(err, &failed) && !failed.timedOut:
			r.refuse(exitEngine, "%s: failed: %s", name, err)
		default: // later ones would fail too
			return fmt.Errorf("%s: failed: %w", rec.Helper, err)
		}
	}
	return nil
}

func references(records []record) []string {
	var refs []string
	for _, rec := range records {
		refs = append(refs, rec.RepoTag)
	}
	return refs
}

// judge decides about the image that a target has under the tag of an archive, given
// the target's lines of the state. It reads the config in the archive if that decides.
func judge(ctx context.Context, rec record, h *held, entries []entry) (string, error) {
	state, needConfig := decide(rec, h, entries, nil)
	if !needConfig {
		return state, nil
	}
	config, err := rec.config(ctx)
	if err != nil {
		return "", err
	}
	state, _ = decide(rec, h, entries, config)
	return state, nil
}

// explainForeign says which image has the tag, and how to replace it.
func explainForeign(rec record, h *held) string {
	what := fmt.Sprintf("%s is %s, want %s", rec.RepoTag, h.ID, rec.id())
	if h.imported() {
		what = "GitLab Runner has imported it from its own package of the same version: " + what
	}
	return fmt.Sprintf("%s (to replace it: gitlab-runner-helper-images load --replace %s)", what, h.ID[:12])
}

// pending is the line of the state about an archive that is being loaded.
func pending(t *target, rec record) entry {
	return entry{t.word, t.user.name, rec.RepoTag, rec.id(), rec.id(), "loading"}
}

// remember writes into the state that the target has the image with that ID.
func (r *run) remember(t *target, rec record, id, how string) error {
	if r.dryRun {
		return nil
	}
	line := entry{t.word, t.user.name, rec.RepoTag, id, rec.id(), how}.String()
	for _, known := range r.images.entries(t) {
		if known.repoTag == rec.RepoTag && known.id == id && known.imageID == rec.id() && known.how != "loading" {
			line = ""
		}
	}
	return r.images.replace(pending(t, rec).String(), line)
}

// loadOne gives an archive to the engine and asks it for the image afterwards, as
// engines accept a tar that ends early. The state names the image first, so that
// later runs know every image that was loaded.
func (r *run) loadOne(ctx context.Context, t *target, rec record, temp string) (err error) {
	if err := r.images.replace("", pending(t, rec).String()); err != nil {
		return err
	}
	call := t.call("load")
	if t.engine == "podman" {
		var dir string
		if dir, err = r.makeTemp(ctx, t.user, temp); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, r.removeTemp(ctx, t.user, dir)) }()
		call.env = append(slices.Clone(call.env), "TMPDIR="+dir)
	}
	loadErr := r.feed(ctx, call, rec)
	if ctx.Err() != nil {
		return context.Cause(ctx) // the next run judges what is there
	}
	found, err := r.look(ctx, t, rec.RepoTag)
	if err != nil {
		return cmp.Or(loadErr, err)
	}
	has := "no image"
	if h := found[rec.RepoTag]; h != nil {
		has = h.ID
		if loadErr == nil {
			state, err := judge(ctx, rec, h, nil)
			if err != nil {
				return err
			}
			if state == present {
				return r.remember(t, rec, h.ID, "loaded")
			}
		}
	}
	if loadErr == nil {
		loadErr = &callError{words: fmt.Sprintf("the engine reports success but has %s as %s, want %s", has, rec.RepoTag, rec.id())}
	}
	if has == rec.id() {
		return loadErr
	}
	return errors.Join(loadErr, r.images.replace(pending(t, rec).String(), ""))
}

// feed decompresses an archive into a call of the engine.
func (r *run) feed(ctx context.Context, c call, rec record) error {
	f, err := rec.open()
	if err != nil {
		return err
	}
	defer f.Close()
	plain, err := decompress.NewReader(contextio.NewReader(ctx, f))
	if err != nil {
		return err
	}
	defer plain.Close()
	source := &watched{Reader: plain}
	c.stdin = source
	// A slow disk writes 2 MiB a second.
	c.limit = r.loadLimit + time.Duration(rec.UnpackedSize>>21)*time.Second
	_, err = r.do(ctx, c)
	switch {
	case source.err != nil:
		return fmt.Errorf("unpack %s: %w", filepath.Base(rec.Path), source.err)
	case err == nil && !source.ended:
		return &callError{words: "the engine did not read the whole archive"}
	}
	return err
}

// watched remembers how a reader ended.
type watched struct {
	io.Reader
	ended bool
	err   error
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.Reader.Read(p)
	switch {
	case errors.Is(err, io.EOF):
		w.ended = true
	case err != nil:
		w.err = err
	}
	return n, err
}

// verify compares all archives with their records.
func (r *run) verify(ctx context.Context) error {
	if _, err := r.scan(); err != nil {
		return err
	}
	chosen := r.chosen()
	for _, rec := range chosen {
		err := r.sound(ctx, rec)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			r.refuse(exitDataErr, "%s: damaged: %s", rec.Helper, err)
		default:
			r.say("%s: ok", rec.Helper)
		}
	}
	for _, name := range r.unlisted {
		r.refuse(exitDataErr, "%s: no record", name)
	}
	if len(chosen) == 0 {
		r.reportNone()
	}
	return nil
}
