package fetch

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/docker/cli/cli/config/configfile"
	"github.com/docker/cli/cli/config/credentials"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
)

// Credentials say where the logins for registries are.
type Credentials struct {
	JSON  string   // the content of docker's config.json, which comes before the files; "" for none
	Files []string // in the order to look; those that do not exist are left out
}

// CredentialsFrom returns where docker, and after it podman, keeps the logins
// (docker/cli v29, cli/config; containers-auth.json(5)).
func CredentialsFrom(getenv func(string) string) Credentials {
	c := Credentials{JSON: getenv("DOCKER_AUTH_CONFIG")}
	for _, place := range []struct{ dir, file string }{
		{cmp.Or(getenv("DOCKER_CONFIG"), below(getenv("HOME"), ".docker")), "config.json"},
		{getenv("REGISTRY_AUTH_FILE"), ""},
		{getenv("XDG_RUNTIME_DIR"), "containers/auth.json"},
		{cmp.Or(getenv("XDG_CONFIG_HOME"), below(getenv("HOME"), ".config")), "containers/auth.json"},
	} {
		if file := below(place.dir, place.file); file != "" {
			c.Files = append(c.Files, file)
		}
	}
	return c
}

func below(dir, file string) string {
	if dir == "" {
		return ""
	}
	return filepath.Join(dir, file)
}

// maxLogins bounds a file with logins, and what a credential helper prints, in bytes.
const maxLogins = 1 << 20

// find returns the login for the repository: the first that any of the places has.
// What the places hold is not shown in errors.
func (c Credentials) find(ctx context.Context, repository name.Repository) (authn.Authenticator, error) {
	login, err := logins(ctx, strings.NewReader(cmp.Or(c.JSON, "{}")), repository)
	if err != nil {
		return nil, fmt.Errorf("DOCKER_AUTH_CONFIG: %w", err)
	}
	for _, file := range c.Files {
		if login != nil {
			return login, nil
		}
		f, err := os.Open(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		login, err = logins(ctx, f, repository)
		f.Close()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
	}
	if login == nil {
		return authn.Anonymous, nil
	}
	return login, nil
}

// logins looks for the login in one place; nil if it is not there.
func logins(ctx context.Context, place io.Reader, repository name.Repository) (authn.Authenticator, error) {
	config := configfile.New("")
	if err := config.LoadFromReader(io.LimitReader(place, maxLogins)); err != nil {
		return nil, errors.New("not the JSON of docker's config.json")
	}
	keys := []string{repository.String(), repository.RegistryStr()}
	if repository.RegistryStr() == name.DefaultRegistry {
		keys = append(keys, authn.DefaultAuthKey, "docker.io") // docker's key, podman's key
	}
	for _, key := range keys {
		if helper := cmp.Or(config.CredentialHelpers[key], config.CredentialsStore); helper != "" {
			login, err := ask(ctx, "docker-credential-"+helper, key, helperTime)
			if login != nil || err != nil {
				return login, err
			}
		}
		found, err := credentials.NewFileStore(config).Get(key)
		if err != nil {
			return nil, errors.New("not the JSON of docker's config.json")
		}
		login := authn.AuthConfig{
			Username: found.Username, Password: found.Password, IdentityToken: found.IdentityToken, RegistryToken: found.RegistryToken,
		}
		if login != (authn.AuthConfig{}) {
			return authn.FromConfig(login), nil
		}
	}
	return nil, nil
}

// helperTime is how long a credential helper may take: it may ask the network.
const helperTime = time.Minute

// What a credential helper prints if it has no login, and the user name of an
// identity token (docker/docker-credential-helpers v0.9.3, credentials/error.go
// and client/command.go).
const (
	noLogin   = "credentials not found in native keychain"
	tokenUser = "<token>"
)

// ask asks a credential helper for the login for server; nil if it has none.
// What a helper prints may be a secret and is not shown.
func ask(ctx context.Context, helper, server string, limit time.Duration) (authn.Authenticator, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("no answer within %s", limit))
	defer cancel()
	command := exec.CommandContext(ctx, helper, "get")
	command.Stdin = strings.NewReader(server)
	command.WaitDelay = time.Second // for what it has started and left behind
	var answer short
	command.Stdout = &answer
	switch err := command.Run(); {
	case ctx.Err() != nil:
		return nil, fmt.Errorf("%s: %w", helper, context.Cause(ctx))
	case answer.tooLong:
		return nil, fmt.Errorf("%s: prints more than %d bytes", helper, maxLogins)
	case err != nil && strings.TrimSpace(answer.kept.String()) == noLogin:
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("%s: %w (what it printed is not shown)", helper, err)
	}
	var login struct{ Username, Secret string }
	if err := json.Unmarshal(answer.kept.Bytes(), &login); err != nil {
		return nil, fmt.Errorf("%s: its answer is not JSON", helper)
	}
	if login.Username == tokenUser {
		return authn.FromConfig(authn.AuthConfig{IdentityToken: login.Secret}), nil
	}
	return authn.FromConfig(authn.AuthConfig{Username: login.Username, Password: login.Secret}), nil
}

// short keeps at most maxLogins bytes. A write beyond is an error, which closes
// the pipe that it comes through.
type short struct {
	kept    bytes.Buffer
	tooLong bool
}

func (s *short) Write(p []byte) (int, error) {
	if s.kept.Len()+len(p) > maxLogins {
		s.tooLong = true
		return 0, io.ErrShortWrite
	}
	return s.kept.Write(p)
}
