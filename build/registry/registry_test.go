package registry

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/compression"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"pretag/build/testutil"
)

func options(host string) Options {
	return Options{Repository: host + "/helper", Jobs: 2, Wait: time.Millisecond}
}

// request asks for tag, for platform, as helper of the same name.
func request(tb testing.TB, folder, tag, platform string) Request {
	tb.Helper()
	p, err := v1.ParsePlatform(platform)
	if err != nil {
		tb.Fatal(err)
	}
	return Request{Helper: tag, Tag: tag, Path: filepath.Join(folder, tag+".tar"), Platform: *p}
}

func digest(tb testing.TB, of partial.WithRawManifest) string {
	tb.Helper()
	d, err := partial.Descriptor(of.(partial.Describable))
	if err != nil {
		tb.Fatal(err)
	}
	return d.Digest.String()
}

// wantError holds an error's lines against what each must contain.
func wantError(tb testing.TB, err error, lines ...string) {
	tb.Helper()
	if err == nil {
		tb.Fatal("no error")
	}
	got := strings.Split(err.Error(), "\n")
	if len(got) != len(lines) {
		tb.Fatalf("got %d lines, want %d:\n%v", len(got), len(lines), err)
	}
	for i := range lines {
		for part := range strings.SplitSeq(lines[i], "...") {
			if !strings.Contains(got[i], part) {
				tb.Errorf("got  %s\nwant %s", got[i], lines[i])
			}
		}
	}
}

