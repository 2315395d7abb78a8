package fetch

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sync/errgroup"

	"pretag/build/catalogue"
	"pretag/build/internal/atomicfile"
	"pretag/build/internal/contextio"
	"pretag/build/internal/oci"
	"pretag/build/internal/ociarchive"
	"pretag/build/internal/platform"
	"pretag/build/release"
)

// PullOptions say what to pull and from where. Proxies and trusted certificates
// are those of Go's net/http: HTTPS_PROXY and the like, SSL_CERT_FILE.
type PullOptions struct {
	Dir         string // where the oci-archives go
	Helpers     []catalogue.Helper
	Version     catalogue.Version
	Repository  string   // registry and path
	PlainHTTP   []string // registries, as host or host:port, that are asked over http
	Credentials Credentials
	Jobs        int // images pulled at once; below 1 is 1

	// Wait is the pause before the first retry, doubled before each further
	// one; zero is a second.
	Wait time.Duration

	// Progress, if set, receives how many bytes of a helper's layers are on the
	// disk, out of how many. It is called from several goroutines.
	Progress func(helper string, done, total int64)
}

// pullDir is the directory, next to the archives, of the layers of images that
// are not complete. A pull that fails leaves it, so that the next one does not
// fetch these layers again.
const pullDir = ".pull"

// maxImage is the largest image, in bytes: the size field of a ustar header,
// which an oci-archive has for each layer, ends at 8 GiB (POSIX.1-2017, pax).
const maxImage = 8<<30 - 1

// Pull writes an oci-archive of each helper and returns those that are in the
// directory, in the order of the helpers. Manifest, config and layers are the
// registry's own bytes, so every digest stays the same. An archive gets its name
// when all of its digests have been checked.
//
// All failures are reported, one line each; they do not stop the other helpers.
// An archive that matches the registry's digest is kept. A file that Pull or
// Unpack did not write is never replaced. The caller locks the directory.
func Pull(ctx context.Context, opts PullOptions) ([]Tarball, error) {
	repository, err := name.NewRepository(opts.Repository, name.StrictValidation)
	if err != nil {
		return nil, fmt.Errorf("pull %q: %w", opts.Repository, err)
	}
	opts.Jobs, opts.Wait = max(opts.Jobs, 1), cmp.Or(opts.Wait, time.Second)
	p := &puller{opts: opts, repository: repository}
	if err := p.connect(ctx); err != nil {
		return nil, fmt.Errorf("pull %s: %w", opts.Repository, err)
	}

	tarballs, errs := make([]Tarball, len(opts.Helpers)), make([]error, len(opts.Helpers))
	var group errgroup.Group
	group.SetLimit(opts.Jobs)
	for i, helper := range opts.Helpers {
		group.Go(func() error {
			if ctx.Err() != nil {
				return nil
			}
			tarball, err := p.pull(ctx, helper)
			if err == nil {
				tarballs[i] = tarball
			} else if ctx.Err() == nil {
				errs[i] = fmt.Errorf("%s: pull %w", helper, err)
			}
			return nil
		})
	}
	group.Wait()
	os.Remove(filepath.Join(opts.Dir, pullDir)) // fails if something is in it

	tarballs = slices.DeleteFunc(tarballs, func(t Tarball) bool { return t.Path == "" })
	if ctx.Err() != nil && len(tarballs) < len(opts.Helpers) {
		errs = append(errs, fmt.Errorf("pull %s: %w", opts.Repository, context.Cause(ctx)))
	}
	return tarballs, errors.Join(errs...)
}

// A puller pulls from one repository.
type puller struct {
	opts       PullOptions
	repository name.Repository
	remote     *remote.Puller // logged in
}

// connect logs in to the registry.
func (p *puller) connect(ctx context.Context) error {
	auth, err := p.opts.Credentials.find(ctx, p.repository)
	if err != nil {
		return fmt.Errorf("credentials: %w", err)
	}
	registry := p.repository.Registry
	guarded, err := newGuard(ctx, registry.RegistryStr(), p.opts.PlainHTTP)
	if err != nil {
		return p.explain(err)
	}
	return p.retry(ctx, func() error {
		loggedIn, err := transport.NewWithContext(ctx, registry, auth,
			transport.NewUserAgent(guarded, "pretag"), []string{p.repository.Scope(transport.PullScope)})
		if err != nil {
			return err
		}
		p.remote, err = remote.NewPuller(remote.WithTransport(loggedIn), remote.WithJobs(p.opts.Jobs))
		return err
	})
}

// pull pulls the image of one helper.
func (p *puller) pull(ctx context.Context, h catalogue.Helper) (Tarball, error) {
	reference, root, missing, err := p.resolve(ctx, h)
	if err != nil {
		return Tarball{}, err
	}
	t := Tarball{Helper: h, Path: filepath.Join(p.opts.Dir, h.String()+".tar"), Missing: missing}
	if err := p.take(ctx, &t, root, reference+"@"+root.Digest.String()); err != nil {
		return t, fmt.Errorf("%s: %w", reference, err)
	}
	return t, nil
}

