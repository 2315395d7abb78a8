package build

import (
	"bytes"
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
	"pretag/build/fetch"
	"pretag/build/internal/text"
	"pretag/build/linuxpkg"
	"pretag/build/loaders"
	"pretag/build/sign"
)

// A Config is what the environment asks for: README's table of variables, read
// and checked once.
type Config struct {
	Version      catalogue.Version
	Release      string // of the packages
	Catalogue    *catalogue.Catalogue
	OwnCatalogue string // sha256, in hex, of a catalogue of one's own; "" for the one built in
	Helpers      []catalogue.Helper
	Inputs       string // folder of the input tarballs
	Out          string // folder of everything written
	Repository   string
	PlainHTTP    []string          // registries, as host or host:port, that pull asks over http
	Credentials  fetch.Credentials // for registries
	Compression  archive.Compression
	Formats      []string // "rpm", "deb"
	Layout       string   // "split", "single"
	Maintainer   string   // of the packages: Name <mail@example.com>
	Vendor       string   // of the packages
	Homepage     string   // of the packages: URL
	Time         time.Time
	Key          string   // path of the signing key; "" for unsigned
	Passphrase   string   // path of the file with its passphrase
	Engines      []string // that verify must use; nil for every one found
	Runner       string   // gitlab-runner program whose jobs verify runs; empty for the one in PATH
	Jobs         int
	BenchRounds  int      // how often each way is measured
	LoaderArches []string // Go's words; nil for all that hosts of the packages need
	LoaderDir    string   // directory of loaders that were built ahead; "" to build them
	GoEnviron    []string // NAME=value of what building a loader takes from the environment
}

// A Need says what a target cannot do without.
type Need int

// The needs. Values that are given are checked whatever the need.
const (
	Folders Need = iota // nothing that has no default
	Release             // the Runner version that is built for, and its time
)

// Defaults of the variables.
const (
	defaultInputs     = "helper-images"
	DefaultOut        = "out"
	defaultMaintainer = "pretag <pretag@example.org>" // reserved (RFC 2606); linters reject localhost
	defaultVendor     = "pretag"
	defaultHomepage   = "https://docs.gitlab.com/runner/configuration/advanced-configuration/#helper-image"
	DefaultRepository = catalogue.Repository
)