func TestPull(t *testing.T) {
	skopeo := testutil.Tool(t, "skopeo")
	host := startRegistry(t, "")

	docker := small(t, "linux/amd64", 1)
	base := layer(t, 2, 1000, compression.None, types.OCIUncompressedLayer)
	manyLayers := oci(build(t, "linux/arm/v7", base,
		layer(t, 3, 1<<20, compression.ZStd, types.OCILayerZStd), base,
		layer(t, 4, 5000, compression.GZip, types.OCILayer)))
	attested := mutate.AppendManifests(mutate.IndexMediaType(empty.Index, types.OCIImageIndex),
		mutate.IndexAddendum{
			Add: oci(build(t, "unknown/unknown")),
			Descriptor: v1.Descriptor{
				Platform:    &v1.Platform{OS: "linux", Architecture: "arm64"}, // lies: the annotation decides
				Annotations: map[string]string{"vnd.docker.reference.type": "attestation-manifest"},
			},
		},
		mutate.IndexAddendum{
			Add:        oci(small(t, "linux/arm64/v8", 5)),
			Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "arm64", Variant: "v8"}},
		})
	list := mutate.AppendManifests(mutate.IndexMediaType(empty.Index, types.DockerManifestList),
		mutate.IndexAddendum{
			Add:        small(t, "linux/arm/v6", 6),
			Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "arm", Variant: "v6"}},
		},
		mutate.IndexAddendum{
			Add:        small(t, "linux/arm/v7", 7),
			Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "arm", Variant: "v7"}},
		})
	nested := mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: attested}, mutate.IndexAddendum{Add: list})

	tests := []struct {
		tag, platform string
		what          interface {
			remote.Taggable
			partial.WithRawManifest
		}
		image string // digest of the manifest that is wanted
	}{
		{"x86_64-v19.3.0", "linux/amd64", docker, digest(t, docker)},
		{"arm-v19.3.0", "linux/arm/v7", manyLayers, digest(t, manyLayers)},
		{"arm64-v19.3.0", "linux/arm64", attested, childDigest(t, attested, 1)},
		{"nested-arm", "linux/arm/v7", nested, childDigest(t, list, 1)},
	}
	folder := t.TempDir()
	var requests []Request
	for _, test := range tests {
		push(t, host, test.tag, test.what)
		requests = append(requests, request(t, folder, test.tag, test.platform))
	}
	proxy := startProxy(t, host, nil)
	opts := options(proxy.host())
	progress := map[string]chan [2]int64{}
	for _, r := range requests {
		progress[r.Helper] = make(chan [2]int64, 1000)
	}
	opts.Progress = func(helper string, done, total int64) { progress[helper] <- [2]int64{done, total} }
	images, err := Pull(t.Context(), opts, requests)
	if err != nil {
		t.Fatal(err)
	}
	for i, test := range tests {
		got, path := images[i], requests[i].Path
		ref := fmt.Sprintf("%s/helper:%s@%s", proxy.host(), test.tag, digest(t, test.what))
		if got.Origin.Digest != test.image || got.Origin.Source != ref || !got.Fetched {
			t.Errorf("%s: got %+v, want %s of %s", test.tag, got, test.image, ref)
		}
		if same, err := got.Origin.Describes(path); !same {
			t.Errorf("%s: the side file speaks of other bytes: %v", test.tag, err)
		}
		// The archive says the same as the registry, digest for digest, says somebody else.
		if os.Geteuid() != 0 {
			testutil.Missing(t, "root", "skopeo gives what it unpacks to root")
		}
		var here, there struct {
			Digest, Architecture string
			Layers               []string
		}
		inspect(t, &here, skopeo, "inspect", "oci-archive:"+path)
		p := requests[i].Platform
		inspect(t, &there, skopeo, "--override-arch", p.Architecture, "--override-variant", p.Variant,
			"inspect", "--tls-verify=false", "docker://"+host+"/helper@"+test.image)
		if diff := cmp.Diff(there, here); diff != "" {
			t.Errorf("%s: skopeo, registry against archive: %s", test.tag, diff)
		}
		if here.Digest != test.image {
			t.Errorf("%s: skopeo says %s, want %s", test.tag, here.Digest, test.image)
		}
		run(t, skopeo, "copy", "--quiet", "oci-archive:"+path, "dir:"+t.TempDir())

		var last [2]int64
		for close(progress[test.tag]); len(progress[test.tag]) > 0; {
			next := <-progress[test.tag]
			if next[0] < last[0] || next[1] == 0 {
				t.Errorf("%s: progress goes from %v to %v", test.tag, last, next)
			}
			last = next
		}
		if last[0] != last[1] {
			t.Errorf("%s: progress ends at %v", test.tag, last)
		}
	}
	want := []string{}
	for _, test := range []string{"arm-v19.3.0", "arm64-v19.3.0", "nested-arm", "x86_64-v19.3.0"} {
		want = append(want, test+".tar", test+".tar.origin")
	}
	if diff := cmp.Diff(want, names(t, folder)); diff != "" {
		t.Errorf("folder: %s", diff)
	}

	t.Run("again", func(t *testing.T) {
		proxy.blobs()
		again, err := Pull(t.Context(), options(proxy.host()), requests)
		if err != nil {
			t.Fatal(err)
		}
		if seen := proxy.blobs(); seen != nil {
			t.Errorf("fetched again: %q", seen)
		}
		for i := range images {
			images[i].Fetched = false
		}
		if diff := cmp.Diff(images, again); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("elsewhere", func(t *testing.T) {
		r := requests[1]
		r.Path = filepath.Join(t.TempDir(), "x.tar")
		if _, err := Pull(t.Context(), options(host), []Request{r}); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(read(t, r.Path), read(t, requests[1].Path)) {
			t.Error("the same image makes other bytes")
		}
	})
	t.Run("moved tag", func(t *testing.T) {
		moved := small(t, "linux/amd64", 99)
		push(t, host, tests[0].tag, moved)
		got, err := Pull(t.Context(), options(host), requests[:1])
		if err != nil {
			t.Fatal(err)
		}
		if !got[0].Fetched || got[0].Origin.Digest != digest(t, moved) {
			t.Errorf("got %+v", got)
		}
	})
	t.Run("someone else's file", func(t *testing.T) {
		before := read(t, requests[0].Path)
		changed := append(before[:len(before):len(before)], 0)
		if err := os.WriteFile(requests[0].Path, changed, 0o644); err != nil {
			t.Fatal(err)
		}
		_, err := Pull(t.Context(), options(host), requests[:1])
		wantError(t, err, "x86_64-v19.3.0: pull ...x86_64-v19.3.0.tar does not match its record ...origin; remove both")
		if err := os.Remove(requests[0].Path + ".origin"); err != nil {
			t.Fatal(err)
		}
		_, err = Pull(t.Context(), options(host), requests[:1])
		wantError(t, err, "x86_64-v19.3.0: pull ...x86_64-v19.3.0.tar already exists and was not fetched by pretag; move it away")
		if !bytes.Equal(read(t, requests[0].Path), changed) {
			t.Error("it was replaced")
		}
	})
}

func childDigest(tb testing.TB, index v1.ImageIndex, n int) string {
	tb.Helper()
	manifest, err := index.IndexManifest()
	if err != nil {
		tb.Fatal(err)
	}
	return manifest.Manifests[n].Digest.String()
}

func read(tb testing.TB, path string) []byte {
	tb.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	return data
}

func run(tb testing.TB, program string, args ...string) []byte {
	tb.Helper()
	output, err := exec.Command(program, args...).Output()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		tb.Fatalf("%s %q: %v\n%s", program, args, err, exit.Stderr)
	}
	return output
}

