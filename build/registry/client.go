package registry

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// tries is how often a request is made before it is given up.
const tries = 4

// A client talks to one repository, logged in.
type client struct {
	repository name.Repository
	transport  http.RoundTripper
	wait       time.Duration
}

// connect finds out how the registry wants to be talked to and logs in.
func connect(ctx context.Context, repository name.Repository, opts Options) (*client, error) {
	c := &client{repository: repository, wait: opts.Wait}
	if c.wait == 0 {
		c.wait = time.Second
	}
	base := &stallGuard{remote.DefaultTransport, opts.Stall}
	if base.limit == 0 {
		base.limit = time.Minute
	}
	auth, err := authn.Resolve(ctx, authn.DefaultKeychain, repository)
	if err != nil {
		return nil, fmt.Errorf("credentials: %w", err)
	}
	err = c.retry(ctx, func() (err error) {
		c.transport, err = transport.NewWithContext(ctx, repository.Registry, auth,
			transport.NewUserAgent(base, "pretag"), []string{repository.Scope(transport.PullScope)})
		return err
	})
	return c, err
}

// again is an error that another try may mend, beside those of requests.
type again struct{ error }

func (e again) Unwrap() error { return e.error }

// retry does what it is given until that succeeds, fails for good, or has been tried enough.
func (c *client) retry(ctx context.Context, do func() error) error {
	wait := c.wait
	for try := 1; ; try++ {
		err := do()
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case !temporary(err):
			return c.explain(err)
		case try == tries:
			return fmt.Errorf("%w (tried %d times)", c.explain(err), tries)
		}
		select {
		case <-time.After(wait):
			wait *= 2
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func temporary(err error) bool {
	if answer := (*transport.Error)(nil); errors.As(err, &answer) {
		return answer.StatusCode >= http.StatusInternalServerError ||
			answer.StatusCode == http.StatusTooManyRequests || answer.StatusCode == http.StatusRequestTimeout
	}
	var (
		untrusted *tls.CertificateVerificationError
		lookup    *net.DNSError
		request   *url.Error
	)
	if errors.As(err, &untrusted) || errors.As(err, &lookup) && lookup.IsNotFound {
		return false
	}
	return errors.As(err, &request) || errors.As(err, new(again))
}

// explain says of a registry's answer what a person can do with it. Addresses
// of requests are left out: the reference is named already, and those of
// storage behind a registry carry secrets.
func (c *client) explain(err error) error {
	answer := (*transport.Error)(nil)
	if !errors.As(err, &answer) {
		if request, ok := err.(*url.Error); ok {
			return request.Err
		}
		return err
	}
	text := fmt.Sprintf("%d %s", answer.StatusCode, http.StatusText(answer.StatusCode))
	for _, detail := range answer.Errors {
		text += ": " + detail.Message
	}
	switch answer.StatusCode {
	case http.StatusUnauthorized, http.StatusForbidden:
		text += fmt.Sprintf(" (credentials: docker login %[1]s, or podman login %[1]s)", c.repository.RegistryStr())
	}
	return errors.New(text)
}

// manifest fetches the manifest or index that identifier, a tag or a digest, names.
func (c *client) manifest(ctx context.Context, identifier string) (d *remote.Descriptor, err error) {
	var ref name.Reference = c.repository.Tag(identifier)
	if _, err := v1.NewHash(identifier); err == nil {
		ref = c.repository.Digest(identifier)
	}
	err = c.retry(ctx, func() (err error) {
		d, err = remote.Get(ref, remote.WithContext(ctx), remote.WithTransport(c.transport))
		return err
	})
	return d, err
}

// blob makes the file at path hold the blob of descriptor d, going on from what
// it holds already. Whatever the error, what has come stays there for the next
// time. progress gets the number of bytes that are there.
func (c *client) blob(ctx context.Context, d v1.Descriptor, path string, progress func(int64)) (err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	err = c.retry(ctx, func() error { return c.resume(ctx, d, f, progress) })
	if err != nil {
		return fmt.Errorf("blob %s: %w", d.Digest, err)
	}
	return nil
}

// resume is one try of blob.
func (c *client) resume(ctx context.Context, d v1.Descriptor, f *os.File, progress func(int64)) error {
	hash := sha256.New()
	restart := func() error {
		hash.Reset()
		_, err := f.Seek(0, io.SeekStart)
		return errors.Join(err, f.Truncate(0))
	}
	check := func() error {
		if got := hex.EncodeToString(hash.Sum(nil)); got != d.Digest.Hex {
			return fmt.Errorf("got digest sha256:%s", got)
		}
		return nil
	}

	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	have, err := io.Copy(hash, f)
	if err != nil {
		return err
	}
	if have == d.Size && check() == nil {
		progress(have)
		return nil
	}
	if have >= d.Size {
		if err := restart(); err != nil {
			return err
		}
		have = 0
	}

	response, err := c.get(ctx, d.Digest, have)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if have > 0 && response.StatusCode == http.StatusOK { // the whole, though asked for the rest
		if err := restart(); err != nil {
			return err
		}
		have = 0
	}
	resumed := have > 0

	body := &meter{Reader: response.Body, count: have, report: progress}
	n, err := io.Copy(io.MultiWriter(f, hash), io.LimitReader(body, d.Size-have+1))
	switch have += n; {
	case err != nil:
		return err
	case have < d.Size:
		return again{io.ErrUnexpectedEOF}
	case have > d.Size:
		err = fmt.Errorf("longer than the %d bytes that the manifest says", d.Size)
	default:
		err = check()
	}
	if err == nil {
		return nil
	}
	if err := restart(); err != nil {
		return err
	}
	if resumed { // the fault may lie in what an earlier run has left
		return again{err}
	}
	return err
}

// get asks for a blob from the given byte on. The answer holds just that, or
// the whole.
func (c *client) get(ctx context.Context, digest v1.Hash, from int64) (*http.Response, error) {
	u := url.URL{
		Scheme: c.repository.Scheme(),
		Host:   c.repository.RegistryStr(),
		Path:   fmt.Sprintf("/v2/%s/blobs/%s", c.repository.RepositoryStr(), digest),
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	if from > 0 {
		request.Header.Set("Range", fmt.Sprintf("bytes=%d-", from))
	}
	response, err := (&http.Client{Transport: c.transport}).Do(request)
	if err != nil {
		return nil, err
	}
	err = transport.CheckError(response, http.StatusOK, http.StatusPartialContent)
	if response.StatusCode == http.StatusPartialContent &&
		!strings.HasPrefix(response.Header.Get("Content-Range"), fmt.Sprintf("bytes %d-", from)) {
		err = fmt.Errorf("asked for the bytes from %d on, got Content-Range %q", from, response.Header.Get("Content-Range"))
	}
	if err != nil {
		response.Body.Close()
		return nil, err
	}
	return response, nil
}

// A meter reports how many bytes have been read. Errors of its reader are worth
// another try: they are the network's.
type meter struct {
	io.Reader
	count  int64
	report func(int64)
}

func (m *meter) Read(p []byte) (int, error) {
	n, err := m.Reader.Read(p)
	m.count += int64(n)
	m.report(m.count)
	if err != nil && err != io.EOF {
		err = again{err}
	}
	return n, err
}

// A stallGuard ends requests for which nothing has come for the limit: net/http
// waits for a silent peer for ever.
type stallGuard struct {
	base  http.RoundTripper
	limit time.Duration
}

func (g *stallGuard) RoundTrip(request *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(request.Context())
	stalled := fmt.Errorf("nothing received for %s", g.limit)
	body := &guardedBody{limit: g.limit, cancel: cancel}
	body.timer = time.AfterFunc(g.limit, func() { cancel(stalled) })
	body.cause = func(err error) error {
		if context.Cause(ctx) == stalled {
			return stalled
		}
		return err
	}
	response, err := g.base.RoundTrip(request.WithContext(ctx))
	if err != nil {
		body.timer.Stop()
		err = body.cause(err)
		cancel(nil)
		return nil, err
	}
	body.ReadCloser, response.Body = response.Body, body
	return response, nil
}

type guardedBody struct {
	io.ReadCloser
	limit  time.Duration
	timer  *time.Timer
	cancel context.CancelCauseFunc
	cause  func(error) error
}

func (b *guardedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.timer.Reset(b.limit)
	if err != nil && err != io.EOF {
		err = b.cause(err)
	}
	return n, err
}

func (b *guardedBody) Close() error {
	b.timer.Stop()
	b.cancel(nil)
	return b.ReadCloser.Close()
}
