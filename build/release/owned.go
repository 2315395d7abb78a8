package release

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"pretag/build/internal/atomicfile"
)

// OwnedName is the record, below OUT, of the files that pretag wrote there: lines as
// in SHA256SUMS. A file that is about to be replaced has two lines.
const OwnedName = ".pretag"

// An Owned knows which files below OUT are pretag's: those that a record of pretag's
// lists with their digest, and no others. The records are OwnedName, manifest.json,
// the SHA256SUMS that lists that manifest.json, and the record of each archive and of
// each fetched tarball in ArchivesDir. So a file that was changed is not pretag's, and
// OUT may hold other products. See docs/decisions/0009-shared-out.md.
type Owned struct {
	out  string
	sums map[string][]string // sha256 in hex, by slash-separated name
}

// ReadOwned reads the records below the directory out, which need not exist. A file
// named OwnedName that pretag did not write is an error. The caller holds a lock.
func ReadOwned(ctx context.Context, out string) (*Owned, error) {
	o := &Owned{out, map[string][]string{}}
	err := parseSums(filepath.Join(out, OwnedName), func(name, sum string) error { o.add(name, sum); return nil })
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w; pretag did not write this file: move it away", err)
	}
	return o, errors.Join(o.addManifest(ctx), o.addRecords(ctx))
}

func (o *Owned) add(name, sum string) {
	if filepath.IsLocal(name) && sum != "" && !slices.Contains(o.sums[name], sum) {
		o.sums[name] = append(o.sums[name], sum)
	}
}

// addManifest adds what manifest.json and SHA256SUMS list. Files of these names that
// cannot be read, or that pretag did not write, list nothing.
func (o *Owned) addManifest(ctx context.Context) error {
	m, err := ReadManifest(o.out)
	if err != nil {
		return nil //nolint:nilerr // a foreign manifest.json
	}
	for _, f := range m.Archives {
		o.add(path.Join(ArchivesDir, f.Name), f.SHA256)
	}
	for _, p := range m.Packages {
		o.add(path.Join(p.Format, p.File), p.SHA256)
	}
	manifest, err := SHA256File(ctx, filepath.Join(o.out, ManifestName))
	if err != nil {
		return err
	}
	sums, err := ReadSums(o.out)
	if err != nil || sums[ManifestName] != manifest {
		return nil //nolint:nilerr // a foreign SHA256SUMS
	}
	for name, sum := range sums {
		o.add(name, sum)
	}
	sum, err := SHA256File(ctx, filepath.Join(o.out, SumsName))
	o.add(SumsName, sum)
	return err
}

// addRecords adds the archives and tarballs of ArchivesDir that have a record, and
// the records.
func (o *Owned) addRecords(ctx context.Context) error {
	dir := filepath.Join(o.out, ArchivesDir)
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, entry := range entries {
		var sum string
		name, isInfo := strings.CutSuffix(entry.Name(), InfoSuffix)
		tarball, isOrigin := strings.CutSuffix(entry.Name(), OriginSuffix)
		switch {
		case isInfo:
			if f, err := ReadArchive(filepath.Join(dir, name)); err == nil && f.Name == name {
				sum = f.SHA256
			}
		case isOrigin:
			name = tarball
			if origin, err := ReadOrigin(filepath.Join(dir, name)); err == nil {
				sum = origin.SHA256
			}
		}
		if sum == "" {
			continue
		}
		o.add(path.Join(ArchivesDir, name), sum)
		record, err := SHA256File(ctx, filepath.Join(dir, entry.Name()))
		if err != nil {
			return err
		}
		o.add(path.Join(ArchivesDir, entry.Name()), record)
	}
	return nil
}

// has reports whether the file of this slash-separated name below OUT is pretag's.
func (o *Owned) has(ctx context.Context, name string) (bool, error) {
	if err := context.Cause(ctx); err != nil {
		return false, err
	}
	file := filepath.Join(o.out, name)
	info, err := os.Lstat(file)
	if errors.Is(err, fs.ErrNotExist) || err == nil && (!info.Mode().IsRegular() || o.sums[name] == nil) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	sum, err := SHA256File(ctx, file)
	if err != nil || !slices.Contains(o.sums[name], sum) {
		return false, err
	}
	return true, nil
}

// DeliveryDirs lists the directories below OUT that a delivery fills.
func DeliveryDirs() []string { return []string{ArchivesDir, SBOMDir, RPM, Deb} }

