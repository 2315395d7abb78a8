package build

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"pretag/build/archive"
	"pretag/build/catalogue"
	"pretag/build/internal/atomicfile"
	"pretag/build/internal/decompress"
	"pretag/build/internal/filestamp"
	"pretag/build/release"
	"pretag/build/tarball"
)

// Archives makes the archive of each selected helper from its tarball, JOBS at
// once, the largest first. An archive that stands there already, made by the
// same tool of the same input with the same settings, is kept. One helper's
// failure does not stop the others; all are reported.
func Archives(ctx context.Context, c Config, ui *UI) ([]release.Archive, error) {
	unlock, err := c.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	return c.archives(ctx, ui)
}

func (c Config) archives(ctx context.Context, ui *UI) ([]release.Archive, error) {
	inputs, unknown, err := c.inputs()
	if err != nil {
		return nil, err
	}
	for _, name := range unknown {
		ui.Warn("%s: no helper of the catalogue has a tarball of this name", filepath.Join(c.Inputs, name))
	}
	dir := filepath.Join(c.Out, release.ArchivesDir)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	if err := c.cleanUp(); err != nil {
		return nil, err
	}
	if err := c.withoutInput(inputs); err != nil {
		return nil, err
	}

	results := c.work(ctx, inputs, ui)
	var files []release.Archive
	var errs []error
	for i, result := range results {
		if result.Err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", inputs[i].helper, result.Err))
		}
		if warning := result.File.Warning; warning != "" {
			ui.Warn("%s: %s", inputs[i].helper, warning)
		}
		files = append(files, result.File)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	ui.Archives(results)
	return files, nil
}

// work makes the archives, JOBS at once, and returns a result for each input.
func (c Config) work(ctx context.Context, inputs []input, ui *UI) []Result {
	// The heap is a few large buffers that live as long as their worker: collect
	// what little else there is early, so that peak memory stays near their sum.
	defer debug.SetGCPercent(debug.SetGCPercent(2))

	queue := make(chan []int, len(inputs))
	for _, alike := range byTarball(inputs) {
		queue <- alike
	}
	close(queue)
	results := make([]Result, len(inputs))
	tasks := ui.Tasks(len(inputs))
	defer tasks.Close()
	var workers sync.WaitGroup
	for range min(c.Jobs, len(inputs)) {
		workers.Go(func() {
			w := worker{config: c, writer: archive.Writer{Compression: c.Compression}, decoders: &decompress.Decoders{}}
			for alike := range queue {
				for _, i := range alike {
					started := time.Now() // for the table; reaches no output
					task := tasks.Begin(inputs[i].helper.String(), inputs[i].size)
					file, kept, err := w.archive(ctx, inputs[i], task.Read)
					results[i] = Result{file, kept, time.Since(started), err}
					task.End(results[i])
				}
			}
		})
	}
	workers.Wait()
	debug.FreeOSMemory() // packages take memory of their own
	return results
}

// A Result is how one helper's archive came out.
type Result struct {
	File release.Archive
	Kept bool // it stood there already
	Took time.Duration
	Err  error
}

// withoutInput reports the helpers that have neither a tarball nor an archive.
func (c Config) withoutInput(inputs []input) error {
	var missing []catalogue.Helper
	for _, in := range inputs {
		if in.path != "" {
			continue
		}
		if _, err := os.Stat(c.archivePath(in.helper) + release.InfoSuffix); err != nil {
			missing = append(missing, in.helper)
		}
	}
	return c.missing(missing)
}

func (c Config) archivePath(h catalogue.Helper) string {
	return filepath.Join(c.Out, release.ArchivesDir, h.File())
}

// byTarball orders the inputs by size, the largest first. Those of one tarball,
// a helper's and its stand-in's, stay together.
func byTarball(inputs []input) [][]int {
	var groups [][]int
	group := map[string]int{} // of a tarball
	for i, in := range inputs {
		at, ok := group[in.path]
		if !ok || in.path == "" {
			at = len(groups)
			group[in.path] = at
			groups = append(groups, nil)
		}
		groups[at] = append(groups[at], i)
	}
	slices.SortStableFunc(groups, func(a, b []int) int { return cmp.Compare(inputs[b[0]].size, inputs[a[0]].size) })
	return groups
}

