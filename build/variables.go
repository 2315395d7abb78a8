package build

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/mail"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"

	helperimages "pretag/helper-images"

	"pretag/build/archive"
	"pretag/build/catalogue"
	"pretag/build/engine"
	"pretag/build/release"
	"pretag/build/sign"
)

// A variable is a row of the table of variables. The table is the only place
// that knows them: FromEnv, the provenance, Reproduce and docs/variables.md
// follow from it.
type variable struct {
	name     string
	fallback string // the value if it is not set
	shown    string // the default as docs/variables.md describes it, if it is not fallback
	help     string

	// parse reads the value into the configuration. Its errors begin with the
	// rejected value, quoted. Rows are parsed in their order.
	parse func(r *reader, value string) error

	// record returns the value that the provenance records, or "" for none. It is
	// set for every variable that decides the bytes of what is built.
	record func(c Config) string
}

// passphraseVariable is the variable whose value Reproduce replaces by a pipe.
const passphraseVariable = "GPG_PASSPHRASE_PATH"

// variables returns the table.
func variables() []variable {
	return []variable{
		{
			name: "RUNNER_VERSION", shown: "required",
			help:   "GitLab Runner's version, `19.3.0` or `v19.3.0`; `latest` for development builds",
			parse:  func(r *reader, s string) error { r.version = s; return nil },
			record: func(c Config) string { return c.Version.String() },
		},
		{
			name: "RUNNER_REVISION", shown: "known for released versions",
			help:   "8 hex digits of GitLab Runner's commit; below 16.8.0 they are in the tag",
			parse:  (*reader).readVersion,
			record: func(c Config) string { return c.Version.Revision() },
		},
		{
			name: "CATALOGUE", shown: "the one built in",
			help:  "a custom catalogue, in the form of `helper-images/catalogue.yaml`",
			parse: (*reader).readCatalogue,
			record: func(c Config) string {
				if c.CatalogueSum == "" {
					return ""
				}
				return "sha256:" + c.CatalogueSum
			},
		},
		{
			name: "HELPERS", fallback: "default",
			help:  "comma-separated globs over helper names (`alpine-x86_64`, `ubuntu-*`), or the sets `default` (what Runner's own package has), `release` (what its release uploads) and `all`",
			parse: (*reader).readHelpers,
			record: func(c Config) string {
				var names []string
				for _, h := range c.Helpers {
					names = append(names, h.String())
				}
				return strings.Join(names, ",")
			},
		},
		{
			name: "HELPER_IMAGES", fallback: "helper-images",
			help:  "directory of the input tarballs; may be `OUT/helper-images`",
			parse: func(r *reader, s string) error { r.Inputs = s; return nil },
		},
		{
			name: "OUT", fallback: defaultOut,
			help:  "directory of everything written; may hold other products",
			parse: func(r *reader, s string) error { r.Out = s; return nil },
		},
		{
			name: "IMAGE_REPOSITORY", fallback: catalogue.Repository,
			help:   "repository part of every RepoTag, and where `pull` pulls from",
			parse:  func(r *reader, s string) error { r.Repository = s; return checkRepository(s) },
			record: func(c Config) string { return c.Repository },
		},
		{
			name:  "PLAIN_HTTP",
			help:  "comma-separated registries, `host` or `host:port`, that `pull` asks over http instead of https",
			parse: (*reader).readPlainHTTP,
		},
		{
			name: "ARCHIVE_COMPRESSION", fallback: "zstd:best",
			help: "`zstd[:fastest|default|better|best|ultra]` (`ultra` needs the zstd program), `gzip` (of the layers, for Docker below 23), `none`",
			parse: func(r *reader, s string) (err error) {
				r.Compression, err = archive.ParseCompression(s)
				return err
			},
			record: func(c Config) string { return c.Compression.String() },
		},
		{
			name: "FORMATS", fallback: release.RPM + "," + release.Deb,
			help: "package formats: `rpm`, `deb`",
			parse: func(r *reader, s string) error {
				r.Formats = list(s)
				return allow(r.Formats, release.RPM, release.Deb)
			},
			record: func(c Config) string { return strings.Join(c.Formats, ",") },
		},
		{
			name: "PACKAGE_LAYOUT", fallback: "split",
			help:   "`split`: a native package for each host architecture, and one for each other helper; `single`: one package with everything, a drop-in for Runner's own",
			parse:  func(r *reader, s string) error { r.Layout = s; return allow([]string{s}, "split", "single") },
			record: func(c Config) string { return c.Layout },
		},
		{
			name: "PACKAGES_ITERATION", fallback: "1",
			help: "release of the packages: a number above 0, with an optional distribution suffix (`1~bpo12+1`, `1.el9`)",
			parse: func(r *reader, s string) (err error) {
				r.Release, err = release.ParseIteration(s)
				return err
			},
			record: func(c Config) string { return c.Release },
		},
		{
			name: "PACKAGE_MAINTAINER", shown: "from `DEBFULLNAME` and `DEBEMAIL`, else " + "`" + defaultMaintainer + "`",
			help:   "maintainer of the packages, `Name <mail@example.com>`",
			parse:  (*reader).readMaintainer,
			record: func(c Config) string { return c.Maintainer },
		},
		{
			name: "PACKAGE_VENDOR", fallback: "pretag",
			help: "vendor of the packages",
			parse: func(r *reader, s string) error {
				r.Vendor = s
				if strings.ContainsAny(s, "\r\n") {
					return fmt.Errorf("%q: want one line", s)
				}
				return nil
			},
			record: func(c Config) string { return c.Vendor },
		},
		{
			name: "PACKAGE_HOMEPAGE", fallback: "https://docs.gitlab.com/runner/configuration/advanced-configuration/#helper-image",
			help: "URL that the packages name",
			parse: func(r *reader, s string) error {
				r.Homepage = s
				if u, err := url.Parse(s); err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
					return fmt.Errorf("%q: want a URL", s)
				}
				return nil
			},
			record: func(c Config) string { return c.Homepage },
		},
		{
			name: "SOURCE_DATE_EPOCH", shown: "time of the HEAD commit; required outside git",
			help:   "the one timestamp of everything, seconds since 1970",
			parse:  (*reader).readTime,
			record: func(c Config) string { return strconv.FormatInt(c.Time.Unix(), 10) },
		},
		{
			name: "GPG_KEY_PATH", shown: "unsigned",
			help:   "file with the private signing key",
			parse:  (*reader).readKey,
			record: func(Config) string { return "" }, // manifest.json has the key's ID
		},
		{
			name:   passphraseVariable,
			help:   "file with the passphrase of the signing key; may be a named pipe or `/dev/fd/N`",
			parse:  (*reader).readPassphrase,
			record: func(Config) string { return "" },
		},
		{
			name: "BUILDER_ID", shown: "`CI_JOB_URL`, if it is set",
			help:  "URI of who builds, for `provenance.json`",
			parse: (*reader).readBuilder,
		},
		{
			name: "ENGINES", shown: "every one found",
			help:  "engines that `verify` must use: `podman` (`podman-rootful` or `podman-rootless`), `docker`",
			parse: (*reader).readEngines,
		},
		{
			name: "GITLAB_RUNNER", shown: "the one in `PATH`, if it is of `RUNNER_VERSION`",
			help:  "a gitlab-runner program with which `verify` runs a real job in each engine",
			parse: func(r *reader, s string) error { r.Runner = s; return nil },
		},
		{
			name: "LOADERS", shown: "`OUT/loader`, where `package` builds them if Go is installed",
			help:  "directory of loaders that were built ahead",
			parse: func(r *reader, s string) error { r.LoaderDir = s; return nil },
		},
		{
			name: "JOBS", fallback: strconv.Itoa(runtime.NumCPU()), shown: "number of CPUs",
			help: "helpers worked on at once",
			parse: func(r *reader, s string) error {
				const most = 1 << 20
				var err error
				if r.Jobs, err = strconv.Atoi(s); err != nil || r.Jobs < 1 || r.Jobs > most {
					return fmt.Errorf("%q: want a number from 1 to %d", s, most)
				}
				return nil
			},
		},
		{
			name:  "DRY_RUN",
			help:  "`1`: `package` only lists the packages that it would make, and writes nothing",
			parse: (*reader).readDryRun,
		},
	}
}