func inspect(tb testing.TB, into any, program string, args ...string) {
	tb.Helper()
	if err := json.Unmarshal(run(tb, program, args...), into); err != nil {
		tb.Fatal(err)
	}
}

// Every fault leaves nothing under a final name; those that pass are mended.
func TestPullFaults(t *testing.T) {
	host := startRegistry(t, "")
	push(t, host, "good", small(t, "linux/amd64", 1))
	isLayer := layerOf(t, small(t, "linux/amd64", 1))
	partial := ".pull/good/" + strings.TrimPrefix(string(isLayer), "sha256:")

	status := func(code int) func(http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
	}
	body := func(change func([]byte) []byte) func(http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, r *http.Request) {
			r.Header.Del("Range")
			_, data := fetch(t, host, r)
			w.Write(change(data))
		}
	}
	tests := map[string]struct {
		on     string // part of the path
		times  int32  // how often; -1 always
		answer func(http.ResponseWriter, *http.Request)
		want   string // the error; "" mended
		leaves []string
	}{
		"manifest 401":    {"/manifests/", -1, status(401), "401 Unauthorized (credentials: docker login " + "127.0.0.1", nil},
		"manifest 503":    {"/manifests/", 3, status(503), "", nil},
		"always 503":      {"/manifests/", -1, status(503), "503 Service Unavailable (tried 4 times)", nil},
		"ping 503":        {"/v2/", 2, status(503), "", nil},
		"ping always 500": {"/v2/", -1, status(500), "500 Internal Server Error (tried 4 times)", nil},
		"429":             {string(isLayer), 2, status(429), "", nil},
		"blob 404":        {string(isLayer), -1, status(404), "blob sha256:...: 404 Not Found", []string{partial}},
		"reset": {string(isLayer), 2, func(w http.ResponseWriter, r *http.Request) {
			header, data := fetch(t, host, r)
			if r.Header.Get("Range") != "" {
				cut(t, w, "206 Partial Content", header, data)
			} else {
				cut(t, w, "200 OK", header, data)
			}
		}, "", nil},
		"short without length": {string(isLayer), 3, body(func(b []byte) []byte { return b[:len(b)/2] }), "", nil},
		"ignores Range": {string(isLayer), 3, func(w http.ResponseWriter, r *http.Request) {
			r.Header.Del("Range")
			header, data := fetch(t, host, r)
			cut(t, w, "200 OK", header, data)
		}, "", nil},
		"other range": {string(isLayer), -1, func(w http.ResponseWriter, r *http.Request) {
			header, data := fetch(t, host, r)
			if r.Header.Get("Range") != "" {
				w.Header().Set("Content-Range", "bytes 1-2/3")
				w.WriteHeader(http.StatusPartialContent)
				w.Write(data)
				return
			}
			cut(t, w, "200 OK", header, data)
		}, `got Content-Range "bytes 1-2/3"`, []string{partial}},
		"wrong digest":    {string(isLayer), -1, body(func(b []byte) []byte { b[1000]++; return b }), "got digest sha256:", []string{partial}},
		"wrong config":    {"/blobs/", 1, body(func(b []byte) []byte { b[10]++; return b }), "got digest sha256:", nil},
		"too long":        {string(isLayer), -1, body(func(b []byte) []byte { return append(b, 0) }), "longer than the", []string{partial}},
		"truncated index": {"/manifests/", -1, body(func(b []byte) []byte { return b[:20] }), "neither an image nor an index but text/plain", nil},
		"stalls": {string(isLayer), 1, func(w http.ResponseWriter, r *http.Request) {
			_, data := fetch(t, host, r)
			w.Header().Set("Content-Length", fmt.Sprint(len(data)))
			w.Write(data[:len(data)/2])
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}, "", nil},
		"slow but alive": {string(isLayer), 1, func(w http.ResponseWriter, r *http.Request) {
			_, data := fetch(t, host, r)
			w.Header().Set("Content-Length", fmt.Sprint(len(data)))
			for chunk := range slices.Chunk(data, len(data)/8) {
				w.Write(chunk)
				w.(http.Flusher).Flush()
				time.Sleep(250 * time.Millisecond)
			}
		}, "", nil},
		"stalls before the header": {"/manifests/", -1, func(w http.ResponseWriter, r *http.Request) {
			<-r.Context().Done()
		}, "nothing received for 1s (tried 4 times)", nil},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var left atomic.Int32
			left.Store(test.times)
			proxy := startProxy(t, host, func(w http.ResponseWriter, r *http.Request) bool {
				if !strings.Contains(r.URL.Path, test.on) || strings.HasPrefix(test.on, "/v2") && r.URL.Path != test.on {
					return false
				}
				if test.times >= 0 && left.Add(-1) < 0 {
					return false
				}
				test.answer(w, r)
				return true
			})
			folder := t.TempDir()
			opts := options(proxy.host())
			opts.Stall = time.Second
			r := request(t, folder, "good", "linux/amd64")
			_, err := Pull(t.Context(), opts, []Request{r})
			if test.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff([]string{"good.tar", "good.tar.origin"}, names(t, folder)); diff != "" {
					t.Error(diff)
				}
				if name == "slow but alive" && len(proxy.blobs()) != 2 {
					t.Error("asked for more than the config and the layer")
				}
				return
			}
			wantError(t, err, "pull "+proxy.host()+"/helper..."+test.want)
			for _, file := range names(t, folder) {
				if !strings.HasPrefix(file, ".pull/good/") || strings.HasSuffix(file, ".tar") {
					t.Errorf("left behind: %s", file)
				}
			}
			for _, file := range test.leaves {
				if _, err := os.Stat(filepath.Join(folder, file)); err != nil {
					t.Error(err)
				}
			}
			// Without the fault the next run mends it.
			proxy.become(nil)
			if _, err := Pull(t.Context(), opts, []Request{r}); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]string{"good.tar", "good.tar.origin"}, names(t, folder)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

