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
		entries := r.images.entries(t)
		if len(entries) == 0 {
			return nil
		}
		if err := r.reach(ctx, t); err != nil {
			return err
		}
		for _, e := range entries {
			if err := r.pruneOne(ctx, t, e, in); err != nil {
				return err
			}
		}
		return nil
	})
}

// pruneOne acts on one line of the state.
func (r *run) pruneOne(ctx context.Context, t *target, e entry, in installation) error {
	// An archive whose record is damaged may hold the image.
	current := len(r.damaged) > 0 || slices.ContainsFunc(r.records, func(rec record) bool { return rec.RepoTag == e.repoTag && rec.id() == e.imageID })
	var found map[string]*held
	if !current && e.how != "found" {
		var err error
		if found, err = r.look(ctx, t, e.repoTag, e.id); err != nil {
			return err
		}
	}
	keeps := in.keeps(e.repoTag)
	name := fmt.Sprintf("%s: %s (%s)", t, e.repoTag, e.id[:12])
	what := ""
	switch decidePrune(e, current, found[e.repoTag], found[e.id], keeps != "") {
	case leave:
		return nil
	case forget: // it is gone, has another tag, or is not the loader's
		if r.dryRun {
			return nil
		}
		return r.images.replace(e.String(), "")
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
	if err := r.images.replace(e.String(), ""); err != nil {
		return err
	}
	r.say("%s: removed", name)
	return nil
}
