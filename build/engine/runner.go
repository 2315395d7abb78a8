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

// RunnerLoad loads a docker-archive as GitLab Runner 17.9 and later does: load,
// take the image's name from the answer, tag it as repository:tag (GitLab
// Runner v18.2.0 and v19.3.0, executors/docker/internal/prebuilt/prebuilt.go, imageLoad).
func (i *Instance) RunnerLoad(ctx context.Context, archive io.Reader, repository, tag string) error {
	var name string
	err := i.call(ctx, http.MethodPost, "/images/load", url.Values{"quiet": {"1"}}, archive, func(r io.Reader) (err error) {
		if name, err = loadedImage(r); err != nil {
			return err
		}
		// Runner, too, reads a little more after it has the name.
		return discard(io.LimitReader(r, 1024))
	})
	if err != nil {
		return err
	}
	return i.Tag(ctx, name, repository, tag)
}

// loadedImage reads the answer to /images/load as GitLab Runner does: a stream
// of JSON objects, of which the first whose "stream" says "Loaded image:" or
// "Loaded image ID:" names the image, whatever follows it. Runner ignores what the
// engine reports as "error", and then finds no name; here it is in the error.
func loadedImage(r io.Reader) (string, error) {
	var event struct{ Stream, Error string }
	for decoder := json.NewDecoder(r); decoder.More(); {
		if err := decoder.Decode(&event); err != nil {
			return "", fmt.Errorf("the engine's answer: %w", err)
		}
		for _, prefix := range []string{"Loaded image:", "Loaded image ID:"} {
			if !strings.Contains(event.Stream, prefix) {
				continue
			}
			if name := strings.TrimSpace(strings.TrimPrefix(event.Stream, prefix)); name != "" {
				return name, nil
			}
			break
		}
	}
	if event.Error != "" {
		return "", errors.New(event.Error)
	}
	return "", errors.New("the engine's answer names no loaded image")
}