type layerDigest string

func layerOf(tb testing.TB, image v1.Image) layerDigest {
	tb.Helper()
	manifest, err := image.Manifest()
	if err != nil {
		tb.Fatal(err)
	}
	return layerDigest(manifest.Layers[0].Digest.String())
}

// A run that was cut short leaves what came; the next asks for the rest only.
func TestPullResumes(t *testing.T) {
	host := startRegistry(t, "")
	image := small(t, "linux/amd64", 1)
	push(t, host, "good", image)
	manifest, err := image.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	layer := manifest.Layers[0]
	proxy := startProxy(t, host, func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, layer.Digest.String()) {
			return false
		}
		if r.Header.Get("Range") != "" {
			w.WriteHeader(http.StatusNotFound)
			return true
		}
		header, data := fetch(t, host, r)
		cut(t, w, "200 OK", header, data)
		return true
	})
	folder := t.TempDir()
	requests := []Request{request(t, folder, "good", "linux/amd64")}
	_, err = Pull(t.Context(), options(proxy.host()), requests)
	wantError(t, err, "good: pull ...404 Not Found")

	half := layer.Size / 2
	want := []string{
		fmt.Sprintf(".pull/good/%s %d", manifest.Config.Digest.Hex, manifest.Config.Size),
		fmt.Sprintf(".pull/good/%s %d", layer.Digest.Hex, half),
	}
	if want[0] > want[1] {
		want[0], want[1] = want[1], want[0]
	}
	if diff := cmp.Diff(want, tree(t, folder)); diff != "" {
		t.Fatal(diff)
	}

	proxy.become(nil)
	proxy.blobs()
	if _, err := Pull(t.Context(), options(proxy.host()), requests); err != nil {
		t.Fatal(err)
	}
	rest := fmt.Sprintf("/v2/helper/blobs/%s bytes=%d-", layer.Digest, half)
	if diff := cmp.Diff([]string{rest}, proxy.blobs()); diff != "" {
		t.Error(diff)
	}

	t.Run("from a damaged part", func(t *testing.T) {
		folder := t.TempDir()
		r := request(t, folder, "good", "linux/amd64")
		for _, damaged := range [][]byte{bytes.Repeat([]byte("x"), 1000), bytes.Repeat([]byte("x"), int(layer.Size)), bytes.Repeat([]byte("x"), int(layer.Size)+1)} {
			part := filepath.Join(folder, ".pull/good", layer.Digest.Hex)
			if err := os.MkdirAll(filepath.Dir(part), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(part, damaged, 0o644); err != nil {
				t.Fatal(err)
			}
			if _, err := Pull(t.Context(), options(host), []Request{r}); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]string{"good.tar", "good.tar.origin"}, names(t, folder)); diff != "" {
				t.Error(diff)
			}
			os.Remove(r.Path)
			os.Remove(r.Path + ".origin")
		}
	})
}

