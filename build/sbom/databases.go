package sbom

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"iter"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"pretag/build/archive"
	"pretag/build/internal/deb822"
)

// software is what a database says about one package.
type software struct {
	kind                string // of its purl: apk, deb, rpm, golang
	name, version, arch string
	epoch               string // of an rpm
	source              string // the package that it was built from
	supplier            string
	homepage            string
	license             string // an SPDX expression
	database            string // path in the image
	files               iter.Seq[string]
}

// Paths of the databases (dpkg 1.21, lib/dpkg/dpkg.h; status.d is distroless's,
// bazel-contrib/rules_distroless; apk-tools 2.14 and 3.0, src/database.c; rpm 4.18,
// macros.in, and what Fedora and SUSE make of it).
const (
	dpkgStatus     = "var/lib/dpkg/status"
	dpkgStatusD    = "var/lib/dpkg/status.d"
	dpkgInfo       = "var/lib/dpkg/info"
	dpkgDiversions = "var/lib/dpkg/diversions"
	docs           = "usr/share/doc"
)

func apkDatabases() []string { return []string{"lib/apk/db/installed", "usr/lib/apk/db/installed"} }
func rpmDirs() []string      { return []string{"var/lib/rpm", "usr/lib/sysimage/rpm", "usr/share/rpm"} }
func osReleases() []string   { return []string{"etc/os-release", "usr/lib/os-release"} }

// unread returns the paths of databases that are not read, with what wrote them.
func unread() map[string]string {
	others := map[string]string{
		"nix/var/nix/db/db.sqlite":                 "Nix",
		"usr/lib/opkg/status":                      "opkg",
		"var/db/pkg":                               "Portage",
		"var/db/xbps":                              "XBPS",
		"var/lib/chisel/manifest.wall":             "chisel",
		"var/lib/opkg/status":                      "opkg",
		"var/lib/pacman/local":                     "pacman",
		"var/lib/rpmmanifest/container-manifest-1": "Azure Linux",
		"var/lib/rpmmanifest/container-manifest-2": "Azure Linux",
	}
	for _, dir := range rpmDirs() {
		others[path.Join(dir, "Packages.db")] = "rpm (ndb)"
	}
	return others
}

// A database is a file of the image that lists packages.
type database struct {
	path string
	read func(ctx context.Context, data []byte) iter.Seq2[software, error]
}

// databases returns the databases that the image may have.
func (i *image) databases(l *licenses) []database {
	var all []database
	for _, name := range apkDatabases() {
		all = append(all, database{name, l.apk})
	}
	dpkg := &dpkg{image: i, licenses: l}
	for _, name := range append(i.list(dpkgStatusD), dpkgStatus) {
		if path.Ext(name) != ".md5sums" {
			all = append(all, database{name, func(ctx context.Context, data []byte) iter.Seq2[software, error] { return dpkg.status(ctx, name, data) }})
		}
	}
	for _, dir := range rpmDirs() {
		for _, base := range []string{"rpmdb.sqlite", "Packages"} {
			name := path.Join(dir, base)
			all = append(all, database{name, func(ctx context.Context, data []byte) iter.Seq2[software, error] {
				return l.rpm(ctx, data, i.content(name+"-wal"))
			}})
		}
	}
	return all
}

// wanted returns the paths of all files that may have to be read.
func (i *image) wanted() []string {
	all := append(osReleases(), dpkgDiversions)
	for _, db := range i.databases(nil) {
		all = append(all, db.path, db.path+"-wal", db.path+".md5sums")
	}
	for _, name := range i.list(dpkgInfo) {
		if path.Ext(name) == ".list" {
			all = append(all, name)
		}
	}
	for _, name := range i.list(docs) {
		all = append(all, path.Join(name, "copyright"))
	}
	return all
}

