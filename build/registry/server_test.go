package registry

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/compression"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"pretag/build/testutil"
)

// startRegistry runs a real registry on loopback and returns its host:port.
// more is appended to its configuration.
func startRegistry(tb testing.TB, more string) string {
	tb.Helper()
	program := testutil.Tool(tb, "docker-registry")
	folder := tb.TempDir()
	config := filepath.Join(folder, "config.yml")
	text := fmt.Sprintf(`version: 0.1
storage: {filesystem: {rootdirectory: %s}}
http: {addr: "127.0.0.1:0"}
`, filepath.Join(folder, "storage"))
	if err := os.WriteFile(config, []byte(text+more), 0o644); err != nil {
		tb.Fatal(err)
	}
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

// A faultProxy stands between Pull and a registry.
type faultProxy struct {
	*httptest.Server
	mutex sync.Mutex
	// fault, if set, may answer in the registry's place: it reports whether it did.
	fault func(w http.ResponseWriter, r *http.Request) bool
	seen  []string // the paths asked for, with their Range
}

func startProxy(tb testing.TB, host string, fault func(http.ResponseWriter, *http.Request) bool) *faultProxy {
	tb.Helper()
	proxy := &faultProxy{fault: fault}
	registry := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: host})
	proxy.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		proxy.mutex.Lock()
		proxy.seen = append(proxy.seen, strings.TrimSpace(r.URL.Path+" "+r.Header.Get("Range")))
		fault := proxy.fault
		proxy.mutex.Unlock()
		if fault == nil || !fault(w, r) {
			registry.ServeHTTP(w, r)
		}
	}))
	tb.Cleanup(proxy.Close)
	return proxy
}

func (p *faultProxy) host() string { return p.Listener.Addr().String() }

// become replaces the fault.
func (p *faultProxy) become(fault func(http.ResponseWriter, *http.Request) bool) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	p.fault = fault
}

// blobs returns the blob requests seen so far and forgets them.
func (p *faultProxy) blobs() (seen []string) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	for _, path := range p.seen {
		if strings.Contains(path, "/blobs/") {
			seen = append(seen, path)
		}
	}
	p.seen = nil
	return seen
}

// fetch gets what r asks for from the registry behind the proxy.
func fetch(tb testing.TB, host string, r *http.Request) (http.Header, []byte) {
	tb.Helper()
	request, err := http.NewRequest(r.Method, "http://"+host+r.URL.Path, nil)
	if err != nil {
		tb.Fatal(err)
	}
	request.Header = r.Header.Clone()
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		tb.Fatal(err)
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	if err != nil {
		tb.Fatal(err)
	}
	return response.Header, data
}

// cut sends all of data but its second half, then resets the connection.
func cut(tb testing.TB, w http.ResponseWriter, status string, header http.Header, data []byte) {
	tb.Helper()
	connection, buffer, err := w.(http.Hijacker).Hijack()
	if err != nil {
		tb.Fatal(err)
	}
	fmt.Fprintf(buffer, "HTTP/1.1 %s\r\nContent-Length: %d\r\n", status, len(data))
	if s := header.Get("Content-Range"); s != "" {
		fmt.Fprintf(buffer, "Content-Range: %s\r\n", s)
	}
	fmt.Fprint(buffer, "\r\n")
	buffer.Write(data[:len(data)/2])
	buffer.Flush()
	awaitSent(tb, connection.(*net.TCPConn)) // a reset discards what is on its way
	connection.(*net.TCPConn).SetLinger(0)
	connection.Close()
}