// A worker makes archives one after the other, with memory that it keeps.
type worker struct {
	config   Config
	writer   archive.Writer
	decoders *decompress.Decoders
	last     made
}

// made is an archive that a worker has made, and of what.
type made struct {
	path   string // of the tarball
	config []byte // that came with the image; nil for a root filesystem
	file   release.Archive
}

func (w *worker) archive(ctx context.Context, in input, progress func(int)) (f release.Archive, kept bool, err error) {
	if err := context.Cause(ctx); err != nil {
		return f, false, err
	}
	if f, kept, err = w.config.recorded(in); kept || err != nil {
		return f, kept, err
	}
	path := w.config.archivePath(in.helper)
	if w.last.path == in.path {
		f, err = w.retag(in, path)
	} else {
		f, err = w.read(ctx, in, path, progress)
	}
	if err != nil {
		return f, false, err
	}
	f.Helper, f.Name, f.Tool = in.helper.String(), in.helper.File(), w.config.tool()
	f.Version, f.Revision = w.config.Version.String(), w.config.Version.Revision()
	f.Config = w.config.configOf(f, in.helper)
	if err := atomicfile.WriteBytes(path+release.InfoSuffix, f.Info()); err != nil {
		return f, false, err
	}
	in.seen(path)
	return f, false, nil
}

// retag makes the archive at path from the last one, which is of the same tarball.
func (w *worker) retag(in input, path string) (release.Archive, error) {
	last := w.last
	w.last = made{}
	f, err := w.writer.Retag(path, last.file, w.spec(in.helper, last.config))
	if err != nil {
		return f, err
	}
	f.Input = last.file.Input
	w.last = made{last.path, last.config, f}
	return f, nil
}

// read makes the archive at path from the tarball.
func (w *worker) read(ctx context.Context, in input, path string, progress func(int)) (f release.Archive, err error) {
	w.last = made{}
	if err := w.config.pulledFor(in); err != nil {
		return f, err
	}
	img, err := tarball.Open(in.path, in.helper.Platform, filepath.Dir(path), w.decoders)
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, img.Close()) }()
	img.Progress = progress
	spec := w.spec(in.helper, img.Config)
	spec.Rootfs = img.Layout == tarball.Rootfs
	origin := release.Input{Name: filepath.Base(in.path), Layout: string(img.Layout), Digest: img.Digest}
	config := spec.Config
	spec.Config = func(diffIDs []v1.Hash) (_ []byte, err error) {
		// All has been read: if it changed meanwhile, what stands at path stays.
		if origin.Size, origin.SHA256, err = img.Sum(); err != nil {
			return nil, err
		}
		if origin.Source, err = inputSource(in.path, origin); err != nil {
			return nil, err
		}
		return config(diffIDs)
	}
	for _, layer := range img.Layers {
		spec.Layers = append(spec.Layers, archive.Opener(layer))
	}
	if f, err = w.writer.Write(ctx, path, spec); err != nil {
		return f, fmt.Errorf("%s: %w", in.path, err)
	}
	f.Input = origin
	w.last = made{in.path, img.Config, f}
	return f, nil
}

// spec says what the helper's archive holds beside the layers. config is the
// one that the image came with, or nil.
func (w *worker) spec(h catalogue.Helper, config []byte) archive.Spec {
	return archive.Spec{
		RepoTag: w.config.repoTag(h),
		Config: func(diffIDs []v1.Hash) ([]byte, error) {
			if config != nil {
				return tarball.Keep(config, h, diffIDs)
			}
			return tarball.FromRootfs(h, diffIDs, w.config.Time)
		},
		GoArch: h.GoArch(),
		Time:   w.config.Time,
	}
}

func (c Config) repoTag(h catalogue.Helper) string { return c.Repository + ":" + h.Tag(c.Version) }