// All requests that fail are reported, a line each; the others are served.
func TestPullReportsAll(t *testing.T) {
	host := startRegistry(t, "")
	push(t, host, "good", small(t, "linux/amd64", 1))
	push(t, host, "wrong-platform", small(t, "linux/amd64", 2))
	push(t, host, "index", mutate.AppendManifests(empty.Index, mutate.IndexAddendum{
		Add:        small(t, "linux/s390x", 3),
		Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "s390x"}},
	}))
	push(t, host, "lying-index", mutate.AppendManifests(empty.Index, mutate.IndexAddendum{
		Add:        small(t, "linux/amd64", 3),
		Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "arm", Variant: "v7"}},
	}))
	lying := small(t, "linux/arm/v7", 4)
	config, err := lying.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config = config.DeepCopy()
	config.RootFS.DiffIDs[0].Hex = strings.Repeat("0", 64)
	if lying, err = mutate.ConfigFile(lying, config); err != nil {
		t.Fatal(err)
	}
	push(t, host, "lying-diff-id", lying)
	config.RootFS.DiffIDs = nil
	few, err := mutate.ConfigFile(lying, config)
	if err != nil {
		t.Fatal(err)
	}
	push(t, host, "few-diff-ids", few)
	push(t, host, "chart", mutate.ConfigMediaType(oci(small(t, "linux/arm/v7", 5)), "application/vnd.cncf.helm.config.v1+json"))

	folder := t.TempDir()
	var requests []Request
	for _, tag := range []string{"missing", "wrong-platform", "index", "lying-index", "lying-diff-id", "few-diff-ids", "chart", "missing-too"} {
		requests = append(requests, request(t, folder, tag, "linux/arm/v7"))
	}
	requests = append(requests, request(t, folder, "good", "linux/amd64"))
	images, err := Pull(t.Context(), options(host), requests)
	ref := "pull " + host + "/helper:"
	wantError(t, err,
		"missing: "+ref+"missing: 404 Not Found: manifest unknown",
		"wrong-platform: "+ref+"wrong-platform: image is for linux/amd64, want linux/arm/v7",
		"index: "+ref+"index: no image for linux/arm/v7; there are linux/s390x",
		"lying-index: "+ref+"lying-index: image is for linux/amd64, want linux/arm/v7",
		"lying-diff-id: "+ref+"lying-diff-id: layer sha256:...: got diff ID sha256:...the config says sha256:00000",
		"few-diff-ids: "+ref+"few-diff-ids: config sha256:...: 0 diff IDs, the manifest has 1 layers",
		"chart: "+ref+"chart: manifest sha256:...: not an image: its config is application/vnd.cncf.helm",
		"missing-too: "+ref+"missing-too: 404 Not Found: manifest unknown",
	)
	if len(images) != 1 || images[0].Helper != "good" {
		t.Errorf("got %+v, want good", images)
	}
	for _, file := range names(t, folder) {
		if !strings.HasPrefix(file, ".pull/") && !strings.HasPrefix(file, "good.tar") || strings.HasSuffix(file, "archive.tar") {
			t.Errorf("left behind: %s", file)
		}
	}

	for repository, want := range map[string]string{
		"helper":              `pull "helper": `,
		"UPPER.example/Image": `pull "UPPER.example/Image": `,
		"127.0.0.1:1/helper":  "connection refused (tried 4 times)",
	} {
		opts := options(host)
		opts.Repository = repository
		_, err = Pull(t.Context(), opts, requests)
		wantError(t, err, want)
	}
}

