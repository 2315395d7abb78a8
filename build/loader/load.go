package loader

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"pretag/build/internal/contextio"
	"pretag/build/internal/decompress"
)

// load loads the chosen archives into each target that lacks them. It begins
// again if the archives were exchanged meanwhile: systemd merges a request to start
// the unit into the run that is in progress.
func (r *run) load(ctx context.Context) error {
	if err := r.lock(ctx); err != nil {
		return err
	}
	temporary, err := r.journal("temporary")
	if err != nil {
		return err
	}
	r.removeLeftovers(ctx, temporary)
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
		if len(p.targets) > 0 {
			chosen := r.chosen()
			if len(chosen) == 0 {
				r.reportNone()
			}
			err = r.each(ctx, p, func(ctx context.Context, t *target) error { return r.loadTarget(ctx, t, chosen, temporary) })
		} else {
			p.report(r)
		}
		if err != nil {
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
func (r *run) loadTarget(ctx context.Context, t *target, chosen []record, temporary *journal) error {
	if len(chosen) == 0 {
		return r.reach(ctx, t)
	}
	images, err := r.journal("images")
	if err != nil {
		return err
	}
	found, err := r.look(ctx, t, references(chosen)...)
	if err != nil {
		return err
	}
	var info *engineInfo
	for _, rec := range chosen {
		name := t.String() + ": " + rec.Helper
		h := found[rec.RepoTag]
		state, err := r.judge(ctx, t, rec, h, images)
		if err != nil {
			r.refuse(exitDataErr, "%s: damaged: %s", name, err)
			continue
		}
		replaced := state == foreign && r.replace != "" && strings.HasPrefix(h.ID, r.replace)
		switch {
		case state == present:
			if err := r.remember(t, rec, h.ID, "found", images); err != nil {
				return err
			}
			r.say("%s: present", name)
			continue
		case state == foreign && !replaced:
			r.refuse(exitForeign, "%s: kept another image: %s", name, r.explainForeign(rec, h))
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
			answer, err := r.storePlaces(ctx, t)
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
		err = r.loadOne(ctx, t, rec, info.temp, images, temporary)
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

// judge decides about the image that a target has under the tag of an archive. The
// config in the archive is read where only that can tell.
func (r *run) judge(ctx context.Context, t *target, rec record, h *held, images *journal) (string, error) {
	var about []entry
	for _, e := range images.entries(t) {
		if e.repoTag == rec.RepoTag {
			about = append(about, e)
		}
	}
	state, needConfig := decide(rec, h, about, nil)
	if !needConfig {
		return state, nil
	}
	config, err := rec.config(ctx)
	if err != nil {
		return "", err
	}
	state, _ = decide(rec, h, about, config)
	return state, nil
}

// explainForeign says which image has the tag, and how to replace it.
func (r *run) explainForeign(rec record, h *held) string {
	what := fmt.Sprintf("%s is %s, want %s", rec.RepoTag, h.ID, rec.id())
	if h.imported() {
		what = "GitLab Runner has imported it from its own package of the same version: " + what
	}
	return fmt.Sprintf("%s (to replace it: gitlab-runner-helper-images load --replace %s)", what, h.ID[:12])
}

// storePlaces returns where the engine keeps images. It refuses a store whose
// driver turns out not to be the one that the user's own podman uses.
func (r *run) storePlaces(ctx context.Context, t *target) (engineInfo, error) {
	info, err := r.directories(ctx, t)
	if err != nil || t.engine != "podman" || !t.other {
		return info, err
	}
	driver, err := r.storageDriver(ctx, t, info.graphRoot)
	if err == nil && driver != "" && driver != info.driver {
		err = fmt.Errorf("podman works with the storage driver %s here, but %s is a store of %s", info.driver, info.graphRoot, driver)
	}
	return info, err
}

// remember writes into the state what the target has.
func (r *run) remember(t *target, rec record, id, how string, images *journal) error {
	e := entry{t.stateEngine(), t.user.name, rec.RepoTag, id, rec.id(), how}
	if r.dryRun {
		return nil
	}
	for _, known := range images.entries(t) {
		if known.repoTag == e.repoTag && known.id == e.id && known.imageID == e.imageID && known.how != "loading" {
			return nil
		}
	}
	pending := e
	pending.how = "loading"
	return images.replace(pending.String(), e.String())
}

// loadOne gives an archive to the engine and asks it for the image afterwards, as
// engines accept a tar that ends early. The state names the image first, so that
// later runs know every image that was loaded.
func (r *run) loadOne(ctx context.Context, t *target, rec record, temp string, images, temporary *journal) (err error) {
	pending := entry{t.stateEngine(), t.user.name, rec.RepoTag, rec.id(), rec.id(), "loading"}
	if err := images.replace("", pending.String()); err != nil {
		return err
	}
	if t.engine == "podman" {
		if err := r.makeTemp(ctx, t, temp, temporary); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, r.removeTemp(ctx, t, temporary)) }()
	}
	// A slow disk writes 2 MiB a second.
	limit := r.loadLimit + time.Duration(rec.UnpackedSize>>21)*time.Second
	if err := r.feed(ctx, t, rec, limit); err != nil {
		return errors.Join(err, r.unlessHeld(ctx, t, rec, pending, images))
	}
	found, err := r.look(ctx, t, rec.RepoTag)
	if err != nil {
		return err
	}
	h := found[rec.RepoTag]
	state := missing
	if h != nil {
		if state, err = r.judgeLoaded(ctx, rec, h); err != nil {
			return err
		}
	}
	if state != present {
		has := "no image"
		if h != nil {
			has = h.ID
		}
		return errors.Join(
			&callError{words: fmt.Sprintf("the engine reports success but has %s as %s, want %s", has, rec.RepoTag, rec.id())},
			images.replace(pending.String(), ""))
	}
	if err := images.replace(pending.String(), ""); err != nil {
		return err
	}
	return r.remember(t, rec, h.ID, "loaded", images)
}

// judgeLoaded compares what was loaded with the archive, without the state.
func (r *run) judgeLoaded(ctx context.Context, rec record, h *held) (string, error) {
	return r.judge(ctx, &target{}, rec, h, &journal{})
}

// unlessHeld drops the pending line of the state after a load that failed, unless
// the engine has the image nevertheless.
func (r *run) unlessHeld(ctx context.Context, t *target, rec record, pending entry, images *journal) error {
	if ctx.Err() != nil {
		return nil // the next run judges it
	}
	if found, err := r.look(ctx, t, rec.RepoTag); err != nil || found[rec.RepoTag] != nil && found[rec.RepoTag].ID == rec.id() {
		return nil
	}
	return images.replace(pending.String(), "")
}

// feed decompresses an archive into the engine.
func (r *run) feed(ctx context.Context, t *target, rec record, limit time.Duration) error {
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
	_, err = r.askWith(ctx, t, source, limit, "load")
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
	unlisted, err := r.unlisted()
	if err != nil {
		return err
	}
	for _, name := range unlisted {
		r.refuse(exitDataErr, "%s: no record", name)
	}
	if len(chosen) == 0 {
		r.reportNone()
	}
	return nil
}
