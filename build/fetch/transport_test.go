package fetch

import (
	"bufio"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// drip is a body of which size bytes come, chunk by chunk with a pause before
// each. io.Copy to io.Discard takes at most 8 KiB at once.
type drip struct {
	ctx         context.Context
	chunk, size int
	pause       time.Duration
}

func (d *drip) Read(p []byte) (int, error) {
	if d.size <= 0 {
		return 0, io.EOF
	}
	select {
	case <-time.After(d.pause):
	case <-d.ctx.Done():
		return 0, d.ctx.Err()
	}
	n := min(len(p), d.chunk, d.size)
	d.size -= n
	return n, nil
}

func (d *drip) Close() error { return nil }

// A server must send a minimum in each minute.
func TestStall(t *testing.T) {
	for name, row := range map[string]struct {
		before time.Duration // the header comes
		chunk  int
		pause  time.Duration
		ends   time.Duration // 0: the whole body comes
	}{
		"silent before the header":    {time.Hour, 0, 0, time.Minute},
		"silent after the header":     {0, 1 << 20, time.Hour, time.Minute},
		"a byte every two seconds":    {0, 1, 2 * time.Second, time.Minute},
		"1 kB a second":               {0, 1000, time.Second, time.Minute},
		"2 kB a second":               {0, 2000, time.Second, 0},
		"just enough":                 {0, 8 << 10, 7 * time.Second, 0},
		"not enough":                  {0, 8 << 10, 9 * time.Second, time.Minute},
		"fast, and silent in the end": {0, 5 << 20, 100 * time.Second, 2 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				base := roundTripper(func(r *http.Request) (*http.Response, error) {
					select {
					case <-time.After(row.before):
					case <-r.Context().Done():
						return nil, r.Context().Err()
					}
					return &http.Response{StatusCode: 200, Request: r, Body: &drip{r.Context(), row.chunk, 8 << 20, row.pause}}, nil
				})
				if name == "fast, and silent in the end" {
					base = func(r *http.Request) (*http.Response, error) {
						return &http.Response{StatusCode: 200, Request: r, Body: io.NopCloser(io.MultiReader(
							&drip{r.Context(), 8 << 10, 1 << 20, 250 * time.Millisecond}, &drip{r.Context(), 1, 1, time.Hour}))}, nil
					}
				}
				began := time.Now()
				r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://example.com/v2/x/blobs/y", nil)
				if err != nil {
					t.Fatal(err)
				}
				response, err := (&guard{base: base}).RoundTrip(r)
				if err == nil {
					_, err = io.Copy(io.Discard, response.Body)
					response.Body.Close()
				}
				if row.ends == 0 && err != nil || row.ends != 0 && !errors.Is(err, errStalled) {
					t.Errorf("error %v", err)
				}
				if took := time.Since(began); row.ends != 0 && took != row.ends {
					t.Errorf("ended after %s, want %s", took, row.ends)
				}
				if permanent(errStalled) {
					t.Error("a stalled request is not made again")
				}
			})
		})
	}
}