// A pull that is ended says so once and leaves nothing half-written.
func TestPullCancelled(t *testing.T) {
	host := startRegistry(t, "")
	push(t, host, "a", small(t, "linux/amd64", 1))
	push(t, host, "b", small(t, "linux/amd64", 2))
	proxy := startProxy(t, host, func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "/blobs/") {
			return false
		}
		<-r.Context().Done()
		return true
	})
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	folder := t.TempDir()
	_, err := Pull(ctx, options(proxy.host()), []Request{request(t, folder, "a", "linux/amd64"), request(t, folder, "b", "linux/amd64"), request(t, folder, "missing", "linux/amd64")})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	wantError(t, err, "pull "+proxy.host()+"/helper: context deadline exceeded")
	for _, file := range names(t, folder) {
		if !strings.HasPrefix(file, ".pull/") || strings.HasSuffix(file, ".tar") {
			t.Errorf("left behind: %s", file)
		}
	}
}

// childVariable makes TestChild pull: from this registry, into the folder after the space.
const childVariable = "PRETAG_TEST_PULL"

// pullInChild pulls the image good in a process of its own with that environment
// only, as libraries read much of it just once.
func pullInChild(tb testing.TB, host, folder string, environ ...string) error {
	tb.Helper()
	child := exec.Command(os.Args[0], "-test.run=^TestChild$")
	child.Env = append(environ, childVariable+"="+host+" "+folder)
	output, err := child.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s", bytes.SplitN(output, []byte("\n"), 2)[0])
	}
	return nil
}

