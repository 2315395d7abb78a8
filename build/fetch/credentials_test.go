package fetch

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
)

// TestMain makes this program a credential helper if it is called like one.
func TestMain(m *testing.M) {
	if helper, is := strings.CutPrefix(filepath.Base(os.Args[0]), "docker-credential-"); is {
		server, _ := bufio.NewReader(os.Stdin).ReadString('\n')
		switch helper {
		case "good":
			fmt.Printf(`{"ServerURL": %q, "Username": "runner", "Secret": "s3cret"}`, server)
		case "token":
			fmt.Print(`{"Username": "<token>", "Secret": "s3cret"}`)
		case "none":
			fmt.Println("credentials not found in native keychain")
			os.Exit(1)
		case "broken":
			fmt.Println("the password is s3cret")
			fmt.Fprintln(os.Stderr, "the password is s3cret")
			os.Exit(3)
		case "text":
			fmt.Println("s3cret")
		case "flood":
			for line := strings.Repeat("s3cret ", 1000); ; {
				if _, err := fmt.Println(line); err != nil {
					os.Exit(1)
				}
			}
		case "slow":
			time.Sleep(time.Hour)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// helperPrograms puts the credential helpers into PATH.
func helperPrograms(t *testing.T) {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, helper := range []string{"good", "token", "none", "broken", "text", "flood", "slow"} {
		if err := os.Symlink(program, filepath.Join(dir, "docker-credential-"+helper)); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir)
}

// A credential helper has limits, and nothing that it prints is shown.
func TestCredentialHelper(t *testing.T) {
	helperPrograms(t)
	for helper, row := range map[string]struct {
		want  authn.AuthConfig
		error string
	}{
		"good":    {authn.AuthConfig{Username: "runner", Password: "s3cret"}, ""},
		"token":   {authn.AuthConfig{IdentityToken: "s3cret"}, ""},
		"none":    {},
		"broken":  {error: "docker-credential-broken: exit status 3 (what it printed is not shown)"},
		"text":    {error: "docker-credential-text: its answer is not JSON"},
		"flood":   {error: "docker-credential-flood: prints more than 1048576 bytes"},
		"slow":    {error: "docker-credential-slow: no answer within 200ms"},
		"missing": {error: `docker-credential-missing: exec: "docker-credential-missing": executable file not found in $PATH`},
	} {
		limit := time.Minute
		if helper == "slow" {
			limit = 200 * time.Millisecond
		}
		found, err := ask(t.Context(), "docker-credential-"+helper, "registry.example.com", limit)
		if row.error != "" {
			wantError(t, err, row.error)
			if strings.Contains(err.Error(), "s3cret") {
				t.Errorf("%s: what it prints is in the error: %v", helper, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", helper, err)
			continue
		}
		var got authn.AuthConfig
		if found != nil {
			config, err := found.Authorization()
			if err != nil {
				t.Fatal(err)
			}
			got = *config
		}
		got.Auth = ""
		if diff := cmp.Diff(row.want, got); diff != "" {
			t.Errorf("%s: %s", helper, diff)
		}
	}
}

// Logins are looked for where docker and podman keep them.
func TestCredentialsFrom(t *testing.T) {
	for _, row := range []struct {
		environ map[string]string
		want    Credentials
	}{
		{nil, Credentials{}},
		{map[string]string{"HOME": "/h"}, Credentials{Files: []string{"/h/.docker/config.json", "/h/.config/containers/auth.json"}}},
		{map[string]string{
			"HOME": "/h", "DOCKER_CONFIG": "/d", "REGISTRY_AUTH_FILE": "/r.json", "XDG_RUNTIME_DIR": "/x", "XDG_CONFIG_HOME": "/c", "DOCKER_AUTH_CONFIG": "{}",
		}, Credentials{JSON: "{}", Files: []string{"/d/config.json", "/r.json", "/x/containers/auth.json", "/c/containers/auth.json"}}},
	} {
		if diff := cmp.Diff(row.want, CredentialsFrom(func(name string) string { return row.environ[name] })); diff != "" {
			t.Errorf("%v: %s", row.environ, diff)
		}
	}
}

func TestCredentialsFind(t *testing.T) {
	helperPrograms(t)
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		write(t, path, []byte(text))
		return path
	}
	other := file("other.json", login("other.example.com", "wrong"))
	mine := file("mine.json", login("registry.example.com", "s3cret"))
	for name, row := range map[string]struct {
		repository  string
		credentials Credentials
		want        string // user:password
		error       string
	}{
		"no place":            {"registry.example.com/x", Credentials{}, "", ""},
		"missing files":       {"registry.example.com/x", Credentials{Files: []string{"/nowhere/a", "/nowhere/b"}}, "", ""},
		"second file":         {"registry.example.com/x", Credentials{Files: []string{"/nowhere/a", other, mine}}, "runner:s3cret", ""},
		"variable first":      {"registry.example.com/x", Credentials{login("registry.example.com", "var"), []string{mine}}, "runner:var", ""},
		"variable of another": {"registry.example.com/x", Credentials{login("other.example.com", "var"), []string{mine}}, "runner:s3cret", ""},
		"auth": {"registry.example.com/x", Credentials{JSON: `{"auths": {"https://registry.example.com/v1/": {"auth": "` +
			base64.StdEncoding.EncodeToString([]byte("runner:s3cret")) + `"}}}`}, "runner:s3cret", ""},
		"docker hub, docker's key": {"index.docker.io/a/b", Credentials{JSON: login("https://index.docker.io/v1/", "s3cret")}, "runner:s3cret", ""},
		"docker hub, podman's key": {"index.docker.io/a/b", Credentials{JSON: login("docker.io", "s3cret")}, "runner:s3cret", ""},
		"repository":               {"registry.example.com/x", Credentials{JSON: login("registry.example.com/x", "s3cret")}, "runner:s3cret", ""},
		"helper":                   {"registry.example.com/x", Credentials{JSON: `{"credHelpers": {"registry.example.com": "good"}}`}, "runner:s3cret", ""},
		"helper for all":           {"registry.example.com/x", Credentials{JSON: `{"credsStore": "good"}`}, "runner:s3cret", ""},
		"helper has none":          {"registry.example.com/x", Credentials{`{"credsStore": "none"}`, []string{mine}}, "runner:s3cret", ""},
		"helper fails":             {"registry.example.com/x", Credentials{JSON: `{"credsStore": "broken"}`}, "", "DOCKER_AUTH_CONFIG: docker-credential-broken: exit status 3 (what it printed is not shown)"},
		"not JSON":                 {"registry.example.com/x", Credentials{JSON: `s3cret`}, "", "DOCKER_AUTH_CONFIG: not the JSON of docker's config.json"},
		"file is not JSON":         {"registry.example.com/x", Credentials{Files: []string{file("bad.json", `{"auths": "s3cret"}`)}}, "", filepath.Join(dir, "bad.json") + ": not the JSON of docker's config.json"},
		"a huge file":              {"registry.example.com/x", Credentials{Files: []string{file("huge.json", strings.Repeat(" ", maxLogins+1))}}, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			repository, err := parseName(row.repository)
			if err != nil {
				t.Fatal(err)
			}
			found, err := row.credentials.find(t.Context(), repository)
			if row.error != "" {
				wantError(t, err, row.error)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			config, err := found.Authorization()
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			if config.Username != "" {
				got = config.Username + ":" + config.Password
			}
			if got != row.want {
				t.Errorf("got %q, want %q", got, row.want)
			}
		})
	}
}

func parseName(repository string) (name.Repository, error) {
	return name.NewRepository(repository, name.StrictValidation)
}

// The login goes to a registry that asks for it, by basic and by token authentication.
func TestPullLogsIn(t *testing.T) {
	s := newServer(t)
	s.push(t, tag("good-x86_64"), small(t, "linux/amd64", 1))
	basic := func(w http.ResponseWriter, r *http.Request) bool {
		if user, password, _ := r.BasicAuth(); user == "runner" && password == "s3cret" {
			return false
		}
		w.Header().Set("WWW-Authenticate", "Basic realm=test")
		w.WriteHeader(http.StatusUnauthorized)
		return true
	}
	token := func(w http.ResponseWriter, r *http.Request) bool {
		switch {
		case r.URL.Path == "/token":
			if user, password, _ := r.BasicAuth(); user != "runner" || password != "s3cret" {
				w.WriteHeader(http.StatusUnauthorized)
			} else if r.URL.Query().Get("scope") == "repository:helper:pull" {
				fmt.Fprint(w, `{"token": "opensesame"}`)
			}
			return true
		case r.Header.Get("Authorization") != "Bearer opensesame":
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token",service="test"`, s.host()))
			w.WriteHeader(http.StatusUnauthorized)
			return true
		}
		return false
	}
	for kind, instead := range map[string]func(http.ResponseWriter, *http.Request) bool{"basic": basic, "token": token} {
		for name, json := range map[string]string{"none": "", "wrong": login(s.host(), "guess"), "right": login(s.host(), "s3cret")} {
			t.Run(kind+" "+name, func(t *testing.T) {
				s.become(instead)
				opts := pullOptions(t, s.host(), t.TempDir(), "good-x86_64")
				opts.Credentials.JSON = json
				_, err := Pull(t.Context(), opts)
				if name == "right" {
					if err != nil {
						t.Error(err)
					}
					return
				}
				wantError(t, err, "pull "+s.host()+"/helper...401 Unauthorized...(log in with docker login "+s.host()+", or podman login "+s.host()+")")
				if strings.Contains(err.Error(), "guess") {
					t.Errorf("the password is in %v", err)
				}
				if left := names(t, opts.Dir); len(left) > 0 {
					t.Errorf("left behind: %q", left)
				}
			})
		}
	}
}
