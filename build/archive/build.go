package archive

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"pretag/build/catalogue"
	"pretag/build/internal/atomicfile"
	"pretag/build/internal/decompress"
	"pretag/build/internal/filestamp"
	"pretag/build/release"
	"pretag/build/tarball"
)

// FormatVersion counts the changes to what archives hold. Raise it with each
// change that gives other bytes for the same input.
const FormatVersion = 1

// Options are the settings of Build.
type Options struct {
	Helpers     []catalogue.Helper   // whose archives are built
	Catalogue   *catalogue.Catalogue // for stand-ins, and for the names of other helpers' tarballs
	Version     catalogue.Version
	Inputs      string // directory of the helper tarballs
	Out         string // OUT
	Repository  string // repository part of each RepoTag
	Compression Compression
	Time        time.Time // the one timestamp
	Jobs        int       // helpers worked on at once
	Strict      bool      // programs that are missing from an image are errors, not warnings

	// Progress and Done report how far the work has come. They are called by
	// several goroutines. Either may be nil.
	Progress func(helper string, read, total int64) // bytes of the input
	Done     func(Outcome)
}

// A Result is what Build did.
type Result struct {
	Outcomes []Outcome // one for each helper, in the order of Options.Helpers
	Notes    []string  // which tarball was taken of two
	Warnings []string
}

// An Outcome is what Build did for one helper.
type Outcome struct {
	Helper  catalogue.Helper
	Archive release.Archive
	Kept    bool // the archive already existed
	Took    time.Duration
	Err     error
}

// Archives returns the archive of each helper.
func (r Result) Archives() []release.Archive {
	archives := make([]release.Archive, len(r.Outcomes))
	for i, outcome := range r.Outcomes {
		archives[i] = outcome.Archive
	}
	return archives
}

// Build makes the archive of each helper from its tarball, several at once, the
// largest first. It keeps an archive that already exists if the same tool made it
// from the same input with the same settings. One helper's failure does not stop
// the others; all failures are reported together. The result's warnings are valid
// even if there is an error.
func Build(ctx context.Context, o Options) (Result, error) {
	found, err := o.inputs(ctx)
	result := Result{Notes: found.notes}
	for _, name := range found.unknown {
		result.Warnings = append(result.Warnings, filepath.Join(o.Inputs, name)+": no helper of the catalogue has a tarball of this name")
	}
	if err == nil {
		err = errors.Join(o.missing(found.inputs), o.replaceable(found.inputs))
	}
	if err == nil {
		err = os.MkdirAll(filepath.Join(o.Out, release.ArchivesDir), 0o755)
	}
	if err != nil {
		return result, err
	}
	result.Outcomes = o.work(ctx, found.inputs)
	var errs []error
	for _, outcome := range result.Outcomes {
		if outcome.Err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", outcome.Helper, outcome.Err))
		}
		if warning := outcome.Archive.Warning; warning != "" {
			result.Warnings = append(result.Warnings, fmt.Sprintf("%s: %s", outcome.Helper, warning))
		}
	}
	return result, errors.Join(errs...)
}

// Tool names what decides an archive's bytes besides input and settings: this
// package's format, Go, and what compresses.
func Tool(c Compression) string {
	tool := fmt.Sprintf("pretag/%d %s", FormatVersion, runtime.Version())
	if program := c.Program(); program != "" {
		tool += " " + program
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, module := range info.Deps {
			if module.Path == "github.com/klauspost/compress" {
				tool += " compress/" + module.Version
			}
		}
	}
	return tool
}

// work makes the archives, Jobs at once, and returns an outcome for each input.
func (o Options) work(ctx context.Context, inputs []input) []Outcome {
	if o.Compression.Method == "zstd" {
		// The heap is a few large buffers that live as long as their worker. Collecting
		// the small rest early keeps peak memory near the sum of those buffers.
		defer debug.SetGCPercent(debug.SetGCPercent(2))
	}

	queue := make(chan []int, len(inputs))
	for _, group := range byTarball(inputs) {
		queue <- group
	}
	close(queue)
	outcomes := make([]Outcome, len(inputs))
	var workers sync.WaitGroup
	for range min(o.Jobs, len(inputs)) {
		workers.Go(func() {
			w := worker{Options: o, writer: Writer{Compression: o.Compression}, decoders: &decompress.Decoders{}}
			for group := range queue {
				for _, i := range group {
					started := time.Now() // for the table; reaches no output
					archive, kept, err := w.archive(ctx, inputs[i])
					outcomes[i] = Outcome{inputs[i].helper, archive, kept, time.Since(started), err}
					if o.Done != nil {
						o.Done(outcomes[i])
					}
				}
			}
		})
	}
	workers.Wait()
	debug.FreeOSMemory() // the stages that follow need memory too
	return outcomes
}