func TestChild(t *testing.T) {
	host, folder, is := strings.Cut(os.Getenv(childVariable), " ")
	if !is {
		return
	}
	_, err := Pull(t.Context(), options(host), []Request{request(t, folder, "good", "linux/amd64")})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

// Credentials come from docker's and from podman's file, for basic and for token auth.
func TestPullCredentials(t *testing.T) {
	passwords := filepath.Join(t.TempDir(), "htpasswd")
	// runner:s3cret, as "htpasswd -B -C 4" writes it
	if err := os.WriteFile(passwords, []byte(htpasswd), 0o644); err != nil {
		t.Fatal(err)
	}
	withBasic := startRegistry(t, fmt.Sprintf("auth: {htpasswd: {realm: test, path: %s}}\n", passwords))
	push(t, withBasic, "good", small(t, "linux/amd64", 1), remote.WithAuth(basic))

	open := startRegistry(t, "")
	push(t, open, "good", small(t, "linux/amd64", 1))
	var tokens *faultProxy
	tokens = startProxy(t, open, func(w http.ResponseWriter, r *http.Request) bool {
		switch {
		case r.URL.Path == "/token":
			if user, password, _ := r.BasicAuth(); user != basic.Username || password != basic.Password {
				w.WriteHeader(http.StatusUnauthorized)
			} else if r.URL.Query().Get("scope") == "repository:helper:pull" {
				fmt.Fprint(w, `{"token": "opensesame"}`)
			}
			return true
		case r.Header.Get("Authorization") != "Bearer opensesame":
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token",service="test"`, tokens.host()))
			w.WriteHeader(http.StatusUnauthorized)
			return true
		}
		return false
	})

	for kind, host := range map[string]string{"basic": withBasic, "token": tokens.host()} {
		auths := func(password string) []byte {
			return fmt.Appendf(nil, `{"auths": {%q: {"auth": %q}}}`, host,
				base64.StdEncoding.EncodeToString([]byte(basic.Username+":"+password)))
		}
		tests := map[string]struct {
			file, password, variable, value string
			want                            string
		}{
			"none":               {want: "401 Unauthorized"},
			"wrong":              {file: ".docker/config.json", password: "guess", want: "401 Unauthorized"},
			"docker":             {file: ".docker/config.json", password: basic.Password},
			"DOCKER_CONFIG":      {file: "elsewhere/config.json", password: basic.Password, variable: "DOCKER_CONFIG", value: "elsewhere"},
			"podman":             {file: "run/containers/auth.json", password: basic.Password},
			"podman's other":     {file: ".config/containers/auth.json", password: basic.Password},
			"REGISTRY_AUTH_FILE": {file: "auth.json", password: basic.Password, variable: "REGISTRY_AUTH_FILE", value: "auth.json"},
		}
		for name, test := range tests {
			t.Run(kind+" "+name, func(t *testing.T) {
				home := t.TempDir()
				environ := []string{"HOME=" + home, "XDG_RUNTIME_DIR=" + filepath.Join(home, "run")}
				if test.variable != "" {
					environ = append(environ, test.variable+"="+filepath.Join(home, test.value))
				}
				if test.file != "" {
					path := filepath.Join(home, test.file)
					if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
						t.Fatal(err)
					}
					if err := os.WriteFile(path, auths(test.password), 0o600); err != nil {
						t.Fatal(err)
					}
				}
				folder := t.TempDir()
				err := pullInChild(t, host, folder, environ...)
				if test.want != "" {
					wantError(t, err, "pull "+host+"/helper..."+test.want+"...(credentials: docker login "+host+", or podman login "+host+")")
					if left := names(t, folder); len(left) > 0 {
						t.Errorf("left behind: %q", left)
					}
				} else if err != nil {
					t.Error(err)
				}
			})
		}
	}
}

const htpasswd = `runner:$2a$04$qjdfVXs.O8zCdDu91UVbEOOU9k3nlErXjZOCtqSq/v5aWaAaLz7ca
`

// SSL_CERT_FILE and HTTPS_PROXY do what they do everywhere.
func TestPullThroughTLSAndProxy(t *testing.T) {
	host := startRegistry(t, "")
	push(t, host, "good", small(t, "linux/amd64", 1))
	secure := httptest.NewUnstartedServer(httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: host}))
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.StartTLS()
	defer secure.Close()
	certificate := filepath.Join(t.TempDir(), "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw})
	if err := os.WriteFile(certificate, block, 0o644); err != nil {
		t.Fatal(err)
	}
	// httptest's certificate is for example.com, which only the proxy can reach.
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect || r.Host != "example.com:443" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		registry, err := net.Dial("tcp", secure.Listener.Addr().String())
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		defer registry.Close()
		client, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		defer client.Close()
		fmt.Fprint(client, "HTTP/1.1 200 OK\r\n\r\n")
		go io.Copy(registry, client)
		io.Copy(client, registry)
	}))
	defer proxy.Close()

	folder, home := t.TempDir(), "HOME="+t.TempDir()
	throughProxy := "HTTPS_PROXY=" + proxy.URL
	err := pullInChild(t, "example.com", folder, home, throughProxy)
	wantError(t, err, "pull example.com/helper: tls: failed to verify certificate: x509: certificate signed by unknown authority")
	err = pullInChild(t, "example.com", folder, home, throughProxy, "SSL_CERT_FILE="+certificate)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"good.tar", "good.tar.origin"}, names(t, folder)); diff != "" {
		t.Error(diff)
	}
}
