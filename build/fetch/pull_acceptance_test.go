//go:build acceptance

package fetch

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"pretag/build/testutil"
)

// startRegistry runs Debian's registry on loopback and returns its host:port.
// more is appended to its configuration.
func startRegistry(tb testing.TB, more string) string {
	tb.Helper()
	program := testutil.Tool(tb, "docker-registry")
	dir := tb.TempDir()
	config := filepath.Join(dir, "config.yml")
	write(tb, config, fmt.Appendf(nil, `version: 0.1
storage: {filesystem: {rootdirectory: %s}}
http: {addr: "127.0.0.1:0"}
%s`, filepath.Join(dir, "storage"), more))
	command := exec.Command(program, "serve", config)
	command.Env = append(os.Environ(), "OTEL_TRACES_EXPORTER=none")
	output, err := command.StderrPipe()
	if err != nil {
		tb.Fatal(err)
	}
	command.Stdout = command.Stderr
	if err := command.Start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		command.Process.Kill()
		command.Wait()
	})
	listening := regexp.MustCompile(`listening on (127\.0\.0\.1:[0-9]+)`)
	lines := bufio.NewScanner(output)
	for lines.Scan() {
		if found := listening.FindStringSubmatch(lines.Text()); found != nil {
			go io.Copy(io.Discard, output)
			return found[1]
		}
	}
	tb.Fatal("docker-registry ended before it listened")
	return ""
}

// A real registry, and what skopeo says of the registry and of the archive.
func TestPullRealRegistry(t *testing.T) {
	testutil.Tool(t, "skopeo")
	testutil.Root(t, "skopeo gives what it unpacks to root")
	host := startRegistry(t, "")
	opts := pullOptions(t, host, t.TempDir())
	all := images(t)
	for _, image := range all {
		push(t, host, tag(image.helper), image.what)
		opts.Helpers = append(opts.Helpers, helpers(t, image.helper)...)
	}
	got, err := Pull(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	for i, image := range all {
		type view struct {
			Digest, Architecture string
			Layers               []string
		}
		look := func(args ...string) (v view) {
			t.Helper()
			if err := json.Unmarshal(testutil.Filter(t, nil, "skopeo", args...), &v); err != nil {
				t.Fatal(err)
			}
			return v
		}
		p := opts.Helpers[i].Platform
		here := look("inspect", "oci-archive:"+got[i].Path)
		there := look("--override-arch", p.Architecture, "--override-variant", p.Variant,
			"inspect", "--tls-verify=false", "docker://"+host+"/helper@"+image.digest)
		if diff := cmp.Diff(there, here); diff != "" || here.Digest != image.digest {
			t.Errorf("%s: digest %s, want %s; registry against archive: %s", image.helper, here.Digest, image.digest, diff)
		}
		testutil.Filter(t, nil, "skopeo", "copy", "--quiet", "oci-archive:"+got[i].Path, "dir:"+t.TempDir())
	}
}

// A real registry that wants a password.
func TestPullRealLogin(t *testing.T) {
	passwords := filepath.Join(t.TempDir(), "htpasswd")
	// runner:s3cret, as "htpasswd -B -C 4" writes it
	write(t, passwords, []byte("runner:$2a$04$qjdfVXs.O8zCdDu91UVbEOOU9k3nlErXjZOCtqSq/v5aWaAaLz7ca\n"))
	host := startRegistry(t, fmt.Sprintf("auth: {htpasswd: {realm: test, path: %s}}\n", passwords))
	push(t, host, tag("good-x86_64"), small(t, "linux/amd64", 1), remote.WithAuth(&authn.Basic{Username: "runner", Password: "s3cret"}))
	opts := pullOptions(t, host, t.TempDir(), "good-x86_64")
	_, err := Pull(t.Context(), opts)
	wantError(t, err, "401 Unauthorized")
	opts.Credentials.JSON = login(host, "s3cret")
	if _, err := Pull(t.Context(), opts); err != nil {
		t.Fatal(err)
	}
}