// take brings the image of root that is for the helper of t into the directory, unless
// it is there already.
func (p *puller) take(ctx context.Context, t *Tarball, root *remote.Descriptor, source string) error {
	image, err := oci.Choose(ctx, p, v1.Descriptor{MediaType: root.MediaType, Digest: root.Digest, Size: root.Size}, root.Manifest, t.Helper.Platform)
	if err != nil {
		return err
	}
	digest := image.Descriptor.Digest
	if got := image.Platform(); !platform.Same(got, t.Helper.Platform) {
		return fmt.Errorf("%s: image is for %s, want %s", digest, got, t.Helper.Platform)
	}
	if t.Origin, err = release.OriginOf(ctx, t.Path); err != nil {
		return err
	}
	if t.Origin.Digest != digest.String() {
		if t.Origin, err = p.fetch(ctx, t.Helper, image, t.Path, source); err != nil {
			return fmt.Errorf("%s: %w", digest, err)
		}
		return nil
	}
	t.Kept = true
	if t.Origin.Source == source {
		return nil
	}
	t.Origin.Source = source
	return t.Origin.Write(t.Path)
}

// resolve returns what the helper's tag names. If the registry does not have the
// tag that Runner asks for, and the release is known not to have pushed it,
// resolve takes the tag that names the same image; missing says why.
func (p *puller) resolve(ctx context.Context, h catalogue.Helper) (reference string, root *remote.Descriptor, missing string, err error) {
	tags := h.RegistryTags(p.opts.Version)
	var errs string
	for i, tag := range tags {
		reference = p.opts.Repository + ":" + tag.Tag
		root, err = p.get(ctx, p.repository.Tag(tag.Tag))
		if err == nil {
			return reference, root, missing, nil
		}
		errs += fmt.Sprintf("%s: %v", reference, err)
		if tag.Missing != "" {
			errs += " (" + tag.Missing + ")"
		}
		if i+1 == len(tags) || !errors.Is(err, os.ErrNotExist) {
			break
		}
		errs += "; "
		missing = fmt.Sprintf("the registry has no tag %s: %s", tag.Tag, tag.Missing)
	}
	return "", nil, "", errors.New(errs)
}

// get fetches the manifest or the index that ref names.
func (p *puller) get(ctx context.Context, ref name.Reference) (d *remote.Descriptor, err error) {
	err = p.retry(ctx, func() error {
		d, err = p.remote.Get(ctx, ref)
		return err
	})
	return d, err
}

// Fetch fetches a manifest, an index or a config (oci.Fetcher).
func (p *puller) Fetch(ctx context.Context, d v1.Descriptor) ([]byte, error) {
	if !d.MediaType.IsConfig() {
		found, err := p.get(ctx, p.repository.Digest(d.Digest.String()))
		if err != nil {
			return nil, err
		}
		return found.Manifest, nil
	}
	var b bytes.Buffer
	err := p.retry(ctx, func() error {
		b.Reset()
		return p.blob(ctx, d, &b)
	})
	return b.Bytes(), err
}

// blob copies a blob to w: not more than one byte beyond its size, and not
// without an error if size or digest are not as the descriptor says.
func (p *puller) blob(ctx context.Context, d v1.Descriptor, w io.Writer) error {
	layer, err := p.remote.Layer(ctx, p.repository.Digest(d.Digest.String()))
	if err != nil {
		return err
	}
	body, err := layer.Compressed()
	if err != nil {
		return err
	}
	defer body.Close()
	n, err := io.Copy(w, io.LimitReader(body, d.Size+1))
	switch {
	case n > d.Size:
		return fmt.Errorf("more than the %d bytes that the manifest says", d.Size)
	case err == nil && n < d.Size:
		return fmt.Errorf("got %d bytes, the manifest says %d", n, d.Size)
	}
	return err
}

// fetch writes the oci-archive of image, whose layers it fetches, at path, along
// with its record.
func (p *puller) fetch(ctx context.Context, h catalogue.Helper, image *oci.Image, path, source string) (o release.Origin, err error) {
	dir := filepath.Join(p.opts.Dir, pullDir, h.String()) // an OCI layout
	if err := os.MkdirAll(filepath.Join(dir, "blobs", "sha256"), 0o755); err != nil {
		return o, err
	}
	var done, total int64
	for _, layer := range image.Manifest.Layers {
		if total += layer.Size; layer.Size > maxImage || total > maxImage {
			return o, fmt.Errorf("layers of %d bytes or more, at most %d are allowed", max(total, layer.Size), int64(maxImage))
		}
	}
	for _, layer := range image.Manifest.Layers {
		err := p.layer(ctx, layer, blobPath(dir, layer.Digest), func(n int64) {
			if p.opts.Progress != nil {
				p.opts.Progress(h.String(), done+n, total)
			}
		})
		if err != nil {
			return o, fmt.Errorf("layer %s: %w", layer.Digest, err)
		}
		done += layer.Size
	}
	if o, err = archive(ctx, dir, image, path, source); err != nil {
		return o, err
	}
	return o, os.RemoveAll(dir)
}

