// Package registry fetches helper images from a registry as oci-archives,
// without an engine. Manifest, config and layers are the registry's own bytes,
// so that every digest stays; nothing gets its final name before all of them
// have been checked. It does not push, list tags or choose versions.
package registry

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/errgroup"

	"pretag/build/release"
)

// Options say where from and how. Credentials, proxies and trusted certificates
// come from where they usually are: docker's config.json, else podman's
// auth.json; HTTPS_PROXY and its kin; SSL_CERT_FILE.
type Options struct {
	Repository string // registry and path. Plain http is tried on loopback and private addresses only
	Jobs       int    // images fetched at once; below 1 is 1

	// Wait is the pause before the first retry, doubled before each further
	// one; zero is a second.
	Wait time.Duration
	// Stall is how long a registry may send nothing before the request is made
	// again; zero is a minute.
	Stall time.Duration

	// Progress, if set, is told how many bytes of a helper's image are here,
	// out of how many. Calls come from several goroutines.
	Progress func(helper string, done, total int64)
}

// A Request is one image that is wanted.
type Request struct {
	Helper   string // prefixes errors, names the folder of what is half fetched
	Tag      string
	Path     string      // the oci-archive to write
	Platform v1.Platform // what the image must be for
}

// An Image is an oci-archive that is there.
type Image struct {
	Helper  string
	Path    string
	Origin  release.Origin // Source is <reference>@<digest that the tag names>
	Fetched bool           // false: it was there already
}

// partialFolder is the folder, beside the archives, of what is half fetched. A
// pull that fails leaves it, the next one goes on from it.
const partialFolder = ".pull"

// Pull writes the oci-archive of every request and returns those that are
// there, in the order of the requests. Requests that fail are all reported,
// a line each; the others are served nevertheless. An archive that is there
// already with the registry's digest is left alone; one that has no side file,
// or another's, is never replaced. The caller lets no other write to the folders.
func Pull(ctx context.Context, opts Options, requests []Request) ([]Image, error) {
	repository, err := name.NewRepository(opts.Repository, name.StrictValidation)
	if err != nil {
		return nil, fmt.Errorf("pull %q: %w", opts.Repository, err)
	}
	client, err := connect(ctx, repository, opts)
	if err != nil {
		return nil, fmt.Errorf("pull %s: %w", repository, err)
	}

	images, errs := make([]*Image, len(requests)), make([]error, len(requests))
	var group errgroup.Group
	group.SetLimit(max(opts.Jobs, 1))
	for i, request := range requests {
		group.Go(func() error {
			if ctx.Err() != nil {
				return nil
			}
			image, err := client.pull(ctx, request, opts.Progress)
			switch {
			case err == nil:
				images[i] = image
			case ctx.Err() == nil:
				errs[i] = fmt.Errorf("%s: pull %s: %w", request.Helper, repository.Tag(request.Tag), err)
			}
			return nil
		})
	}
	group.Wait()
	for _, request := range requests {
		os.Remove(filepath.Join(filepath.Dir(request.Path), partialFolder)) // stays where something is in it
	}

	var present []Image
	for _, image := range images {
		if image != nil {
			present = append(present, *image)
		}
	}
	err = errors.Join(errs...)
	if ctx.Err() != nil && len(present) < len(requests) {
		err = errors.Join(err, fmt.Errorf("pull %s: %w", repository, context.Cause(ctx)))
	}
	return present, err
}

// pull serves one request.
func (c *client) pull(ctx context.Context, r Request, progress func(string, int64, int64)) (*Image, error) {
	image, err := c.resolve(ctx, r.Tag, r.Platform)
	if err != nil {
		return nil, err
	}
	is := &Image{Helper: r.Helper, Path: r.Path}
	is.Origin, err = release.OriginOf(r.Path)
	if err != nil {
		return nil, err
	}
	source := fmt.Sprintf("%s@%s", c.repository.Tag(r.Tag), image.named)
	if is.Origin.Digest == image.descriptor.Digest.String() {
		if is.Origin.Source != source {
			is.Origin.Source = source
			err = is.Origin.Write(r.Path)
		}
		return is, err
	}

	folder := filepath.Join(filepath.Dir(r.Path), partialFolder, r.Helper)
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return nil, err
	}
	var done, total int64
	for _, blob := range image.blobs() {
		total += blob.Size
	}
	for _, blob := range image.blobs() {
		err := c.blob(ctx, blob, filepath.Join(folder, blob.Digest.Hex), func(n int64) {
			if progress != nil {
				progress(r.Helper, done+n, total)
			}
		})
		if err != nil {
			return nil, err
		}
		done += blob.Size
	}

	is.Fetched = true
	is.Origin, err = image.write(ctx, r.Path, folder, r.Tag, source)
	if err != nil {
		return nil, err
	}
	return is, os.RemoveAll(folder)
}