// Redirects are followed, to private addresses too, but not without end, not from
// https to http, and without the password.
func TestRedirects(t *testing.T) {
	s := newServer(t)
	s.push(t, tag("good-x86_64"), small(t, "linux/amd64", 1))
	var mu sync.Mutex
	var leaked []string
	requests := 0
	storage := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		if secret := r.Header.Get("Authorization"); secret != "" {
			leaked = append(leaked, secret)
		}
		mu.Unlock()
		_, data := s.answer(r)
		w.Write(data)
	}))
	defer storage.Close()
	for name, row := range map[string]struct {
		to   func(r *http.Request) string
		want string
	}{
		"to storage": {func(r *http.Request) string { return storage.URL + r.URL.Path }, ""},
		"for ever":   {func(r *http.Request) string { return r.URL.Path }, "layer ...more than 10 redirects"},
		"nine times": {func(r *http.Request) string {
			if n := len(r.URL.RawQuery); n < 9 {
				return r.URL.Path + "?" + strings.Repeat("x", n+1)
			}
			return storage.URL + r.URL.Path
		}, ""},
		"to nowhere": {func(*http.Request) string { return "http://127.0.0.1:1/secret?key=secret" }, "layer ...: dial tcp 127.0.0.1:1: connect: connection refused (tried 4 times)"},
	} {
		t.Run(name, func(t *testing.T) {
			requests = 0
			s.become(func(w http.ResponseWriter, r *http.Request) bool {
				user, _, _ := r.BasicAuth()
				if user == "" {
					w.Header().Set("WWW-Authenticate", "Basic realm=test")
					w.WriteHeader(http.StatusUnauthorized)
					return true
				}
				if !strings.Contains(r.URL.Path, "/blobs/") || !strings.Contains(r.URL.Path, layers(t, small(t, "linux/amd64", 1))[0].Digest.Hex) {
					return false
				}
				mu.Lock()
				requests++
				mu.Unlock()
				w.Header().Set("Location", row.to(r))
				w.WriteHeader(http.StatusTemporaryRedirect)
				return true
			})
			opts := pullOptions(t, s.host(), t.TempDir(), "good-x86_64")
			opts.Credentials.JSON = login(s.host(), "s3cret")
			_, err := Pull(t.Context(), opts)
			if row.want != "" {
				wantError(t, err, row.want)
				if strings.Contains(err.Error(), "secret") {
					t.Errorf("the URL of the storage is in %v", err)
				}
			} else if err != nil {
				t.Error(err)
			}
			if requests > 4*11 {
				t.Errorf("%d requests", requests)
			}
		})
	}
	if leaked != nil {
		t.Errorf("the storage got %q", leaked)
	}
}

// login is docker's config.json with a login for a registry.
func login(host, password string) string {
	return fmt.Sprintf(`{"auths": {%q: {"username": "runner", "password": %q}}}`, host, password)
}

// A both server speaks TLS and plain http on one port, and keeps what it is asked
// in plain http.
type both struct {
	net.Listener
	mu    sync.Mutex
	plain []string
}

func (b *both) Accept() (net.Conn, error) {
	c, err := b.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &sniffed{Conn: c, r: bufio.NewReader(c), to: b}, nil
}

type sniffed struct {
	net.Conn
	r  *bufio.Reader
	to *both
}

func (s *sniffed) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if text := string(p[:n]); strings.HasPrefix(text, "GET ") {
		s.to.mu.Lock()
		s.to.plain = append(s.to.plain, text)
		s.to.mu.Unlock()
	}
	return n, err
}

// Nothing goes out in plain http after a certificate error, on loopback neither,
// and nothing unless the user has allowed it.
func TestPlainHTTP(t *testing.T) {
	s := newServer(t)
	s.push(t, tag("good-x86_64"), small(t, "linux/amd64", 1))
	secure := httptest.NewUnstartedServer(s)
	listener := &both{Listener: secure.Listener}
	secure.Listener = listener
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.StartTLS()
	defer secure.Close()
	host := secure.Listener.Addr().String()
	opts := pullOptions(t, host, t.TempDir(), "good-x86_64")
	opts.Credentials.JSON = login(host, "s3cret")
	_, err := Pull(t.Context(), opts)
	wantError(t, err, "pull "+host+"/helper: tls: failed to verify certificate: x509: ...; SSL_CERT_FILE can name a file with the certificates to trust")
	if len(listener.plain) > 0 {
		t.Errorf("asked in plain http: %q", listener.plain)
	}

	// What guards the requests, without a network: which URL is asked for.
	for _, row := range []struct {
		host   string
		marked []string
		to     string // where the registry redirects to
		want   string // the last URL, or the error
	}{
		{"r.example.com", nil, "", "https://r.example.com/v2/"},
		{"r.example.com", []string{"r.example.com"}, "", "http://r.example.com/v2/"},
		{"r.example.com:5000", []string{"r.example.com"}, "", "https://r.example.com:5000/v2/"},
		{"10.0.0.1:5000", nil, "", "https://10.0.0.1:5000/v2/"},
		{"r.example.com", nil, "https://10.0.0.2/x", "https://10.0.0.2/x"},
		{"r.example.com", nil, "http://10.0.0.2/x", "plain http to 10.0.0.2 is refused; to allow it, set PLAIN_HTTP=10.0.0.2"},
		{"r.example.com", []string{"10.0.0.2"}, "http://10.0.0.2/x", "http://10.0.0.2/x"},
		{"r.example.com", []string{"r.example.com"}, "http://10.0.0.2/x", "http://10.0.0.2/x"},
		{"r.example.com", nil, "http://r.example.com/x", "https://r.example.com/x"},
	} {
		g, err := newGuard(t.Context(), row.host, row.marked)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		g.base = roundTripper(func(r *http.Request) (*http.Response, error) {
			got = r.URL.String()
			response := &http.Response{StatusCode: http.StatusOK, Body: http.NoBody, Request: r, Header: http.Header{}}
			if row.to != "" && strings.HasSuffix(got, "/v2/") {
				response.StatusCode = http.StatusFound
				response.Header.Set("Location", row.to)
			}
			return response, nil
		})
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+row.host+"/v2/", nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := g.RoundTrip(r)
		if err != nil {
			got = explainConnection(err, row.host).Error()
			if !permanent(err) {
				t.Errorf("%s: tried again", got)
			}
		} else {
			response.Body.Close()
		}
		if got != row.want {
			t.Errorf("%s, marked %q, to %q: got %s, want %s", row.host, row.marked, row.to, got, row.want)
		}
	}
	for host, want := range map[string]bool{
		"localhost": true, "localhost:5000": true, "a.localhost": true, "127.0.0.2:1": true, "[::1]:5000": true, "[::1]": true,
		"10.0.0.1:5000": false, "example.com": false, "localhost.example.com": false, "": false,
	} {
		if got := loopback(host); got != want {
			t.Errorf("loopback(%q) is %v", host, got)
		}
	}
	if err := explainConnection(fmt.Errorf("x: %w", http.ErrSchemeMismatch), "r:5000"); !strings.Contains(err.Error(), "set PLAIN_HTTP=r:5000") {
		t.Errorf("got %v", err)
	}
}

