package fetch

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"pretag/build/internal/oci"
)

const (
	// minBytes per window is the least that a server must send: net/http waits for
	// a slow or silent server without end.
	minBytes = 64 << 10
	window   = time.Minute

	// maxRedirects is the limit of net/http, which go-containerregistry lifts
	// (v0.22.1, pkg/v1/remote/fetcher.go, checkRedirectSSRF).
	maxRedirects = 10

	// maxAnswer bounds every answer but a blob, whose size is known.
	maxAnswer = oci.MaxDocument
)

// A guard is the transport below all that talks to a registry. It decides between
// https and http, follows redirects, and bounds what an answer may cost.
//
// It follows redirects itself because go-containerregistry refuses those to
// private addresses, on which the storage of an air-gapped registry is.
type guard struct {
	base   http.RoundTripper
	host   string   // of the registry
	plain  bool     // the registry is asked over http
	marked []string // hosts to which redirects may go over http
}

// newGuard returns the transport for the registry at host, which is asked over
// http only if the user has marked it, or if it is on this machine and answers a
// TLS handshake in plain http. An untrusted certificate never leads to http.
func newGuard(ctx context.Context, host string, marked []string) (*guard, error) {
	g := &guard{base: remote.DefaultTransport, host: host, plain: slices.Contains(marked, host), marked: marked}
	if g.plain || !loopback(host) {
		return g, nil
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+host+"/v2/", nil)
	if err != nil {
		return nil, err
	}
	response, err := g.RoundTrip(request)
	if err == nil {
		response.Body.Close()
	}
	g.plain = errors.Is(err, http.ErrSchemeMismatch)
	return g, nil
}

func loopback(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return host == "localhost" || strings.HasSuffix(host, ".localhost") || net.ParseIP(strings.Trim(host, "[]")).IsLoopback()
}

// errRefused is an error of the guard itself, which another try cannot change.
type errRefused struct{ error }

// send sends one request, without following redirects. How the registry is asked
// is decided here, whatever go-containerregistry tries.
func (g *guard) send(r *http.Request) (*http.Response, error) {
	if r.URL.Host == g.host {
		r = r.Clone(r.Context())
		r.URL.Scheme = "https"
		if g.plain {
			r.URL.Scheme = "http"
		}
	}
	if r.URL.Scheme != "https" && !g.plain && !slices.Contains(g.marked, r.URL.Host) {
		return nil, errRefused{fmt.Errorf("plain http to %[1]s is refused; to allow it, set PLAIN_HTTP=%[1]s", r.URL.Host)}
	}
	return g.base.RoundTrip(r)
}

// RoundTrip sends a request and follows redirects.
func (g *guard) RoundTrip(request *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(request.Context())
	body := &watched{ctx: ctx, cancel: cancel, left: maxAnswer}
	if strings.Contains(request.URL.Path, "/blobs/") {
		body.left = maxImage
	}
	go body.watch()
	client := http.Client{Transport: roundTripper(g.send), CheckRedirect: func(r *http.Request, via []*http.Request) error {
		if len(via) > maxRedirects {
			return errRefused{fmt.Errorf("more than %d redirects", maxRedirects)}
		}
		if r.URL.Scheme != via[0].URL.Scheme || r.URL.Host != via[0].URL.Host {
			r.Header.Del("Authorization") // net/http compares host names only, without the port
		}
		return nil
	}}
	response, err := client.Do(request.WithContext(ctx))
	if err != nil {
		err = body.cause(err)
		cancel(nil)
		return nil, err
	}
	body.ReadCloser, response.Body = response.Body, body
	return response, nil
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// A watched body ends its request if too little or too much comes.
type watched struct {
	io.ReadCloser
	ctx      context.Context
	cancel   context.CancelCauseFunc
	received atomic.Int64 // bytes since the window began
	left     int64        // bytes that may still come
}

var errStalled = fmt.Errorf("received less than %d bytes in %s", minBytes, window)

// watch ends the request at the end of a window in which too little has come.
func (b *watched) watch() {
	ticker := time.NewTicker(window)
	defer ticker.Stop()
	for {
		select {
		case <-b.ctx.Done():
			return
		case <-ticker.C:
			if b.received.Swap(0) < minBytes {
				b.cancel(errStalled)
			}
		}
	}
}

func (b *watched) cause(err error) error {
	if cause := context.Cause(b.ctx); cause != nil && errors.Is(err, context.Canceled) {
		return cause
	}
	return err
}

func (b *watched) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.received.Add(int64(n))
	if b.left -= int64(n); b.left < 0 {
		return 0, errRefused{fmt.Errorf("the answer has more than %d bytes", maxAnswer)}
	}
	if err != nil && err != io.EOF {
		err = b.cause(err)
	}
	return n, err
}

func (b *watched) Close() error {
	b.cancel(nil)
	return b.ReadCloser.Close()
}

// permanent reports whether another try cannot help.
func permanent(err error) bool {
	if answer := (*transport.Error)(nil); errors.As(err, &answer) {
		return answer.StatusCode < http.StatusInternalServerError &&
			answer.StatusCode != http.StatusTooManyRequests && answer.StatusCode != http.StatusRequestTimeout
	}
	var (
		untrusted *tls.CertificateVerificationError
		lookup    *net.DNSError
		onDisk    *fs.PathError // a full disk
	)
	return errors.As(err, &untrusted) || errors.As(err, &lookup) && lookup.IsNotFound || errors.As(err, &onDisk) ||
		errors.As(err, new(errRefused)) || errors.Is(err, http.ErrSchemeMismatch)
}

// explainConnection says why no answer came from host.
func explainConnection(err error, host string) error {
	var (
		untrusted *tls.CertificateVerificationError
		request   *url.Error
	)
	switch {
	case errors.As(err, &untrusted):
		return fmt.Errorf("%w; SSL_CERT_FILE can name a file with the certificates to trust", untrusted)
	case errors.Is(err, http.ErrSchemeMismatch):
		return fmt.Errorf("the registry answered an https request in plain http; to allow that, set PLAIN_HTTP=%s", host)
	}
	for errors.As(err, &request) {
		err = request.Err
	}
	return err
}