// installed yields the packages of all databases of the image. It adds a warning for
// each database that is not read or lists nothing, so that an SBOM that lacks
// packages does not look like that of a small image.
func (i *image) installed(ctx context.Context, l *licenses) iter.Seq2[software, error] {
	return func(yield func(software, error) bool) {
		seen := map[*archive.File]bool{}
		for _, db := range i.databases(l) {
			n := i.Lookup(db.path, true)
			if n == nil || n.File == nil || seen[n.File] {
				continue
			}
			seen[n.File] = true
			count := 0
			for s, err := range db.read(ctx, i.contents[n.File]) {
				if err != nil {
					yield(s, fmt.Errorf("/%s: %w", db.path, err))
					return
				}
				count++
				s.database = db.path
				if !yield(s, nil) {
					return
				}
			}
			if count == 0 {
				i.warnings = append(i.warnings, fmt.Sprintf("/%s lists no packages", db.path))
			}
		}
		others := map[*archive.Node]bool{}
		for _, name := range slices.Sorted(maps.Keys(unread())) {
			if n := i.Lookup(name, true); n != nil && !others[n] && (n.File != nil || len(n.Names()) > 0) {
				others[n] = true
				i.warnings = append(i.warnings, fmt.Sprintf("/%s is a package database of %s, which is not read: its packages are missing", name, unread()[name]))
			}
		}
	}
}

// apk reads apk's list of installed packages: lines of a letter, a colon and a value,
// and a blank line after each package (apk-tools 2.14, src/package.c).
func (l *licenses) apk(ctx context.Context, data []byte) iter.Seq2[software, error] {
	return func(yield func(software, error) bool) {
		for block := range bytes.SplitSeq(data, []byte("\n\n")) {
			s := software{kind: "apk", files: apkFiles(ctx, block)}
			words := ""
			for key, value := range apkFields(ctx, block) {
				switch key {
				case "P":
					s.name = string(value)
				case "V":
					s.version = string(value)
				case "A":
					s.arch = string(value)
				case "L":
					words = string(value)
				case "U":
					s.homepage = string(value)
				case "o":
					s.source = string(value)
				}
			}
			if ctx.Err() != nil {
				yield(software{}, context.Cause(ctx))
				return
			}
			if s.name == "" {
				continue
			}
			if s.license = l.expression(words); !yield(s, nil) {
				return
			}
		}
	}
}

// apkFields yields the fields of a package until ctx ends.
func apkFields(ctx context.Context, block []byte) iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		for line := range bytes.Lines(block) {
			if ctx.Err() != nil {
				return
			}
			key, value, _ := bytes.Cut(bytes.TrimSuffix(line, []byte("\n")), []byte(":"))
			if len(key) == 1 && !yield(string(key), value) {
				return
			}
		}
	}
}

// apkFiles yields the files of a package, which follow the lines of their directories.
func apkFiles(ctx context.Context, block []byte) iter.Seq[string] {
	return func(yield func(string) bool) {
		dir := ""
		for key, value := range apkFields(ctx, block) {
			if key == "F" {
				dir = string(value)
			}
			if key == "R" && !yield(dir+"/"+string(value)) {
				return
			}
		}
	}
}

// dpkg reads dpkg's databases. It reads each copyright file and each list of files
// once, however many packages claim it.
type dpkg struct {
	image      *image
	licenses   *licenses
	diversions map[string]diversion // nil until they are read
	copyrights map[*archive.File]string
	listed     map[string]bool // lists that a package has
}

// A diversion moves a file of all packages but one (dpkg-divert(1)).
type diversion struct{ to, except string }

// status reads dpkg's status, or a file of distroless's status.d.
func (d *dpkg) status(ctx context.Context, database string, data []byte) iter.Seq2[software, error] {
	return func(yield func(software, error) bool) {
		if err := d.begin(ctx); err != nil {
			yield(software{}, err)
			return
		}
		for p, err := range deb822.Paragraphs(ctx, data) {
			if err != nil {
				yield(software{}, err)
				return
			}
			// want, flag, state (dpkg 1.21, lib/dpkg/parsehelp.c)
			status := strings.Fields(p["status"])
			if len(status) == 3 && (status[2] == "not-installed" || status[2] == "config-files") || p["package"] == "" {
				continue
			}
			s := software{
				kind: "deb", name: p["package"], version: p["version"], arch: p["architecture"],
				source: p["source"], homepage: p["homepage"],
			}
			if s.license, err = d.license(ctx, s.name); err == nil {
				s.files = d.files(database, s)
			}
			if !yield(s, err) || err != nil {
				return
			}
		}
	}
}

