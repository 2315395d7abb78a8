package archive

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"

	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"pretag/build/internal/decompress"
	"pretag/build/internal/stricttar"
)

// Walk calls visit for each entry of the layers of the docker-archive file,
// bottom up, with the number of its layer, from 0. The body is the entry's, and
// need not be read. Whiteouts are entries like any other. Walk stops at visit's
// first error and when ctx ends; it doubts nothing else, see Check.
func Walk(ctx context.Context, file string, visit func(layer int, header *tar.Header, body io.Reader) error) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := walk(ctx, f, visit); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return nil
}

func walk(ctx context.Context, r io.Reader, visit func(int, *tar.Header, io.Reader) error) error {
	plain, err := decompress.NewReader(r)
	if err != nil {
		return err
	}
	defer plain.Close()
	var layers []string // in the order of the file
	var manifest tarball.Manifest
	tr := stricttar.NewReader(plain)
	for {
		header, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		member := path.Clean(header.Name)
		switch {
		case header.Typeflag != tar.TypeReg:
		case path.Ext(member) == ".tar":
			err = walkLayer(ctx, tr, len(layers), visit)
			layers = append(layers, member)
		case member == manifestName:
			var body []byte
			if body, err = readSmall(tr); err == nil {
				err = json.Unmarshal(body, &manifest)
			}
		}
		if err != nil {
			return fmt.Errorf("member %s: %w", member, err)
		}
	}
	if len(manifest) != 1 {
		return fmt.Errorf("%s lists %d images, want 1", manifestName, len(manifest))
	}
	if !slices.Equal(manifest[0].Layers, layers) {
		return fmt.Errorf("layers are in the order %q, %s has them in %q", layers, manifestName, manifest[0].Layers)
	}
	return nil
}

func walkLayer(ctx context.Context, r io.Reader, layer int, visit func(int, *tar.Header, io.Reader) error) error {
	plain, err := decompress.NewReader(r)
	if err != nil {
		return err
	}
	defer plain.Close()
	for tr := stricttar.NewReader(plain); ; {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		header, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil && header.Typeflag != tar.TypeXGlobalHeader {
			err = visit(layer, header, tr)
		}
		if err != nil {
			return err
		}
	}
}
