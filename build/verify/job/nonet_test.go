package job

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
)

func TestChooseNone(t *testing.T) {
	for body, want := range map[string]string{
		`{"Image":"a","HostConfig":{"Memory":12345678901234567890}}`: `{"HostConfig":{"Memory":12345678901234567890,"NetworkMode":"none"},"Image":"a"}`,
		`{"HostConfig":{"NetworkMode":"default"}}`:                   `{"HostConfig":{"NetworkMode":"none"}}`,
		`{"Image":"a"}`: `{"HostConfig":{"NetworkMode":"none"},"Image":"a"}`,
		`{"HostConfig": {"NetworkMode": "bridge"}}`: `{"HostConfig": {"NetworkMode": "bridge"}}`,
		`null`: `null`, `[]`: `[]`, `not JSON`: `not JSON`, ``: ``,
	} {
		if got := string(chooseNone([]byte(body))); got != want {
			t.Errorf("%s: got %s, want %s", body, got, want)
		}
	}
}

// Requests reach the engine, a container to create with its network, and a
// stream of both directions can be closed in one: a script ends, its output follows.
func TestWithoutNetwork(t *testing.T) {
	dir := t.TempDir()
	engine, socket := filepath.Join(dir, "engine"), filepath.Join(dir, "proxy")
	listener, err := net.Listen("unix", engine)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/v1.41/containers/create", func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) })
	mux.HandleFunc("/v1.41/containers/1/attach", func(w http.ResponseWriter, _ *http.Request) {
		conn, stream, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		fmt.Fprint(conn, "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
		script, err := io.ReadAll(stream)
		fmt.Fprintf(conn, "ran %s, %v", script, err)
	})
	server := &http.Server{Handler: mux}
	go server.Serve(listener)
	defer server.Close()
	proxy, err := withoutNetwork(t.Context(), engine, socket)
	if err != nil {
		t.Fatal(err)
	}
	defer proxy.Close()

	client := http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
		return net.Dial("unix", socket)
	}}}
	response, err := client.Post("http://engine/v1.41/containers/create?name=a", "application/json", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if got, err := io.ReadAll(response.Body); err != nil || string(got) != `{"HostConfig":{"NetworkMode":"none"}}` {
		t.Errorf("the engine got %s, %v", got, err)
	}

	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "POST /v1.41/containers/1/attach HTTP/1.1\r\nHost: engine\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
	reader := bufio.NewReader(conn)
	upgraded, err := http.ReadResponse(reader, nil)
	if err != nil || upgraded.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("attach: %v, %v", upgraded, err)
	}
	fmt.Fprint(conn, "script")
	if err := conn.(*net.UnixConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(reader); err != nil || string(got) != "ran script, <nil>" {
		t.Errorf("attach returned %q, %v", got, err)
	}
}