// begin reads the diversions, three lines each: from, to, and the package whose file
// is not moved, or a colon (dpkg 1.21, src/common/divertdb.c).
func (d *dpkg) begin(ctx context.Context) error {
	if d.diversions != nil {
		return nil
	}
	d.diversions, d.copyrights, d.listed = map[string]diversion{}, map[*archive.File]string{}, map[string]bool{}
	const most = 10_000
	var lines []string
	number := 0
	for line := range bytes.Lines(d.image.content(dpkgDiversions)) {
		if number++; number > 3*most {
			return fmt.Errorf("/%s has more than %d diversions", dpkgDiversions, most)
		}
		lines = append(lines, strings.TrimSuffix(string(line), "\n"))
		if len(lines) == 3 {
			d.diversions[lines[0]] = diversion{lines[1], lines[2]}
			lines = lines[:0]
		}
	}
	return context.Cause(ctx)
}

// files yields the files of a package as dpkg, or distroless, lists them.
func (d *dpkg) files(database string, s software) iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, list := range []string{path.Join(dpkgInfo, s.name+".list"), path.Join(dpkgInfo, s.name+":"+s.arch+".list"), database + ".md5sums"} {
			if d.listed[list] {
				continue
			}
			d.listed[list] = true
			for line := range bytes.Lines(d.image.content(list)) {
				file := strings.TrimSuffix(string(line), "\n")
				if _, name, ok := strings.Cut(file, "  "); ok && path.Ext(list) == ".md5sums" {
					file = "/" + name
				}
				if to, ok := d.diversions[file]; ok && to.except != s.name {
					file = to.to
				}
				if !yield(file) {
					return
				}
			}
		}
	}
}

// license returns the license of a Debian package if its copyright file is
// machine-readable.
func (d *dpkg) license(ctx context.Context, name string) (string, error) {
	n := d.image.Lookup(path.Join(docs, name, "copyright"), true)
	if n == nil || n.File == nil {
		return noAssertion, nil
	}
	known, ok := d.copyrights[n.File]
	if !ok {
		known = d.licenses.copyright(ctx, d.image.contents[n.File])
		d.copyrights[n.File] = known
	}
	return known, context.Cause(ctx)
}

// copyright returns the license of a machine-readable copyright file: that of its
// header paragraph, which is for the package as a whole, else those of all of its
// files together.
func (l *licenses) copyright(ctx context.Context, data []byte) string {
	var all []string
	header := true
	for p, err := range deb822.Paragraphs(ctx, data) {
		if err != nil {
			return noAssertion
		}
		short, _, _ := strings.Cut(p["license"], "\n")
		if header {
			if !strings.Contains(p["format"], "copyright-format") && !strings.Contains(p["format"], "dep5") {
				return noAssertion
			}
			if header = false; short != "" {
				return l.debian(short)
			}
		}
		if _, ok := p["files"]; ok && short != "" {
			all = append(all, l.debian(short))
		}
	}
	slices.Sort(all)
	all = slices.Compact(all)
	return cmp.Or(l.bounded(join("AND", all)), noAssertion)
}

// osRelease reads what the image says about its distribution (os-release(5)).
func (i *image) osRelease() map[string]string {
	const most = 256 // bytes of a value, which is repeated for each package
	values := map[string]string{}
	for _, name := range osReleases() {
		for line := range bytes.Lines(i.content(name)) {
			key, value, ok := strings.Cut(strings.TrimSpace(string(line)), "=")
			if !ok || len(value) > most || !slices.Contains([]string{"ID", "VERSION_ID", "PRETTY_NAME"}, key) {
				continue
			}
			if plain, err := strconv.Unquote(value); err == nil {
				value = plain
			}
			values[key] = strings.Trim(value, "'")
		}
		if len(values) > 0 {
			break
		}
	}
	return values
}
