package loader

import (
	"context"
	"fmt"
	"slices"
)

// prune removes images of earlier archives.
func (r *run) prune(ctx context.Context) error {
	if err := r.lock(ctx); err != nil {
		return err
	}
	if _, err := r.scan(); err != nil {
		return err
	}
	for _, err := range r.damaged {
		r.refuse(exitDataErr, "%s", err)
	}
	in, err := r.installation(ctx, true)
	if err != nil {
		return err
	}
	return r.pruneTargets(ctx, in, r.plan(ctx, in))
}

func (r *run) pruneTargets(ctx context.Context, in installation, p plan) error {
	return r.each(ctx, p, func(ctx context.Context, t *target) error {
		images, err := r.journal("images")
		if err != nil {
			return err
		}
		entries := images.entries(t)
		if len(entries) == 0 {
			return nil
		}
		if err := r.reach(ctx, t); err != nil {
			return err
		}
		for _, e := range entries {
			if err := r.pruneOne(ctx, t, e, in, images); err != nil {
				return err
			}
		}
		return nil
	})
}

// pruneOne acts on one line of the state.
func (r *run) pruneOne(ctx context.Context, t *target, e entry, in installation, images *journal) error {
	// An archive whose record is damaged may hold the image.
	current := len(r.damaged) > 0 || slices.ContainsFunc(r.records, func(rec record) bool { return rec.RepoTag == e.repoTag && rec.id() == e.imageID })
	var tagged, byID *held
	if !current && e.how != "found" {
		for reference, to := range map[string]**held{e.repoTag: &tagged, e.id: &byID} {
			found, err := r.look(ctx, t, reference)
			if err != nil {
				return err
			}
			*to = found[reference]
		}
	}
	keeps := in.keeps(e.repoTag)
	name := fmt.Sprintf("%s: %s (%s)", t, e.repoTag, e.id[:12])
	what := ""
	switch decidePrune(e, current, tagged, byID, keeps != "") {
	case leave:
		return nil
	case forget: // it is gone, has another tag, or is not the loader's
		if r.dryRun {
			return nil
		}
		return images.replace(e.String(), "")
	case keep:
		r.say("%s: kept: %s", name, keeps)
		return nil
	case untag:
		what = e.repoTag
	case remove:
		what = e.id
	}
	if r.dryRun {
		r.say("%s: would be removed", name)
		return nil
	}
	if _, err := r.ask(ctx, t, "rmi", "--", what); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		r.say("%s: kept: %s", name, err)
		return nil
	}
	if err := images.replace(e.String(), ""); err != nil {
		return err
	}
	r.say("%s: removed", name)
	return nil
}