// Former returns the names of pretag's files below the directories dirs of OUT that are
// not in current, because an earlier run wrote them, sorted. Inputs are not among them.
func (o *Owned) Former(ctx context.Context, current []string, dirs ...string) ([]string, error) {
	var former []string
	for _, name := range slices.Sorted(maps.Keys(o.sums)) {
		below := slices.ContainsFunc(dirs, func(dir string) bool { return strings.HasPrefix(name, dir+"/") })
		_, err := os.Lstat(filepath.Join(o.out, name+OriginSuffix))
		isInput := err == nil || strings.HasSuffix(name, OriginSuffix)
		if below && !isInput && !slices.Contains(current, name) {
			former = append(former, name)
		}
	}
	return o.filter(ctx, former)
}

// filter returns those of the names whose files are pretag's.
func (o *Owned) filter(ctx context.Context, names []string) ([]string, error) {
	var owned []string
	for _, name := range names {
		has, err := o.has(ctx, name)
		if err != nil {
			return nil, err
		}
		if has {
			owned = append(owned, name)
		}
	}
	return owned, nil
}

// Free reports each of the names that is taken by something that is not pretag's.
func (o *Owned) Free(ctx context.Context, names ...string) error {
	var errs []error
	for _, name := range names {
		file := filepath.Join(o.out, name)
		if _, err := os.Lstat(file); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		has, err := o.has(ctx, name)
		if err == nil && !has {
			err = fmt.Errorf("%s already exists, and pretag did not write it or it was changed since; move it away, or set another OUT", file)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// Publish moves the files below the directory staged, which is on the file system of
// OUT, to the same names below OUT. If a name is taken by a file that is not pretag's,
// nothing is moved. The record is written before the first file gets its name, so that
// a run that is killed leaves no file without an owner. Publish returns the names.
//
// New sums without a signature replace the former sums and their signature.
func (o *Owned) Publish(ctx context.Context, staged string) ([]string, error) {
	sums, err := SHA256Tree(ctx, staged)
	if err != nil {
		return nil, err
	}
	names := slices.Sorted(maps.Keys(sums))
	var stale []string
	for _, name := range []string{SignatureName, KeyName} {
		if sums[SumsName] != "" && sums[name] == "" {
			stale = append(stale, name)
		}
	}
	if err := o.Free(ctx, append(stale, names...)...); err != nil {
		return nil, err
	}
	if err := o.Remove(stale...); err != nil {
		return nil, err
	}
	for name, sum := range sums {
		o.add(name, sum)
	}
	if err := o.write(sums); err != nil {
		return nil, err
	}
	for _, name := range names {
		to := filepath.Join(o.out, name)
		err := os.MkdirAll(filepath.Dir(to), 0o755)
		if err == nil {
			err = atomicfile.Rename(filepath.Join(staged, name), to)
		}
		if err != nil {
			return nil, err
		}
		o.sums[name] = []string{sums[name]}
	}
	return names, o.write(nil)
}

// write writes OwnedName, or removes it if it would be empty. It leaves out what has
// a record in ArchivesDir, and names that have no file and are not pending.
func (o *Owned) write(pending map[string]string) error {
	var b bytes.Buffer
	for _, name := range slices.Sorted(maps.Keys(o.sums)) {
		_, err := os.Lstat(filepath.Join(o.out, name))
		if path.Dir(name) == ArchivesDir || err != nil && pending[name] == "" {
			continue
		}
		for _, sum := range o.sums[name] {
			fmt.Fprintf(&b, "%s  %s\n", sum, name)
		}
	}
	file := filepath.Join(o.out, OwnedName)
	if b.Len() > 0 {
		return atomicfile.WriteBytes(file, b.Bytes())
	}
	if err := os.Remove(file); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Remove removes the files of these names, which must be pretag's if they exist, and
// the directories that are empty then.
func (o *Owned) Remove(names ...string) error {
	dirs := map[string]bool{}
	for _, name := range names {
		if err := os.Remove(filepath.Join(o.out, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		delete(o.sums, name)
		for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
			dirs[dir] = true
		}
	}
	for _, dir := range slices.Backward(slices.Sorted(maps.Keys(dirs))) { // the deepest first
		if info, err := os.Lstat(filepath.Join(o.out, dir)); err == nil && info.IsDir() {
			_ = os.Remove(filepath.Join(o.out, dir)) // fails if something else is in it
		}
	}
	return o.write(nil)
}

// Clean removes all of pretag's files below OUT and the directories that are empty
// then, and returns how many files it removed.
func (o *Owned) Clean(ctx context.Context) (int, error) {
	names, err := o.filter(ctx, slices.Sorted(maps.Keys(o.sums)))
	if err != nil {
		return 0, err
	}
	if err := o.Remove(names...); err != nil {
		return 0, err
	}
	clear(o.sums) // what is left was changed by someone else
	return len(names), o.write(nil)
}
