package build

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"pretag/build/internal/atomicfile"
	"pretag/build/internal/dirlock"
	"pretag/build/linuxpkg/bundle"
	"pretag/build/release"
)

// lockOut locks a directory that is written into.
func lockOut(dir string) (unlock func(), err error) { return dirlock.Lock([]string{dir}, nil) }

// lock locks what a build writes into and reads from. OUT/helper-images is locked
// by itself, because it may be the HELPER_IMAGES that pull and unpack write into.
func (c Config) lock() (unlock func(), err error) {
	return dirlock.Lock([]string{c.Out, filepath.Join(c.Out, release.ArchivesDir)}, []string{c.Inputs})
}

// packaged reports that OUT has no manifest, before a target that needs one makes OUT
// to lock it.
func (c Config) packaged(target string) error {
	if _, err := os.Stat(filepath.Join(c.Out, release.ManifestName)); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s %s: there is no %s; run the package target first", target, c.Out, release.ManifestName)
	}
	return nil
}

// publish moves what fill writes into a directory to the same names below OUT, and
// removes pretag's other files below the directories replaced. It returns which files
// below OUT are pretag's then.
func (c Config) publish(ctx context.Context, fill func(stage string) error, replaced ...string) (_ *release.Owned, err error) {
	owned, err := release.ReadOwned(ctx, c.Out)
	if err != nil {
		return nil, err
	}
	stage, err := os.MkdirTemp(c.Out, ".stage.*"+atomicfile.TempSuffix)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(stage)) }()
	if err := fill(stage); err != nil {
		return nil, err
	}
	names, err := owned.Publish(ctx, stage)
	if err != nil {
		return nil, err
	}
	former, err := owned.Former(ctx, names, replaced...)
	return owned, errors.Join(err, owned.Remove(former...))
}

// retire removes pretag's packages and bundles of other versions, which must not be
// published next to these, and names pretag's other files that a former build delivered.
func (c Config) retire(ctx context.Context, owned *release.Owned, packages []release.Package, delivered []string, ui *UI) error {
	former, err := owned.Former(ctx, delivered, append(release.DeliveryDirs(), bundle.Dir)...)
	if err != nil {
		return err
	}
	var versions []string
	for _, p := range packages {
		versions = append(versions, regexp.QuoteMeta(p.Version))
	}
	// The ends of the names of an rpm, a deb and a bundle, which all have the version.
	current := regexp.MustCompile(`[-_](` + strings.Join(versions, "|") + `)(\.[^.]+\.rpm|_[^_]+\.deb|-(rpm|deb)-[^-]+\.tar)$`)
	var old, left []string
	for _, name := range former {
		versioned := slices.Contains([]string{release.RPM, release.Deb, bundle.Dir}, path.Dir(name))
		switch {
		case versioned && !current.MatchString(name):
			old = append(old, name)
		case path.Dir(name) != bundle.Dir:
			left = append(left, name)
		}
	}
	if len(old) > 0 {
		if err := owned.Remove(old...); err != nil {
			return err
		}
		ui.Say("removed %d packages and bundles of another version, which a former build left: %s", len(old), strings.Join(old, ", "))
	}
	if len(left) > 0 {
		ui.Warn("left by a former build: %s (%d files in all); clean removes them", filepath.Join(c.Out, left[0]), len(left))
	}
	return nil
}

// Clean removes what pretag wrote below OUT, the demo's files too, the unfinished files
// of a run that was killed, and directories that are empty then. It removes nothing else.
func Clean(ctx context.Context, c Config, ui *UI) error {
	total := 0
	for _, out := range []string{filepath.Join(c.Out, demoDir), c.Out} {
		removed, err := clean(ctx, out)
		if err != nil {
			return err
		}
		total += removed
	}
	ui.Say("removed %d files that pretag wrote below %s", total, c.Out)
	return nil
}

// clean is Clean for one OUT. It returns the number of files removed.
func clean(ctx context.Context, out string) (removed int, err error) {
	var dirs []string
	for _, dir := range []string{out, filepath.Join(out, release.ArchivesDir)} {
		if _, err := os.Stat(dir); err == nil {
			dirs = append(dirs, dir)
		}
	}
	if dirs == nil {
		return 0, nil
	}
	unlock, err := dirlock.Lock(dirs, nil)
	if err != nil {
		return 0, err
	}
	defer unlock()
	owned, err := release.ReadOwned(ctx, out)
	if err := errors.Join(err, cleanUp(out)); err != nil {
		return 0, err
	}
	removed, err = owned.Clean(ctx)
	for _, dir := range []string{release.ArchivesDir, release.SBOMDir, release.RPM, release.Deb, release.VerifyDir, loaderDir, bundle.Dir, "."} {
		removeEmpty(filepath.Join(out, dir))
	}
	return removed, err
}

// removeEmpty removes a directory if it is empty, and neither a symbolic link nor the
// working directory.
func removeEmpty(dir string) {
	info, err := os.Lstat(dir)
	here, hereErr := os.Stat(".")
	if err == nil && hereErr == nil && info.IsDir() && !os.SameFile(info, here) {
		_ = os.Remove(dir) // fails if something is in it
	}
}

// cleanUp removes the unfinished files of a killed run from the two directories that
// hold any, and that the caller has locked: files are staged in OUT, and archives are
// written where they will be.
func cleanUp(out string) error {
	return errors.Join(atomicfile.Clean(out), atomicfile.Clean(filepath.Join(out, release.ArchivesDir)))
}