// layer makes the file at path hold a layer. A layer that is there already is not
// fetched again.
func (p *puller) layer(ctx context.Context, d v1.Descriptor, path string, progress func(int64)) error {
	if sum, err := release.SHA256File(ctx, path); err == nil && sum == d.Digest.Hex {
		progress(d.Size)
		return nil
	}
	return p.retry(ctx, func() (err error) {
		f, err := os.Create(path)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		return p.blob(ctx, d, &meter{Writer: f, report: progress})
	})
}

// archive writes the image, whose layers are in the layout dir, as the oci-archive
// at path, along with its record. The same image always makes the same bytes.
func archive(ctx context.Context, dir string, image *oci.Image, path, source string) (o release.Origin, err error) {
	files, err := layout.Write(dir, empty.Index)
	if err != nil {
		return o, err
	}
	// The entry of an index may leave out what layout wants to know.
	descriptor := image.Descriptor
	descriptor.MediaType = cmp.Or(descriptor.MediaType, image.Manifest.MediaType, types.OCIManifestSchema1)
	err = errors.Join(
		os.WriteFile(blobPath(dir, image.Descriptor.Digest), image.RawManifest, 0o644),
		os.WriteFile(blobPath(dir, image.Manifest.Config.Digest), image.RawConfig, 0o644),
		files.AppendDescriptor(descriptor),
	)
	if err != nil {
		return o, err
	}
	img, err := files.Image(image.Descriptor.Digest)
	if err != nil {
		return o, err
	}
	err = atomicfile.Write(path, func(f *os.File) error {
		hash, counted := sha256.New(), meter{Writer: contextio.NewWriter(ctx, f), report: func(int64) {}}
		w := bufio.NewWriterSize(io.MultiWriter(&counted, hash), 1<<20)
		o = release.Origin{Source: source, Digest: image.Descriptor.Digest.String()}
		if err := errors.Join(ociarchive.Write(w, img, o.Tag(), time.Unix(0, 0)), w.Flush()); err != nil {
			return err
		}
		o.Size, o.SHA256 = counted.n, hex.EncodeToString(hash.Sum(nil))
		return o.Write(path)
	})
	return o, err
}

// blobPath returns the path of a blob in an OCI layout (image-spec v1.1.1, image-layout.md).
func blobPath(dir string, digest v1.Hash) string {
	return filepath.Join(dir, "blobs", digest.Algorithm, digest.Hex)
}

// A meter counts the bytes written.
type meter struct {
	io.Writer
	n      int64
	report func(n int64)
}

func (m *meter) Write(p []byte) (int, error) {
	n, err := m.Writer.Write(p)
	m.n += int64(n)
	m.report(m.n)
	return n, err
}

// tries is how often a request is made.
const tries = 4

// retry calls do until it succeeds, fails for good, or has been called often enough.
func (p *puller) retry(ctx context.Context, do func() error) error {
	wait := p.opts.Wait
	for try := 1; ; try++ {
		err := do()
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case permanent(err):
			return p.explain(err)
		case try == tries:
			return fmt.Errorf("%w (tried %d times)", p.explain(err), tries)
		}
		select {
		case <-time.After(wait):
			wait *= 2
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// notFound is a registry's answer that a tag or a blob does not exist.
type notFound struct{ error }

func (notFound) Is(target error) bool { return target == os.ErrNotExist }

// explain turns a registry's answer into what a person can do about it. It leaves
// out the URLs: the reference is named anyway, and URLs of the storage behind a
// registry carry secrets.
func (p *puller) explain(err error) error {
	host := p.repository.RegistryStr()
	answer := (*transport.Error)(nil)
	if !errors.As(err, &answer) {
		return explainConnection(err, host)
	}
	text := fmt.Sprintf("%d %s", answer.StatusCode, http.StatusText(answer.StatusCode))
	for i, detail := range answer.Errors {
		if i == 3 {
			break
		}
		text += fmt.Sprintf(": %.200s", detail.Message)
	}
	switch answer.StatusCode {
	case http.StatusNotFound:
		return notFound{errors.New(text)}
	case http.StatusUnauthorized, http.StatusForbidden:
		text += fmt.Sprintf(" (log in with docker login %[1]s, or podman login %[1]s)", host)
	}
	return errors.New(text)
}