// recorded gives back the archive that stands in OUT, if it is what a build of
// the input would make. Without a tarball it must be that, and is doubted like
// any input: other machines may have made it.
func (c Config) recorded(in input) (release.Archive, bool, error) {
	f, err := readRecord(c.archivePath(in.helper))
	if err == nil {
		err = c.fits(f, in.helper)
	}
	if in.path == "" {
		if err == nil {
			err = archive.Check(f)
		}
		if err != nil {
			err = fmt.Errorf("%w; there is no tarball to make it anew", err)
		}
		return f, err == nil, err
	}
	same := err == nil && f.Tool == c.tool() && f.Input.Name == filepath.Base(in.path) && f.Input.Size == in.size && hasSum(f.Path, f.SHA256) == nil
	if !same || in.stamp.KeptOn(f.Path+release.InfoSuffix) {
		return f, same, nil
	}
	if hasSum(in.path, f.Input.SHA256) != nil {
		return f, false, nil
	}
	in.seen(f.Path)
	return f, true, nil
}

// seen lets the next build know the tarball again, which was read for the
// archive at path, unless it changed while it was.
func (in input) seen(path string) {
	if info, err := os.Stat(in.path); err == nil && filestamp.Of(info) == in.stamp {
		in.stamp.KeepOn(path + release.InfoSuffix)
	}
}

// fits reports how a record differs from that of the archive which is asked for.
func (c Config) fits(f release.Archive, h catalogue.Helper) error {
	imageID, err := c.imageID(f, h)
	errs := []error{err}
	for _, setting := range [][3]string{
		{"helper", f.Helper, h.String()},
		{"file", f.Name, h.File()},
		{"runner version", f.Version, c.Version.String()},
		{"runner revision", f.Revision, c.Version.Revision()},
		{"RepoTag", f.RepoTag, c.repoTag(h)},
		{"image ID", f.ImageID, imageID},
		{"config", f.Config, c.configOf(f, h)},
		{"compression", f.Compression, c.Compression.String()},
		{"time", time.Unix(f.Created, 0).UTC().String(), c.Time.String()},
	} {
		if setting[1] != setting[2] {
			errs = append(errs, fmt.Errorf("%s: %s is %s, want %s", f.Path, setting[0], setting[1], setting[2]))
		}
	}
	return errors.Join(errs...)
}

// imageID is the one that the recorded archive has with the catalogue's config.
// An image that came with a config has that one's.
func (c Config) imageID(f release.Archive, h catalogue.Helper) (string, error) {
	if f.Input.Layout != string(tarball.Rootfs) {
		return f.ImageID, nil
	}
	var diffIDs []v1.Hash
	for _, diffID := range f.DiffIDs {
		hash, err := v1.NewHash(diffID)
		if err != nil {
			return f.ImageID, fmt.Errorf("%s: diff ID: %w", f.Path, err)
		}
		diffIDs = append(diffIDs, hash)
	}
	config, err := tarball.FromRootfs(h, diffIDs, c.Time)
	if err != nil {
		return f.ImageID, err
	}
	return tarball.ID(config), nil
}

// configOf returns what the record of f says of its config.
func (c Config) configOf(f release.Archive, h catalogue.Helper) string {
	if f.Input.Layout == string(tarball.Rootfs) && h.ConfigAssumed(c.Version) {
		return release.ConfigAssumed
	}
	return ""
}

// readRecord reads the record of the archive at path.
func readRecord(path string) (release.Archive, error) {
	data, err := os.ReadFile(path + release.InfoSuffix)
	if err != nil {
		return release.Archive{}, err
	}
	f, err := release.ParseInfo(bytes.NewReader(data))
	if err != nil {
		return release.Archive{}, fmt.Errorf("%s: %w", path+release.InfoSuffix, err)
	}
	f.Path = path
	return f, nil
}

// hasSum reports a file whose sha256 is another one.
func hasSum(path, want string) error {
	got, err := release.SHA256File(path)
	if err == nil && got != want {
		err = fmt.Errorf("%s: sha256 is %s, its record says %s", path, got, want)
	}
	return err
}