// childVariable makes this program pull: from this registry, into the directory
// after the space.
const childVariable = "PRETAG_TEST_PULL"

// pullInChild pulls in a process of its own, as Go reads proxies and certificates
// just once.
func pullInChild(tb testing.TB, host, dir string, environ ...string) error {
	tb.Helper()
	child := exec.Command(os.Args[0], "-test.run=^TestChild$")
	child.Env = append(environ, childVariable+"="+host+" "+dir)
	output, err := child.CombinedOutput()
	if err != nil {
		line, _, _ := strings.Cut(string(output), "\n")
		return errors.New(line)
	}
	return nil
}

func TestChild(t *testing.T) {
	host, dir, is := strings.Cut(os.Getenv(childVariable), " ")
	if !is {
		return
	}
	opts := pullOptions(t, host, dir, "good-x86_64")
	opts.PlainHTTP = strings.Fields(os.Getenv("PLAIN_HTTP"))
	if _, err := Pull(t.Context(), opts); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

// SSL_CERT_FILE and HTTPS_PROXY do what they do everywhere.
func TestTLSAndProxy(t *testing.T) {
	s := newServer(t)
	s.push(t, tag("good-x86_64"), small(t, "linux/amd64", 1))
	secure := httptest.NewUnstartedServer(s)
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.StartTLS()
	defer secure.Close()
	certificate := filepath.Join(t.TempDir(), "ca.pem")
	write(t, certificate, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw}))
	// httptest's certificate is for example.com, which only the proxy can reach.
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Host == "plain.example.com" {
			s.ServeHTTP(w, r)
			return
		}
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

	dir, home := t.TempDir(), "HOME="+t.TempDir()
	throughProxy := "HTTPS_PROXY=" + proxy.URL
	err := pullInChild(t, "example.com", dir, home, throughProxy)
	wantError(t, err, "pull example.com/helper: tls: failed to verify certificate: x509: certificate signed by unknown authority")
	if err := pullInChild(t, "example.com", dir, home, throughProxy, "SSL_CERT_FILE="+certificate); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"good-x86_64.tar", "good-x86_64.tar.origin"}, names(t, dir)); diff != "" {
		t.Error(diff)
	}

	// A registry elsewhere, in plain http: only if it is marked.
	dir, throughProxy = t.TempDir(), "HTTP_PROXY="+proxy.URL
	if err := pullInChild(t, "plain.example.com", dir, home, throughProxy, "HTTPS_PROXY="+proxy.URL); err == nil {
		t.Error("asked in plain http, although it is not marked")
	}
	if err := pullInChild(t, "plain.example.com", dir, home, throughProxy, "PLAIN_HTTP=plain.example.com"); err != nil {
		t.Error(err)
	}
}
