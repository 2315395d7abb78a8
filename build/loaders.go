package build

import (
	"cmp"
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"

	"pretag/build/internal/gobuild"
	"pretag/build/linuxpkg"
	"pretag/build/linuxpkg/loaders"
)

// loaderDir is the directory below OUT of the loaders.
const loaderDir = "loader"

// Loaders builds the program that runs on hosts, for every architecture that hosts
// of the packages can have, into OUT.
func Loaders(ctx context.Context, c Config, ui *UI) error {
	unlock, err := lockOut(c.Out)
	if err != nil {
		return err
	}
	defer unlock()
	_, err = c.publish(ctx, func(stage string) error {
		_, err := c.buildLoaders(ctx, stage, linuxpkg.Hosts(c.Version, c.Catalogue.Helpers()), ui)
		return err
	})
	return err
}

// loadersAhead returns the path of a loader for each architecture if they were built
// ahead: those in LOADERS or, if nothing can be compiled here, those that the target
// loaders has left in OUT. It returns nil if buildLoaders can build them.
func (c Config) loadersAhead(ctx context.Context, goArches []string) (map[string]string, error) {
	if c.LoaderDir != "" {
		return loaders.Find(c.LoaderDir, goArches)
	}
	err := c.builder(ctx).Available()
	if err == nil || len(goArches) == 0 {
		return nil, nil
	}
	found, findErr := loaders.Find(filepath.Join(c.Out, loaderDir), goArches)
	if findErr != nil {
		return nil, fmt.Errorf("loaders: %w: run the target loaders where Go and the sources are, and set LOADERS to its output\n%w", err, findErr)
	}
	return found, nil
}

// buildLoaders builds a loader for each architecture in the directory stage.
func (c Config) buildLoaders(ctx context.Context, stage string, goArches []string, ui *UI) (map[string]string, error) {
	if len(goArches) == 0 {
		return nil, nil
	}
	paths, err := loaders.Build(ctx, c.builder(ctx), filepath.Join(stage, loaderDir), goArches)
	if err != nil {
		return nil, err
	}
	for _, goarch := range goArches {
		ui.Say("loader for %s: %s", goarch, filepath.Join(c.Out, loaderDir, filepath.Base(paths[goarch])))
	}
	return paths, nil
}

// builder returns a builder of this project's programs. The sources are the current
// module, or one that it requires if its magefile imports the targets. What is missing
// is reported when it compiles.
func (c Config) builder(ctx context.Context) gobuild.Builder {
	command := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", gobuild.Module)
	command.Env = c.GoEnviron
	out, err := command.Output()
	if err != nil {
		out = nil
	}
	return gobuild.Builder{Source: cmp.Or(strings.TrimSpace(string(out)), "."), Environ: c.GoEnviron}
}
