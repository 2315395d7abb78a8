package verify

import (
	"context"
	"fmt"
	"io"
	"path"
	"runtime"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"pretag/build/archive"
)

// empty lists what is left in the store that should be empty.
func (run engineRun) empty(ctx context.Context) []string {
	images, err := run.Images(ctx)
	problems := lines(err)
	for _, got := range images {
		problems = append(problems, fmt.Sprintf("image %s %q is in the store after a refusal", got.ID, got.RepoTags))
	}
	return problems
}

// compare lists what is wrong in a store that should hold im and nothing else:
// exactly one image with exactly one tag, and its config.
func (run engineRun) compare(ctx context.Context, im expected) []string {
	images, err := run.Images(ctx)
	if err != nil {
		return lines(err)
	}
	var problems []string
	if len(images) != 1 {
		problems = append(problems, fmt.Sprintf("%d images in the store, want 1", len(images)))
	}
	for _, got := range images {
		slices.Sort(got.RepoTags)
		if want := []string{im.RepoTag}; !slices.Equal(got.RepoTags, want) {
			problems = append(problems, fmt.Sprintf("image %s is tagged %q, want %q", got.ID, got.RepoTags, want))
		}
	}
	return append(problems, run.differences(ctx, im)...)
}

// differences compares what the engine reports of the image with the archive's config.
func (run engineRun) differences(ctx context.Context, im expected) []string {
	got, err := run.Inspect(ctx, im.RepoTag)
	if err != nil {
		return lines(err)
	}
	var problems []string
	differs := func(what string, got, want any) {
		problems = append(problems, fmt.Sprintf("%s is %q, want %q", what, got, want))
	}
	if got.ID != im.ImageID && !run.ManifestIDs {
		differs("image ID", got.ID, im.ImageID)
	}
	platform := v1.Platform{OS: got.Os, Architecture: got.Architecture, Variant: got.Variant}
	want := v1.Platform{OS: im.Config.OS, Architecture: im.Config.Architecture, Variant: im.Config.Variant}
	if got.Variant == "" {
		want.Variant = "" // not every engine reports it; the image ID covers it
	}
	if platform.String() != want.String() {
		differs("platform", platform, want)
	}
	diffIDs := make([]string, len(im.Config.RootFS.DiffIDs))
	for n, id := range im.Config.RootFS.DiffIDs {
		diffIDs[n] = id.String()
	}
	for _, list := range []struct {
		what      string
		got, want []string
	}{
		{"entrypoint", got.Config.Entrypoint, im.Config.Config.Entrypoint},
		{"cmd", got.Config.Cmd, im.Config.Config.Cmd},
		{"env", got.Config.Env, im.Config.Config.Env},
		{"diff IDs", got.RootFS.Layers, diffIDs},
	} {
		if !slices.Equal(list.got, list.want) {
			differs(list.what, list.got, list.want)
		}
	}
	return problems
}

// lookup does what every GitLab Runner does first: it inspects repository:tag and
// uses the image that it finds (v15.8.0, executors/docker/docker.go).
func (run engineRun) lookup(ctx context.Context, im expected, r *Result) {
	r.judge(run.differences(ctx, im))
	if r.Status == Passed {
		r.Says = "finds " + im.RepoTag
	}
}

// stored has the engine export the image, and computes its digests from the bytes.
// What an engine reports of an image only repeats the image's config.
func (run engineRun) stored(ctx context.Context, im expected, r *Result) {
	var got *archive.Contents
	err := run.Export(ctx, im.RepoTag, func(body io.Reader) (err error) {
		got, err = archive.ReadFrom(ctx, body, archive.ReadOptions{Exported: true})
		return err
	})
	if err != nil {
		r.judge(lines(err))
		return
	}
	problems := got.Problems
	if got.ImageID != im.ImageID {
		problems = append(problems, fmt.Sprintf("the stored config is %s, want %s", got.ImageID, im.ImageID))
	}
	if !slices.Equal(got.DiffIDs, im.DiffIDs) {
		problems = append(problems, fmt.Sprintf("the stored layers are %q, want %q", got.DiffIDs, im.DiffIDs))
	}
	r.judge(problems)
}

// container runs the image through its entrypoint, as Runner does. The image must
// print a word that no other image prints.
func (run engineRun) container(ctx context.Context, im expected, r *Result) {
	if !im.runsHere() {
		r.Status, r.Says = Skipped, fmt.Sprintf("the image is for %s, this machine is %s/%s", im.Platform, runtime.GOOS, runtime.GOARCH)
		return
	}
	got, err := run.Run(ctx, im.RepoTag, probe(im)...)
	if err != nil {
		r.judge(lines(err))
		return
	}
	got, _, _ = strings.Cut(strings.TrimSpace(got), "\n")
	r.Says = "prints " + got
	switch {
	case !hasShell(im) && got == "":
		r.judge([]string{"prints nothing, want its version"})
	case hasShell(im) && got != word(im):
		r.judge([]string{fmt.Sprintf("prints %q, want %q", got, word(im))})
	default:
		r.judge(nil)
	}
}

// probe is the command that the image runs: it prints a word or, without a shell,
// the helper's version.
func probe(im expected) []string {
	if hasShell(im) {
		return []string{"sh", "-c", "echo " + word(im)}
	}
	return []string{im.Config.Config.Cmd[0], "--version"}
}

// hasShell reports whether the image has a shell. Only the flavor concrete has
// none: its command is the helper itself
// (GitLab Runner v19.3.0, dockerfiles/runner-helper).
func hasShell(im expected) bool {
	cmd := im.Config.Config.Cmd
	return len(cmd) == 0 || path.Base(cmd[0]) != "gitlab-runner-helper"
}

// word returns a word for the image that no other image has.
func word(im expected) string {
	return im.Helper + "-" + strings.TrimPrefix(im.ImageID, "sha256:")[:12]
}
