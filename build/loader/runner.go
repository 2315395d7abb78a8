package loader

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"

	"pretag/build/catalogue"
)

// An installation is the GitLab Runner of this host and what its configuration asks for.
type installation struct {
	Version  string   `json:"version"` // as it reports it
	Revision string   `json:"revision"`
	Wants    []string `json:"wants"`   // references, each once
	Unclear  []string `json:"unknown"` // why Wants may not be all
	Runners  []runner `json:"-"`

	installed bool
}

// A runner is one [[runners]] with a Docker executor.
type runner struct {
	Name   string `json:"name"`
	Config string `json:"config"` // path of its config.toml
	Host   string `json:"host"`   // of the engine; "" for the default
	Image  string `json:"image"`  // the reference that it asks for; "" if that is unknown
	Reason string `json:"reason"` // why it is unknown what the engine has
	State  string `json:"state"`

	remote bool // the engine is on a machine that the executor makes
	target string
}

// runnerConfig is the part of config.toml that decides. GitLab Runner decodes it
// with the same library into fields of the same names, so key case, dotted keys
// and inline tables have the same meaning (GitLab Runner v19.3.0, common/config.go).
type runnerConfig struct {
	Runners []runnerSection `toml:"runners"`
}

type runnerSection struct {
	Name         string          `toml:"name"`
	Executor     string          `toml:"executor"`
	Shell        string          `toml:"shell"`
	Environment  []string        `toml:"environment"`
	FeatureFlags map[string]bool `toml:"feature_flags"`
	Docker       struct {
		Host              string `toml:"host"`
		HelperImage       string `toml:"helper_image"`
		HelperImageFlavor string `toml:"helper_image_flavor"`
	} `toml:"docker"`
}

// imageForm is what an engine may be asked for, short names included.
var imageForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._/:@-]{0,511}$`)

// versionLine matches what gitlab-runner --version prints.
var versionLine = regexp.MustCompile(`(?m)^(Version|Git revision): +(.*?) *$`)

// installation finds out which images the installed GitLab Runner will ask for.
// The version is asked for only if it matters.
func (r *run) installation(ctx context.Context, version bool) (installation, error) {
	in := installation{Wants: []string{}, Unclear: []string{}, Runners: []runner{}} // none is [] in JSON
	if version && r.find("gitlab-runner") != "" {
		in.installed = true
		out, err := r.as(ctx, r.me, "gitlab-runner", "--version")
		if ctx.Err() != nil {
			return in, context.Cause(ctx)
		}
		for _, match := range versionLine.FindAllStringSubmatch(string(out), -1) {
			if match[1] == "Version" {
				in.Version = visible(match[2])
			} else {
				in.Revision = visible(match[2])
			}
		}
		switch {
		case err != nil:
			in.Unclear = append(in.Unclear, fmt.Sprintf("gitlab-runner --version: %s", err))
		case in.Version == "":
			in.Unclear = append(in.Unclear, "gitlab-runner --version names no version")
		}
	}
	for _, path := range r.runnerConfig {
		in.read(path, r.machine())
	}
	in.complete(r.machine())
	return in, nil
}

// read adds the runners of one config.toml. A file that is not there holds none.
func (in *installation) read(path, machine string) {
	data, err := readSmall(path, maxConfig)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	var config runnerConfig
	if err == nil {
		err = toml.Unmarshal(data, &config)
	}
	if err != nil {
		in.Unclear = append(in.Unclear, fmt.Sprintf("%s is not understood: %s", path, strings.TrimPrefix(err.Error(), path+": ")))
		return
	}
	for i, section := range config.Runners {
		// docker-windows has other images.
		if !strings.HasPrefix(section.Executor, "docker") || section.Executor == "docker-windows" {
			continue
		}
		each := runner{
			Name: cmp.Or(section.Name, fmt.Sprintf("#%d", i+1)), Config: path, Host: section.Docker.Host,
			remote: section.Executor != "docker" && section.Executor != "docker-ssh",
		}
		each.Image, each.Reason = in.image(section, machine)
		in.Runners = append(in.Runners, each)
	}
}

// image returns the reference of the image that a runner asks for. If that is not
// known it is "", and reason says why.
func (in *installation) image(section runnerSection, machine string) (image, reason string) {
	flavor := section.Docker.HelperImageFlavor
	if section.Docker.HelperImage == "" {
		if strings.Contains(flavor, "$") {
			return "", fmt.Sprintf("helper_image_flavor = %q depends on the job's variables", flavor)
		}
		return in.reference(catalogue.Request{
			Flavor: flavor, Arch: machine, Shell: section.Shell, Concrete: isOn("FF_CONCRETE", section.FeatureFlags, section.Environment),
		}), ""
	}
	image = strings.NewReplacer(
		"${CI_RUNNER_VERSION}", in.Version, "$CI_RUNNER_VERSION", in.Version,
		"${CI_RUNNER_REVISION}", in.Revision, "$CI_RUNNER_REVISION", in.Revision,
	).Replace(section.Docker.HelperImage)
	switch {
	case strings.Contains(image, "$"):
		return "", fmt.Sprintf("helper_image = %q depends on the job's variables", section.Docker.HelperImage)
	case !imageForm.MatchString(image):
		return "", fmt.Sprintf("helper_image = %q is not an image", section.Docker.HelperImage)
	}
	return image, ""
}

// reference returns the reference of a helper image of the installed version, "" if
// the tag is not known.
func (in *installation) reference(request catalogue.Request) string {
	tag := catalogue.InstalledVersion(in.Version, in.Revision).Lookup(request).Tag
	if tag == "" {
		return ""
	}
	return catalogue.Repository + ":" + tag
}

// isOn reports whether a feature flag is on: the runner's feature_flags win over
// its environment (GitLab Runner v19.3.0, common/build.go, IsFeatureFlagOn).
func isOn(flag string, flags map[string]bool, environment []string) bool {
	if on, set := flags[flag]; set {
		return on
	}
	on := false
	for _, entry := range environment {
		if value, ok := strings.CutPrefix(entry, flag+"="); ok {
			on = slices.Contains([]string{"1", "t", "T", "true", "TRUE", "True"}, value) // strconv.ParseBool
		}
	}
	return on
}

// execStart matches the line of a systemd unit that starts a program.
var execStart = regexp.MustCompile(`(?m)^ExecStart *= *[-@:+!|]*(.*)$`)

// discoverConfigs returns the paths of config.toml that the services of GitLab
// Runner name by --config, and the default one.
func (r *run) discoverConfigs() []string {
	const fallback = "/etc/gitlab-runner/config.toml"
	var configs []string
	for _, dir := range []string{"/etc/systemd/system", "/run/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"} {
		for _, pattern := range []string{"*.service", "*.service.d/*.conf"} {
			files, _ := filepath.Glob(filepath.Join(r.path(dir), pattern)) // the pattern is valid
			for _, file := range files {
				text, err := readSmall(file, maxConfig)
				if err != nil {
					continue // a masked unit links to /dev/null
				}
				for _, match := range execStart.FindAllStringSubmatch(strings.ReplaceAll(string(text), "\\\n", " "), -1) {
					for _, config := range configArguments(match[1]) {
						if !slices.Contains(configs, config) {
							configs = append(configs, config)
						}
					}
				}
			}
		}
	}
	if _, err := os.Stat(r.path(fallback)); len(configs) == 0 || err == nil && !slices.Contains(configs, fallback) {
		configs = append(configs, r.path(fallback))
	}
	return configs
}

// configArguments returns what a command line of gitlab-runner names by --config.
func configArguments(line string) []string {
	var configs []string
	words := strings.Fields(line)
	for i := range words {
		words[i] = strings.Trim(words[i], `"'`)
	}
	if len(words) == 0 || !strings.HasPrefix(filepath.Base(words[0]), "gitlab-runner") || strings.HasPrefix(filepath.Base(words[0]), "gitlab-runner-helper") {
		return nil
	}
	for i, word := range words {
		name, value, joined := strings.Cut(word, "=")
		if name != "--config" && name != "-c" && name != "-config" {
			continue
		}
		if !joined && i+1 < len(words) {
			value = words[i+1]
		}
		if filepath.IsAbs(value) {
			configs = append(configs, value)
		}
	}
	return configs
}

