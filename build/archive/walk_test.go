package archive_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"pretag/build/archive"
	"pretag/build/testutil"
)

func TestWalk(t *testing.T) {
	layers := [][]byte{
		testutil.Tar(t, testutil.Dir("etc/"), testutil.File("etc/a", "one")),
		testutil.Tar(t, testutil.File("etc/.wh.a", ""), testutil.File("etc/b", "two")),
	}
	want := []string{"0 etc/ ", "0 etc/a one", "1 etc/.wh.a ", "1 etc/b two"}
	for _, compression := range []archive.Compression{{Method: "zstd", Level: "fastest"}, {Method: "gzip"}, {Method: "none"}} {
		t.Run(compression.String(), func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "a")
			w := archive.Writer{Compression: compression}
			spec := archive.Spec{
				RepoTag: tag,
				Config:  func([]v1.Hash) ([]byte, error) { return []byte(`{"os":"linux","architecture":"amd64"}`), nil },
				Time:    time.Unix(0, 0),
			}
			for _, layer := range layers {
				spec.Layers = append(spec.Layers, func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(layer)), nil })
			}
			if _, err := w.Write(t.Context(), path, spec); err != nil {
				t.Fatal(err)
			}
			var got []string
			err := archive.Walk(t.Context(), path, func(layer int, h *tar.Header, body io.Reader) error {
				b, err := io.ReadAll(body)
				got = append(got, fmt.Sprintf("%d %s %s", layer, h.Name, b))
				return err
			})
			if diff := cmp.Diff(want, got); err != nil || diff != "" {
				t.Errorf("%v %s", err, diff)
			}

			stop := errors.New("enough")
			err = archive.Walk(t.Context(), path, func(int, *tar.Header, io.Reader) error { return stop })
			if !errors.Is(err, stop) {
				t.Errorf("got %v, want the visitor's error", err)
			}
			ctx, cancel := context.WithCancelCause(t.Context())
			cancel(stop)
			if err := archive.Walk(ctx, path, nil); !errors.Is(err, stop) {
				t.Errorf("got %v, want the context's cause", err)
			}
		})
	}
}

func TestWalkRefuses(t *testing.T) {
	good := goodDocker(t)
	swapped := good
	swapped.manifest = strings.Replace(swapped.manifest, `["layer.tar"]`, `["b.tar","layer.tar"]`, 1)
	swapped.extra = []testutil.Entry{testutil.File("b.tar", string(testutil.Rootfs(t, "y")))}
	none := good
	none.manifest = "[]"
	for want, b := range map[string][]byte{
		"layers are in the order":         swapped.bytes(t),
		"manifest.json lists 0 images":    none.bytes(t),
		"member layer.tar: no end marker": testutil.Tar(t, testutil.File("layer.tar", string(good.layer[:512]))),
		"no end marker (truncated tar)":   good.bytes(t)[:512+len(good.layer)],
	} {
		path := filepath.Join(t.TempDir(), "a")
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
		err := archive.Walk(t.Context(), path, func(int, *tar.Header, io.Reader) error { return nil })
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}
