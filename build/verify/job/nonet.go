package job

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
)

// withoutNetwork passes requests from a new socket on to an engine's socket,
// with one change: a container for which the client chooses no network gets none.
//
// GitLab Runner prepares volumes in containers whose network cannot be
// configured, and podman as a plain user cannot give them one without
// slirp4netns or pasta (GitLab Runner v17.9.0,
// executors/docker/internal/volumes/permission). They do not use it.
func withoutNetwork(ctx context.Context, engine, socket string) (*http.Server, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "unix", socket)
	if err != nil {
		return nil, err
	}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(&url.URL{Scheme: "http", Host: "engine"}) },
		Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", engine)
		}},
		FlushInterval: -1, // answers to attach and events are streams
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/containers/create") {
			body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			body = chooseNone(body)
			r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
		}
		proxy.ServeHTTP(w, r)
	})}
	go server.Serve(listener) // ends with Close
	return server, nil
}

// chooseNone sets the network of a request to create a container, if it has
// none. A body that is not such a request stays as it is: the engine will say so.
func chooseNone(body []byte) []byte {
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.UseNumber()
	var request map[string]any
	if decoder.Decode(&request) != nil || request == nil {
		return body
	}
	config, _ := request["HostConfig"].(map[string]any)
	if config == nil {
		config = map[string]any{}
		request["HostConfig"] = config
	}
	if mode, _ := config["NetworkMode"].(string); mode != "" && mode != "default" {
		return body
	}
	config["NetworkMode"] = "none"
	changed, err := json.Marshal(request)
	if err != nil {
		return body
	}
	return changed
}
