package build

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"pretag/build/internal/atomicfile"
	"pretag/build/internal/dirlock"
	"pretag/build/linuxpkg/bundle"
	"pretag/build/linuxpkg/pkgread"
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

// owned returns which files below OUT are pretag's. It is an error if another file has
// the name of one that describes the delivery.
func (c Config) owned(ctx context.Context) (*release.Owned, error) {
	owned, err := release.ReadOwned(ctx, c.Out)
	if err != nil {
		return nil, err
	}
	return owned, owned.Free(ctx, release.ManifestName, release.ProvenanceName, release.SumsName, release.SignatureName, release.KeyName)
}

// publish moves what fill writes into a directory to the same names below OUT, and
// returns the names.
func (c Config) publish(ctx context.Context, owned *release.Owned, fill func(stage string) error) (_ []string, err error) {
	stage, err := os.MkdirTemp(c.Out, ".stage.*"+atomicfile.TempSuffix)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(stage)) }()
	if err := fill(stage); err != nil {
		return nil, err
	}
	return owned.Publish(ctx, stage)
}

// unsign removes the signature and the key of a former delivery, which would not fit
// one that is not signed.
func (c Config) unsign(owned *release.Owned, delivered []string) error {
	for _, name := range []string{release.SignatureName, release.KeyName} {
		if _, err := os.Lstat(filepath.Join(c.Out, name)); err == nil && !slices.Contains(delivered, name) {
			if err := owned.Remove(name); err != nil {
				return err
			}
		}
	}
	return nil
}

// retire removes pretag's packages and bundles of other versions, which must not be
// published next to these, and names pretag's other files that a former build delivered.
func (c Config) retire(ctx context.Context, owned *release.Owned, packages []release.Package, delivered []string, ui *UI) error {
	former, err := owned.Former(ctx, delivered, append(release.DeliveryDirs(), bundle.Dir)...)
	if err != nil {
		return err
	}
	versions := map[string]bool{}
	for _, p := range packages {
		versions[p.Version] = true
	}
	var old, left []string
	for _, name := range former {
		switch path.Dir(name) {
		case bundle.Dir:
			if !versions[bundle.Version(path.Base(name))] {
				old = append(old, name)
			}
			continue
		case release.RPM, release.Deb:
		default:
			left = append(left, name)
			continue
		}
		p, err := pkgread.Open(ctx, filepath.Join(c.Out, name))
		if err != nil {
			return err
		}
		if versions[p.Version+"-"+p.Release] {
			left = append(left, name)
		} else {
			old = append(old, name)
		}
		if err := p.Close(); err != nil {
			return err
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
	if _, err := os.Stat(c.Out); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	demo := filepath.Join(c.Out, demoDir)
	dirs := []string{c.Out}
	for _, dir := range []string{filepath.Join(c.Out, release.ArchivesDir), demo, filepath.Join(demo, release.ArchivesDir)} {
		if _, err := os.Stat(dir); err == nil {
			dirs = append(dirs, dir)
		}
	}
	unlock, err := dirlock.Lock(dirs, nil)
	if err != nil {
		return err
	}
	defer unlock()
	count := 0
	for _, out := range []string{demo, c.Out} {
		owned, err := release.ReadOwned(ctx, out)
		if err := errors.Join(err, cleanUp(out)); err != nil {
			return err
		}
		n, err := owned.Clean(ctx)
		if err != nil {
			return err
		}
		count += n
		for _, dir := range append(subdirs(), ".") {
			removeEmpty(filepath.Join(out, dir))
		}
	}
	ui.Say("removed %d files that pretag wrote below %s", count, c.Out)
	return nil
}

// subdirs lists the directories below OUT that pretag writes into.
func subdirs() []string {
	return []string{release.ArchivesDir, release.SBOMDir, release.RPM, release.Deb, release.VerifyDir, loaderDir, bundle.Dir}
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