// FromEnv reads the configuration. All wrong variables are reported together,
// each with its name, its value and what is allowed.
func FromEnv(getenv func(string) string, need Need) (Config, error) {
	e := env{getenv: getenv}
	c := Config{
		Inputs:      e.text("HELPER_IMAGES", defaultInputs),
		Out:         e.text("OUT", DefaultOut),
		Repository:  e.text("IMAGE_REPOSITORY", DefaultRepository),
		Maintainer:  e.text("PACKAGE_MAINTAINER", e.debian()),
		Vendor:      e.text("PACKAGE_VENDOR", defaultVendor),
		Homepage:    e.text("PACKAGE_HOMEPAGE", defaultHomepage),
		Release:     e.text("PACKAGES_ITERATION", "1"),
		Jobs:        e.positive("JOBS", runtime.NumCPU()),
		BenchRounds: e.positive("BENCH_ROUNDS", 3),
		Formats:     e.subset("FORMATS", []string{"rpm", "deb"}),
		Engines:     e.list("ENGINES"),
		Runner:      e.text("GITLAB_RUNNER", ""),
		PlainHTTP:   e.list("PLAIN_HTTP"),
		LoaderDir:   e.text("LOADERS", ""),
		Key:         e.secretFile("GPG_KEY_PATH", sign.CheckKeyPath),
		Passphrase:  e.secretFile("GPG_PASSPHRASE_PATH", sign.CheckPassphrasePath),
	}
	for _, name := range loaders.Variables() {
		if value := getenv(name); value != "" {
			c.GoEnviron = append(c.GoEnviron, name+"="+value)
		}
	}
	c.Credentials = fetch.CredentialsFrom(getenv)
	for _, host := range c.PlainHTTP {
		if _, err := name.NewRegistry(host, name.StrictValidation); err != nil {
			e.reject("PLAIN_HTTP=%q: want a registry's host, with its port if it has one, such as registry.example.com:5000", host)
		}
	}
	if _, err := linuxpkg.ParseIteration(c.Release); err != nil {
		e.reject("PACKAGES_ITERATION=%w", err)
	}
	c.Layout = e.oneOf("PACKAGE_LAYOUT", "split", "single")
	known := c.readVersion(&e, need)
	c.readHelpers(&e, need, known)
	c.readTime(&e, need)

	if compression, err := archive.ParseCompression(e.text("ARCHIVE_COMPRESSION", "zstd:best")); err != nil {
		e.reject("ARCHIVE_COMPRESSION=%w", err)
	} else {
		c.Compression = compression
	}
	if repository, err := name.NewRepository(c.Repository, name.StrictValidation); err != nil || repository.Name() != c.Repository || looseRepository.MatchString(c.Repository) {
		e.reject("IMAGE_REPOSITORY=%q: want a registry's host, a path and no tag, such as %s", c.Repository, DefaultRepository)
	}
	if address, err := mail.ParseAddress(c.Maintainer); err != nil || address.Name == "" {
		e.reject("PACKAGE_MAINTAINER=%q: want Name <mail@example.com>", c.Maintainer)
	}
	if u, err := url.Parse(c.Homepage); err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
		e.reject("PACKAGE_HOMEPAGE=%q: want a URL", c.Homepage)
	}
	if strings.ContainsAny(c.Vendor, "\r\n") {
		e.reject("PACKAGE_VENDOR=%q: want one line", c.Vendor)
	}
	for _, word := range c.Engines {
		if word != "podman" && !slices.Contains(engine.Kinds(), engine.Kind(word)) {
			e.reject("ENGINES=%q: want podman (one of its kinds), podman-rootful, podman-rootless or docker", word)
		}
	}
	if c.Passphrase != "" && c.Key == "" {
		e.reject("GPG_PASSPHRASE_PATH is set and GPG_KEY_PATH is not")
	}
	return c, errors.Join(e.errs...)
}

// looseRepository is what NewRepository lets pass and no engine takes in a tag:
// https://host/path, host:/path, host/path/.
var looseRepository = regexp.MustCompile(`//|:/|/$`)

// readVersion reports whether the version is known: given, and right.
func (c *Config) readVersion(e *env, need Need) bool {
	version := e.text("RUNNER_VERSION", "")
	if version == "" && need != Release {
		return false
	}
	var err error
	if c.Version, err = catalogue.ParseVersion(version, e.text("RUNNER_REVISION", "")); err != nil {
		e.errs = append(e.errs, err)
	}
	return err == nil
}

// readHelpers reads the catalogue and, if the version is known, selects from it.
func (c *Config) readHelpers(e *env, need Need, known bool) {
	file, data := "helper-images/catalogue.yaml", helperimages.Catalogue
	if own := e.text("CATALOGUE", ""); own != "" {
		var err error
		if data, err = os.ReadFile(own); err != nil {
			e.reject("CATALOGUE=%q: %w", own, err)
			return
		}
		file, c.OwnCatalogue = own, fmt.Sprintf("%x", sha256.Sum256(data))
	}
	var err error
	if c.Catalogue, err = catalogue.Parse(file, data); err != nil {
		e.errs = append(e.errs, err)
		return
	}
	words := e.list("HELPERS")
	switch {
	case !known:
		err = c.Catalogue.CheckWords(words, c.Version)
	case words == nil:
		if c.Helpers = c.Catalogue.Default(c.Version); len(c.Helpers) == 0 && need == Release {
			e.reject("HELPERS is required: %s has no default for GitLab Runner %s", file, c.Version)
		}
	default:
		c.Helpers, err = c.Catalogue.Select(words, c.Version)
	}
	if err != nil {
		for _, err := range text.Errors(err) {
			e.reject("HELPERS=%w", err)
		}
	}
}