// complete fills wants in: what the runners ask for, or the default image where
// no runner says otherwise.
func (in *installation) complete(machine string) {
	if !in.installed || in.Version == "" {
		return
	}
	if in.word() == "" {
		in.Unclear = append(in.Unclear, fmt.Sprintf("GitLab Runner %s: its revision, which is part of the tags, is not known", in.Version))
	}
	if reference := in.reference(catalogue.Request{Arch: machine}); reference != "" && len(in.Runners) == 0 && len(in.Unclear) == 0 {
		in.Wants = []string{reference}
	}
	for _, each := range in.Runners {
		if each.Image != "" && !slices.Contains(in.Wants, each.Image) {
			in.Wants = append(in.Wants, each.Image)
		}
		if each.Image == "" && each.Reason != "" {
			in.Unclear = append(in.Unclear, fmt.Sprintf("runner %q: %s", each.Name, each.Reason))
		}
	}
}

// word returns the part of a tag that changes with the version, "" if it is not known.
func (in *installation) word() string {
	if in.Version == "" {
		return ""
	}
	return strings.TrimPrefix(in.reference(catalogue.Request{Flavor: "x", Arch: "y"}), catalogue.Repository+":x-y-")
}

// keeps returns why prune must keep the image that has the tag, "" if it need not.
func (in *installation) keeps(reference string) string {
	tag := reference[strings.LastIndexByte(reference, ':')+1:]
	word := in.word()
	switch {
	case slices.Contains(in.Wants, reference):
		return "the installed GitLab Runner asks for it"
	case len(in.Unclear) == 0:
		return ""
	case word == "":
		return in.Unclear[0]
	case strings.HasSuffix(tag, "-"+word) || strings.HasSuffix(tag, "-"+word+"-pwsh"):
		return "the installed GitLab Runner may ask for it: " + in.Unclear[0]
	}
	return ""
}