const (
	defaultOut        = "out"
	defaultMaintainer = "pretag <pretag@example.org>" // reserved (RFC 2606); linters reject localhost
)

// readVersion reads RUNNER_REVISION, and RUNNER_VERSION which was set before.
func (r *reader) readVersion(revision string) error {
	if r.version == "" && r.need == NeedNothing {
		return nil
	}
	var err error
	if r.Version, err = catalogue.ParseVersion(r.version, revision); err != nil {
		r.errs = append(r.errs, err) // names the variables itself
	}
	r.versionKnown = err == nil
	return nil
}

func (r *reader) readCatalogue(path string) error {
	file, data := "helper-images/catalogue.yaml", helperimages.Catalogue
	if path != "" {
		var err error
		if data, err = os.ReadFile(path); err != nil {
			return fmt.Errorf("%q: %w", path, errors.Unwrap(err))
		}
		file, r.CatalogueSum = path, fmt.Sprintf("%x", sha256.Sum256(data))
	}
	var err error
	if r.Catalogue, err = catalogue.Parse(file, data); err != nil {
		r.errs = append(r.errs, err) // names the file itself
	}
	return nil
}

func (r *reader) readHelpers(words string) (err error) {
	if r.Catalogue == nil {
		return nil
	}
	if !r.versionKnown {
		return r.Catalogue.CheckWords(list(words), r.Version)
	}
	r.Helpers, err = r.Catalogue.Select(list(words), r.Version)
	if r.need == NeedNothing && words == "default" { // a catalogue may have no default
		return nil
	}
	return err
}