// readTime takes SOURCE_DATE_EPOCH (reproducible-builds.org), or the time of the
// HEAD commit.
func (c *Config) readTime(e *env, need Need) {
	const variable = "SOURCE_DATE_EPOCH"
	text := e.text(variable, "")
	if text == "" {
		if need != Release {
			return
		}
		var err error
		if text, err = commitTime(); err != nil {
			e.reject("%s is required here, as %w: seconds since 1970, such as 1767225600", variable, err)
			return
		}
	}
	seconds, err := strconv.ParseInt(text, 10, 64)
	if err != nil || seconds < 0 || seconds > maxTime {
		e.reject("%s=%q: want seconds since 1970, at most %d", variable, text, maxTime)
		return
	}
	c.Time = time.Unix(seconds, 0).UTC()
}

// commitTime returns the time of the HEAD commit in seconds since 1970.
func commitTime() (string, error) {
	command := exec.Command("git", "log", "-1", "--format=%ct")
	command.Env = append(command.Environ(), "LC_ALL=C")
	out, err := command.Output()
	exit := (*exec.ExitError)(nil)
	switch {
	case err == nil:
		return strings.TrimSpace(string(out)), nil
	case errors.As(err, &exit) && strings.Contains(string(exit.Stderr), "not a git repository"):
		return "", errors.New("this is not a git repository")
	case errors.As(err, &exit):
		return "", fmt.Errorf("git log failed: %s", bytes.TrimSpace(exit.Stderr))
	}
	return "", fmt.Errorf("git cannot be run: %w", err)
}

// maxTime is the last second, since 1970, that rpm (32 bits, RPMTAG_BUILDTIME in
// rpm 4.20, rpmtag.h) can say.
const maxTime = 1<<32 - 1

// env reads variables and gathers what is wrong with them.
type env struct {
	getenv func(string) string
	errs   []error
}

func (e *env) reject(format string, args ...any) {
	e.errs = append(e.errs, fmt.Errorf(format, args...))
}

func (e *env) text(variable, otherwise string) string {
	if s := e.getenv(variable); s != "" {
		return s
	}
	return otherwise
}

// debian returns the maintainer that Debian's tools take (devscripts 2.23, debchange(1)).
func (e *env) debian() string {
	name, email := e.getenv("DEBFULLNAME"), e.getenv("DEBEMAIL")
	switch {
	case name != "" && email != "":
		return name + " <" + email + ">"
	case strings.Contains(email, "<"):
		return email
	}
	return defaultMaintainer
}

// list splits at commas; spaces around an item and empty items do not count.
func (e *env) list(variable string) []string {
	var items []string
	for item := range strings.SplitSeq(e.getenv(variable), ",") {
		if item = strings.TrimSpace(item); item != "" && !slices.Contains(items, item) {
			items = append(items, item)
		}
	}
	return items
}

func (e *env) subset(variable string, allowed []string) []string {
	items := e.list(variable)
	if items == nil {
		return allowed
	}
	for _, item := range items {
		if !slices.Contains(allowed, item) {
			e.reject("%s=%q: want %s", variable, item, strings.Join(allowed, " or "))
		}
	}
	return items
}

func (e *env) oneOf(variable string, allowed ...string) string {
	s := e.text(variable, allowed[0])
	if !slices.Contains(allowed, s) {
		e.reject("%s=%q: want %s", variable, s, strings.Join(allowed, " or "))
	}
	return s
}

func (e *env) positive(variable string, otherwise int) int {
	const most = 1 << 20
	s := e.text(variable, strconv.Itoa(otherwise))
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > most {
		e.reject("%s=%q: want a number from 1 to %d", variable, s, most)
	}
	return n
}

// secretFile is the path of a file with a secret. Its content is not looked at here.
func (e *env) secretFile(variable string, check func(value string) error) string {
	path := e.text(variable, "")
	if path == "" {
		return ""
	}
	if err := check(path); err != nil {
		e.reject("%s=%w", variable, err)
	}
	return path
}
