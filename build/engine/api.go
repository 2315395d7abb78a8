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
	var images []Image
	err := i.getJSON(ctx, "/images/json", nil, &images)
	return images, err
}

// Inspect looks an image up as GitLab Runner does.
func (i *Instance) Inspect(ctx context.Context, reference string) (Image, error) {
	var image Image
	err := i.getJSON(ctx, "/images/"+reference+"/json", nil, &image)
	return image, err
}

// Export passes the image to read as a docker-archive that the engine makes from its store.
func (i *Instance) Export(ctx context.Context, reference string, read func(io.Reader) error) error {
	return i.call(ctx, http.MethodGet, "/images/"+reference+"/get", nil, nil, read)
}

// Clear removes every image.
func (i *Instance) Clear(ctx context.Context) error {
	return i.removeAll(ctx, "/images", nil, url.Values{"force": {"true"}})
}

// removeAll removes everything of a kind that the API lists.
func (i *Instance) removeAll(ctx context.Context, kind string, list, remove url.Values) error {
	var all []struct {
		ID string `json:"Id"`
	}
	if err := i.getJSON(ctx, kind+"/json", list, &all); err != nil {
		return err
	}
	for _, one := range all {
		if err := i.delete(ctx, kind+"/"+one.ID, remove); err != nil {
			return err
		}
	}
	return nil
}

// Tag gives an image one more name.
func (i *Instance) Tag(ctx context.Context, reference, repository, tag string) error {
	return i.call(ctx, http.MethodPost, "/images/"+reference+"/tag", url.Values{"repo": {repository}, "tag": {tag}}, nil, discard)
}

// Remove removes a name of an image, and the image with its last name.
func (i *Instance) Remove(ctx context.Context, reference string) error {
	return i.delete(ctx, "/images/"+reference, nil)
}

// ClearContainers removes every container and every volume.
func (i *Instance) ClearContainers(ctx context.Context) error {
	if err := i.removeAll(ctx, "/containers", url.Values{"all": {"true"}}, url.Values{"force": {"true"}, "v": {"true"}}); err != nil {
		return err
	}
	var volumes struct{ Volumes []struct{ Name string } }
	if err := i.getJSON(ctx, "/volumes", nil, &volumes); err != nil {
		return err
	}
	for _, v := range volumes.Volumes {
		if err := i.delete(ctx, "/volumes/"+v.Name, url.Values{"force": {"true"}}); err != nil {
			return err
		}
	}
	return nil
}

func (i *Instance) delete(ctx context.Context, path string, query url.Values) error {
	return i.call(ctx, http.MethodDelete, path, query, nil, discard)
}

// call makes one request and passes the body of the response to read. A response
// that reports an error is an error with the engine's message.
func (i *Instance) call(ctx context.Context, method, path string, query url.Values, body io.Reader, read func(io.Reader) error) error {
	ctx, cancel := limit(ctx, imageLimit)
	defer cancel()
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

func (i *Instance) getJSON(ctx context.Context, path string, query url.Values, v any) error {
	return i.call(ctx, http.MethodGet, path, query, nil, func(r io.Reader) error { return json.NewDecoder(r).Decode(v) })
}

func discard(r io.Reader) error {
	_, err := io.Copy(io.Discard, r)
	return err
}
