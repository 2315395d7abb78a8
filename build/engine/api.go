package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
)

// An Image is what the engine's API reports of one image. The fields from Os on are
// set by Inspect only.
type Image struct {
	ID       string `json:"Id"`
	RepoTags []string

	Os           string
	Architecture string
	Variant      string // podman 4.3 and Docker 20.10 do not report it
	Config       struct{ Entrypoint, Cmd, Env []string }
	RootFS       struct{ Layers []string }
}

// Images lists every image in the store, also those without a tag.
func (i *Instance) Images(ctx context.Context) ([]Image, error) {
	ctx, cancel := limit(ctx, callLimit)
	defer cancel()
	var images []Image
	return images, i.getJSON(ctx, "/images/json", &images)
}

// Inspect looks an image up as GitLab Runner does.
func (i *Instance) Inspect(ctx context.Context, reference string) (Image, error) {
	ctx, cancel := limit(ctx, callLimit)
	defer cancel()
	var image Image
	return image, i.getJSON(ctx, "/images/"+reference+"/json", &image)
}

// Export passes the image to read as a docker-archive that the engine makes from its store.
func (i *Instance) Export(ctx context.Context, reference string, read func(io.Reader) error) error {
	ctx, cancel := limit(ctx, imageLimit)
	defer cancel()
	return i.call(ctx, http.MethodGet, "/images/"+reference+"/get", nil, nil, read)
}

// Clear removes every image.
func (i *Instance) Clear(ctx context.Context) error {
	images, err := i.Images(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := limit(ctx, imageLimit)
	defer cancel()
	for _, image := range images {
		if err := i.call(ctx, http.MethodDelete, "/images/"+image.ID, url.Values{"force": {"true"}}, nil, discard); err != nil {
			return err
		}
	}
	return nil
}

// Tag gives an image one more name.
func (i *Instance) Tag(ctx context.Context, reference, repository, tag string) error {
	ctx, cancel := limit(ctx, callLimit)
	defer cancel()
	return i.call(ctx, http.MethodPost, "/images/"+reference+"/tag", url.Values{"repo": {repository}, "tag": {tag}}, nil, discard)
}

// Remove removes a name of an image, and the image with its last name.
func (i *Instance) Remove(ctx context.Context, reference string) error {
	ctx, cancel := limit(ctx, imageLimit)
	defer cancel()
	return i.call(ctx, http.MethodDelete, "/images/"+reference, nil, nil, discard)
}

// ClearContainers removes every container and every volume.
func (i *Instance) ClearContainers(ctx context.Context) error {
	ctx, cancel := limit(ctx, imageLimit)
	defer cancel()
	var containers []struct {
		ID string `json:"Id"`
	}
	if err := i.call(ctx, http.MethodGet, "/containers/json", url.Values{"all": {"true"}}, nil, into(&containers)); err != nil {
		return err
	}
	for _, c := range containers {
		if err := i.call(ctx, http.MethodDelete, "/containers/"+c.ID, url.Values{"force": {"true"}, "v": {"true"}}, nil, discard); err != nil {
			return err
		}
	}
	var volumes struct{ Volumes []struct{ Name string } }
	if err := i.getJSON(ctx, "/volumes", &volumes); err != nil {
		return err
	}
	for _, v := range volumes.Volumes {
		if err := i.call(ctx, http.MethodDelete, "/volumes/"+v.Name, url.Values{"force": {"true"}}, nil, discard); err != nil {
			return err
		}
	}
	return nil
}

// call makes one request and passes the body of the response to read. A response
// that reports an error is an error with the engine's message.
func (i *Instance) call(ctx context.Context, method, path string, query url.Values, body io.Reader, read func(io.Reader) error) error {
	u := url.URL{Scheme: "http", Host: "engine", Path: i.prefix + path, RawQuery: query.Encode()}
	request, err := http.NewRequestWithContext(ctx, method, u.String(), body)
	if err != nil {
		return err
	}
	if body != nil {
		// podman refuses an import without it (podman 4.3, pkg/api/handlers/compat/images.go).
		request.Header.Set("Content-Type", "application/x-tar")
	}
	response, err := i.api.Do(request)
	if err != nil {
		return i.explain(ctx, method, path, err)
	}
	defer response.Body.Close()
	if response.StatusCode >= http.StatusBadRequest {
		var message struct{ Message string }
		text, err := io.ReadAll(io.LimitReader(response.Body, 1<<16))
		if err == nil && json.Unmarshal(text, &message) != nil {
			message.Message = string(text)
		}
		return fmt.Errorf("%s %s: %s: %w", method, path, response.Status, i.tidy(errors.New(strings.TrimSpace(message.Message))))
	}
	if err := read(response.Body); err != nil {
		return i.explain(ctx, method, path, err)
	}
	return nil
}

func (i *Instance) explain(ctx context.Context, method, path string, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	return fmt.Errorf("%s %s: %w", method, path, err)
}

func (i *Instance) getJSON(ctx context.Context, path string, v any) error {
	return i.call(ctx, http.MethodGet, path, nil, nil, into(v))
}

// into returns a reader of JSON for call.
func into(v any) func(io.Reader) error {
	return func(r io.Reader) error { return json.NewDecoder(r).Decode(v) }
}

func discard(r io.Reader) error {
	_, err := io.Copy(io.Discard, r)
	return err
}