// looseRepository matches what NewRepository accepts and no engine takes in a
// tag: https://host/path, host:/path, host/path/.
var looseRepository = regexp.MustCompile(`//|:/|/$`)

func checkRepository(s string) error {
	repository, err := name.NewRepository(s, name.StrictValidation)
	switch {
	case err == nil && repository.RegistryStr() == name.DefaultRegistry:
		return fmt.Errorf("%q: Docker Hub cannot be used, because Docker drops its host from names; want another registry", s)
	case err != nil || repository.Name() != s || looseRepository.MatchString(s):
		return fmt.Errorf("%q: want a registry's host, a path and no tag, such as registry.example.com/group/gitlab-runner-helper", s)
	}
	return nil
}

func (r *reader) readPlainHTTP(s string) error {
	r.PlainHTTP = list(s)
	var errs []error
	for _, host := range r.PlainHTTP {
		if _, err := name.NewRegistry(host, name.StrictValidation); err != nil {
			errs = append(errs, fmt.Errorf("%q: want a registry's host, with its port if it has one, such as registry.example.com:5000", host))
		}
	}
	return errors.Join(errs...)
}

// readMaintainer falls back to what Debian's tools take (devscripts 2.23, debchange(1)).
func (r *reader) readMaintainer(s string) error {
	if s == "" {
		s = defaultMaintainer
		if email := r.environ["DEBEMAIL"]; strings.Contains(email, "<") {
			s = email
		} else if name := r.environ["DEBFULLNAME"]; name != "" && email != "" {
			s = name + " <" + email + ">"
		}
	}
	r.Maintainer = s
	if address, err := mail.ParseAddress(s); err != nil || address.Name == "" {
		return fmt.Errorf("%q: want Name <mail@example.com>", s)
	}
	return nil
}

// maxTime is the last second, since 1970, that an rpm can hold (32 bits,
// RPMTAG_BUILDTIME in rpm 4.20, rpmtag.h).
const maxTime = 1<<32 - 1

// readTime reads SOURCE_DATE_EPOCH (reproducible-builds.org), or takes the time of
// the HEAD commit.
func (r *reader) readTime(s string) error {
	if s == "" {
		if r.need == NeedNothing {
			return nil
		}
		var err error
		if s, err = commitTime(r.ctx, gitTime); err != nil {
			r.errs = append(r.errs, err)
			return nil
		}
	}
	seconds, err := strconv.ParseInt(s, 10, 64)
	if err != nil || seconds < 0 || seconds > maxTime {
		return fmt.Errorf("%q: want seconds since 1970, at most %d", s, int64(maxTime))
	}
	r.Time = time.Unix(seconds, 0).UTC()
	return nil
}