// byTarball orders the inputs by size, the largest first. Inputs that share a
// tarball (a helper's and its stand-in's) stay together.
func byTarball(inputs []input) [][]int {
	var groups [][]int
	group := map[string]int{} // index in groups, by tarball
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

// A worker makes one archive after the other and keeps its buffers between them.
type worker struct {
	Options
	writer   Writer
	decoders *decompress.Decoders
	last     made
}

// made is what a worker has just made an archive from.
type made struct {
	path   string // of the tarball
	config []byte // of its image; nil for a root filesystem
	record release.Input
}

func (w *worker) archive(ctx context.Context, in input) (f release.Archive, kept bool, err error) {
	if err := context.Cause(ctx); err != nil {
		return f, false, err
	}
	if f, kept, err = w.existing(ctx, in); kept || err != nil {
		return f, kept, err
	}
	path := w.path(in.helper)
	last := w.last
	w.last = made{} // until the archive is complete
	if last.path == in.path {
		f, err = w.writer.Retag(ctx, path, w.spec(in.helper, last.config))
	} else {
		f, last, err = w.read(ctx, in, path)
	}
	if err != nil {
		return f, false, err
	}
	w.last, f.Input = last, last.record
	f.Helper, f.Name, f.Tool = in.helper.String(), in.helper.File(), Tool(w.Compression)
	f.Version, f.Revision = w.Version.String(), w.Version.Revision()
	f.Config = w.configOf(f, in.helper)
	if err := atomicfile.WriteBytes(path+release.InfoSuffix, f.Info()); err != nil {
		return f, false, err
	}
	in.remember(path)
	return f, false, nil
}

// read makes the archive at path from the tarball, and returns what it was made from.
func (w *worker) read(ctx context.Context, in input, path string) (f release.Archive, from made, err error) {
	if err := w.checkOrigin(in); err != nil {
		return f, from, err
	}
	img, err := tarball.Open(ctx, in.path, in.helper.Platform, filepath.Dir(path), w.decoders)
	if err != nil {
		return f, from, err
	}
	defer func() { err = errors.Join(err, img.Close()) }()
	if w.Progress != nil {
		var read int64
		img.Progress = func(n int) {
			read += int64(n)
			w.Progress(in.helper.String(), read, in.size)
		}
	}
	spec := w.spec(in.helper, img.Config)
	spec.Layers = img.Layers
	spec.Rootfs = img.Layout == tarball.Rootfs
	record := release.Input{Name: filepath.Base(in.path), Layout: string(img.Layout), Digest: img.Digest}
	config := spec.Config
	spec.Config = func(diffIDs []v1.Hash) (_ []byte, err error) {
		// The whole tarball has been read. If it changed in the meantime, this fails
		// and the old archive stays.
		if record.Size, record.SHA256, err = img.Sum(); err != nil {
			return nil, err
		}
		if record.Source, err = release.SourceOf(in.path, record); err != nil {
			return nil, err
		}
		return config(diffIDs)
	}
	if f, err = w.writer.Write(ctx, path, spec); err != nil {
		return f, from, fmt.Errorf("%s: %w", in.path, err)
	}
	return f, made{in.path, img.Config, record}, nil
}

// checkOrigin rejects a tarball that was pulled for another version of Runner:
// its archive would get the tag of another image.
func (o Options) checkOrigin(in input) error {
	origin, err := release.ReadOrigin(in.path)
	if err != nil || origin.Size != in.size || origin.Tag() == "" {
		return nil // not pulled, or the record describes another tarball
	}
	allowed := in.helper.RegistryTags(o.Version)
	if standIn, ok := o.Catalogue.Lookup(in.helper.StandIn(o.Version)); ok {
		allowed = append(allowed, standIn.RegistryTags(o.Version)...)
	}
	for _, tag := range allowed {
		if origin.Tag() == tag.Tag {
			return nil
		}
	}
	return fmt.Errorf("%s: was pulled as %s, want %s: remove it and pull again", in.path, origin.Tag(), in.helper.Tag(o.Version))
}

// spec returns what the helper's archive holds, apart from the layers. config is
// that of the input's image, or nil.
func (o Options) spec(h catalogue.Helper, config []byte) Spec {
	return Spec{
		RepoTag: o.repoTag(h),
		Config: func(diffIDs []v1.Hash) ([]byte, error) {
			if config != nil {
				return tarball.Keep(config, h, diffIDs)
			}
			return tarball.FromRootfs(h, diffIDs, o.Time)
		},
		GoArch: h.GoArch(),
		Strict: o.Strict,
		Runner: Runner{Version: o.Version.String(), Revision: o.Version.Revision()},
		Time:   o.Time,
	}
}

func (o Options) repoTag(h catalogue.Helper) string { return o.Repository + ":" + h.Tag(o.Version) }

// path returns where the helper's archive is written.
func (o Options) path(h catalogue.Helper) string {
	return filepath.Join(o.Out, release.ArchivesDir, h.File())
}

// existing returns the archive that is already in Out, and whether it is what a
// build of the input would make. If there is no tarball, it must be, and it is
// validated like any input because another machine may have made it.
func (o Options) existing(ctx context.Context, in input) (release.Archive, bool, error) {
	f, err := release.ReadArchive(o.path(in.helper))
	if err == nil {
		err = o.fits(f, in.helper)
	}
	if in.path == "" {
		if err == nil {
			err = Check(ctx, f)
		}
		if err != nil {
			err = fmt.Errorf("%w; there is no tarball from which to make it again", err)
		}
		return f, err == nil, err
	}
	same := err == nil && f.Tool == Tool(o.Compression) && f.Input.Name == filepath.Base(in.path) && f.Input.Size == in.size && hasSum(ctx, f.Path, f.SHA256)
	if !same || in.stamp.KeptOn(f.Path+release.InfoSuffix) {
		return f, same, nil
	}
	if !hasSum(ctx, in.path, f.Input.SHA256) {
		return f, false, nil
	}
	in.remember(f.Path)
	return f, true, nil
}

// remember lets the next build recognize the tarball, which was read for the
// archive at path, unless it changed during that.
func (in input) remember(path string) {
	if info, err := os.Stat(in.path); err == nil && filestamp.Of(info) == in.stamp {
		in.stamp.KeepOn(path + release.InfoSuffix)
	}
}

// fits reports how the archive differs from the one that is to be built.
func (o Options) fits(f release.Archive, h catalogue.Helper) error {
	imageID, err := o.imageID(f, h)
	errs := []error{err}
	for _, setting := range [][3]string{
		{"helper", f.Helper, h.String()},
		{"file", f.Name, h.File()},
		{"runner version", f.Version, o.Version.String()},
		{"runner revision", f.Revision, o.Version.Revision()},
		{"RepoTag", f.RepoTag, o.repoTag(h)},
		{"image ID", f.ImageID, imageID},
		{"config", f.Config, o.configOf(f, h)},
		{"compression", f.Compression, o.Compression.String()},
		{"time", time.Unix(f.Created, 0).UTC().String(), o.Time.String()},
	} {
		if setting[1] != setting[2] {
			errs = append(errs, fmt.Errorf("%s: %s is %s, want %s", f.Path, setting[0], setting[1], setting[2]))
		}
	}
	return errors.Join(errs...)
}

// imageID returns the ID that the archive's image has with the catalogue's
// config. An image that came with a config keeps its ID.
func (o Options) imageID(f release.Archive, h catalogue.Helper) (string, error) {
	if f.Input.Layout != string(tarball.Rootfs) {
		return f.ImageID, nil
	}
	diffIDs, err := hashes(f.DiffIDs)
	if err != nil {
		return f.ImageID, fmt.Errorf("%s: %w", f.Path, err)
	}
	config, err := tarball.FromRootfs(h, diffIDs, o.Time)
	if err != nil {
		return f.ImageID, err
	}
	return tarball.ID(config), nil
}

// configOf returns what the record of f says of its config.
func (o Options) configOf(f release.Archive, h catalogue.Helper) string {
	if f.Input.Layout == string(tarball.Rootfs) && h.ConfigAssumed(o.Version) {
		return release.ConfigAssumed
	}
	return ""
}

// hasSum reports whether the file's sha256 is want.
func hasSum(ctx context.Context, path, want string) bool {
	got, err := release.SHA256File(ctx, path)
	return err == nil && got == want
}

// missing reports the helpers that have neither a tarball nor an archive with
// its record.
func (o Options) missing(inputs []input) error {
	var b strings.Builder
	count := 0
	for _, in := range inputs {
		if in.path != "" {
			continue
		}
		if _, err := os.Stat(o.path(in.helper) + release.InfoSuffix); err != nil {
			count++
			fmt.Fprintf(&b, "\n  %s (%s.tar or prebuilt-%s.tar.xz)", in.helper, in.helper, in.helper)
			if _, err := os.Stat(o.path(in.helper)); err == nil {
				fmt.Fprintf(&b, ": its archive %s exists, but not the record %s; copy the record next to it from where the archive was made, or provide the tarball",
					o.path(in.helper), in.helper.File()+release.InfoSuffix)
			}
		}
	}
	if count == 0 {
		return nil
	}
	where := o.Inputs
	if _, err := os.Stat(o.Inputs); err != nil {
		where += " does not exist"
	}
	return fmt.Errorf("%s: no tarball for %d of %d helpers:%s\nput them there, choose others with HELPERS, or fetch them with the pull or unpack target",
		where, count, len(o.Helpers), &b)
}