// awaitSent waits until the other side's kernel has all that was written.
func awaitSent(tb testing.TB, connection *net.TCPConn) {
	tb.Helper()
	raw, err := connection.SyscallConn()
	if err != nil {
		tb.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		var left int32 // bytes; SIOCOUTQ in tcp(7)
		var errno syscall.Errno
		err := raw.Control(func(fd uintptr) {
			_, _, errno = syscall.Syscall(syscall.SYS_IOCTL, fd, syscall.TIOCOUTQ, uintptr(unsafe.Pointer(&left)))
		})
		switch {
		case err != nil || errno != 0:
			tb.Fatal(err, errno)
		case left == 0:
			return
		case time.Now().After(deadline):
			tb.Fatalf("%d bytes are not read", left)
		}
	}
}

// layer is a tar of one file of size random bytes.
func layer(tb testing.TB, seed uint64, size int, with compression.Compression, mediaType types.MediaType) v1.Layer {
	tb.Helper()
	content := make([]byte, size)
	random := rand.New(rand.NewPCG(seed, 0))
	for i := range content {
		content[i] = byte(random.Uint32())
	}
	var text bytes.Buffer
	w := tar.NewWriter(&text)
	if err := w.WriteHeader(&tar.Header{Name: "file", Mode: 0o644, Size: int64(size)}); err != nil {
		tb.Fatal(err)
	}
	w.Write(content)
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	opener := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(text.Bytes())), nil }
	l, err := tarball.LayerFromOpener(opener, tarball.WithCompression(with),
		tarball.WithCompressionLevel(gzip.BestSpeed), tarball.WithMediaType(mediaType))
	if err != nil {
		tb.Fatal(err)
	}
	return l
}

// build is an image of the layers for the platform, in Docker's media types.
func build(tb testing.TB, platform string, layers ...v1.Layer) v1.Image {
	tb.Helper()
	p, err := v1.ParsePlatform(platform)
	if err != nil {
		tb.Fatal(err)
	}
	image, err := mutate.AppendLayers(empty.Image, layers...)
	if err != nil {
		tb.Fatal(err)
	}
	config, err := image.ConfigFile()
	if err != nil {
		tb.Fatal(err)
	}
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Variant = p.OS, p.Architecture, p.Variant
	config.Config.Entrypoint = []string{"/usr/bin/dumb-init", "/entrypoint"}
	image, err = mutate.ConfigFile(image, config)
	if err != nil {
		tb.Fatal(err)
	}
	return image
}

// small is an image of one gzip layer of half a megabyte.
func small(tb testing.TB, platform string, seed uint64) v1.Image {
	return build(tb, platform, layer(tb, seed, 1<<19, compression.GZip, types.DockerLayer))
}

// oci gives an image OCI's media types.
func oci(image v1.Image) v1.Image {
	return mutate.ConfigMediaType(mutate.MediaType(image, types.OCIManifestSchema1), types.OCIConfigJSON)
}

// push puts an image or an index into the repository "helper" of the registry.
func push(tb testing.TB, host, tag string, what remote.Taggable, options ...remote.Option) {
	tb.Helper()
	ref, err := name.NewTag(host + "/helper:" + tag)
	if err != nil {
		tb.Fatal(err)
	}
	switch what := what.(type) {
	case v1.Image:
		err = remote.Write(ref, what, options...)
	case v1.ImageIndex:
		err = remote.WriteIndex(ref, what, options...)
	default:
		err = remote.Put(ref, what, options...)
	}
	if err != nil {
		tb.Fatal(err)
	}
}

var basic = &authn.Basic{Username: "runner", Password: "s3cret"}

// tree lists the files below folder, with their sizes.
func tree(tb testing.TB, folder string) []string {
	tb.Helper()
	files := []string{}
	err := filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		path, err = filepath.Rel(folder, path)
		files = append(files, path+" "+strconv.FormatInt(info.Size(), 10))
		return err
	})
	if err != nil {
		tb.Fatal(err)
	}
	slices.Sort(files)
	return files
}

// names lists the files below folder.
func names(tb testing.TB, folder string) []string {
	tb.Helper()
	files := tree(tb, folder)
	for i, file := range files {
		files[i], _, _ = strings.Cut(file, " ")
	}
	return files
}
