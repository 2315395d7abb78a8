package archive_test

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"pretag/build/archive"
	"pretag/build/testutil"
)

func TestWalk(t *testing.T) {
	layers := [][]byte{
		testutil.Tar(t, testutil.Dir("etc/"), testutil.File("etc/a", "one")),
		testutil.Tar(t, testutil.File("etc/.wh.a", ""), testutil.File("etc/b", "two")),
	}
	want := []string{"0 etc/ ", "0 etc/a one", "1 etc/.wh.a ", "1 etc/b two"}
	for _, compression := range []string{"zstd:fastest", "gzip", "none"} {
		t.Run(compression, func(t *testing.T) {
			f, err := write(t, compression, spec(t, layers...))
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			_, err = archive.Walk(t.Context(), f.Path, nil, func(layer int, h *tar.Header, body io.Reader) error {
				b, err := io.ReadAll(body)
				got = append(got, fmt.Sprintf("%d %s %s", layer, h.Name, b))
				return err
			})
			if diff := cmp.Diff(want, got); err != nil || diff != "" {
				t.Errorf("%v %s", err, diff)
			}

			stop := errors.New("enough")
			_, err = archive.Walk(t.Context(), f.Path, nil, func(int, *tar.Header, io.Reader) error { return stop })
			if !errors.Is(err, stop) {
				t.Errorf("got %v, want the visitor's error", err)
			}
			ctx, cancel := context.WithCancelCause(t.Context())
			cancel(stop)
			if _, err := archive.Walk(ctx, f.Path, nil, nil); !errors.Is(err, stop) {
				t.Errorf("got %v, want the context's cause", err)
			}
		})
	}
}

func TestWalkRefuses(t *testing.T) {
	good := goodDocker(t)
	swapped := good
	above := testutil.Rootfs(t, "y")
	swapped.extra = []testutil.Entry{testutil.File("b.tar", string(above))}
	swapped.config = fmt.Appendf(nil, `{"architecture":"amd64","os":"linux","rootfs":{"diff_ids":["sha256:%x","sha256:%x"]}}`, sha256.Sum256(above), sha256.Sum256(good.layer))
	swapped.configName = fmt.Sprintf("%x.json", sha256.Sum256(swapped.config))
	swapped.manifest = fmt.Sprintf(`[{"Config":%q,"RepoTags":[%q],"Layers":["b.tar","layer.tar"]}]`, swapped.configName, tag)
	none := good
	none.manifest = "[]"
	for want, b := range map[string][]byte{
		"the layers are in the order":                swapped.bytes(t),
		"manifest.json: 0 images, want 1":            none.bytes(t),
		`member "layer.tar": entry 2: no end marker`: testutil.Tar(t, testutil.File("layer.tar", string(good.layer[:512]))),
		"no end marker (truncated tar)":              good.bytes(t)[:512+len(good.layer)],
	} {
		path := filepath.Join(t.TempDir(), "a")
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
		_, err := archive.Walk(t.Context(), path, nil, nil)
		testutil.WantError(t, err, want)
	}
}