// gitTime is how long git may take: its files may be on a network that hangs.
const gitTime = 10 * time.Second

// commitTime returns the time of the HEAD commit in seconds since 1970. Its error says
// whether SOURCE_DATE_EPOCH must be set, because there is no repository, or git failed.
func commitTime(ctx context.Context, limit time.Duration) (string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("no answer within %s", limit))
	defer cancel()
	command := exec.CommandContext(ctx, "git", "log", "-1", "--format=%ct")
	command.Env = append(command.Environ(), "LC_ALL=C")
	command.WaitDelay = time.Second // for what git has started
	out, err := command.Output()
	exit, said := (*exec.ExitError)(nil), ""
	if errors.As(err, &exit) {
		said = string(bytes.TrimSpace(exit.Stderr))
	}
	const example = "seconds since 1970, such as 1767225600"
	switch {
	case err == nil:
		return strings.TrimSpace(string(out)), nil
	case strings.Contains(said, "not a git repository"):
		return "", fmt.Errorf("SOURCE_DATE_EPOCH is required, because this is not a git repository: %s", example)
	case errors.Is(err, exec.ErrNotFound):
		return "", fmt.Errorf("SOURCE_DATE_EPOCH is required, because git is not installed: %s", example)
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	case said != "":
		err = fmt.Errorf("%w: %.1000s", err, said)
	}
	return "", fmt.Errorf("git log -1: %w; fix that, or set SOURCE_DATE_EPOCH (%s)", err, example)
}

func (r *reader) readKey(path string) error {
	if r.Key = path; path == "" {
		return nil
	}
	return sign.CheckKeyPath(path)
}

func (r *reader) readPassphrase(path string) error {
	if r.Passphrase = path; path == "" {
		return nil
	}
	if r.Key == "" {
		r.errs = append(r.errs, errors.New("GPG_PASSPHRASE_PATH is set and GPG_KEY_PATH is not"))
		return nil
	}
	return sign.CheckPassphrasePath(path)
}

// readBuilder falls back to the URL of a GitLab CI job.
func (r *reader) readBuilder(s string) error {
	r.Builder = cmp.Or(s, r.environ["CI_JOB_URL"])
	if u, err := url.Parse(r.Builder); err != nil || r.Builder != "" && u.Scheme == "" {
		return fmt.Errorf("%q: want a URI", r.Builder)
	}
	return nil
}

func (r *reader) readEngines(s string) error {
	var errs []error
	for _, word := range list(s) {
		if word != "podman" && !slices.Contains(engine.Kinds(), engine.Kind(word)) {
			errs = append(errs, fmt.Errorf("%q: want podman (one of its kinds), podman-rootful, podman-rootless or docker", word))
		}
		r.Engines = append(r.Engines, word)
	}
	return errors.Join(errs...)
}

func (r *reader) readDryRun(s string) error {
	r.DryRun = s == "1"
	switch {
	case s != "" && s != "0" && s != "1":
		return fmt.Errorf("%q: want 1 or 0", s)
	case r.DryRun && r.need != NeedVersionOrDryRun:
		return fmt.Errorf("%q: only the target package has a dry run", s)
	}
	return nil
}

// list splits at commas. Spaces around an item, empty items and repeated items are dropped.
func list(s string) []string {
	var items []string
	for item := range strings.SplitSeq(s, ",") {
		if item = strings.TrimSpace(item); item != "" && !slices.Contains(items, item) {
			items = append(items, item)
		}
	}
	return items
}

// allow rejects items other than the allowed ones.
func allow(items []string, allowed ...string) error {
	var errs []error
	for _, item := range items {
		if !slices.Contains(allowed, item) {
			errs = append(errs, fmt.Errorf("%q: want %s", item, strings.Join(allowed, " or ")))
		}
	}
	return errors.Join(errs...)
}
