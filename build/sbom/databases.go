package sbom

import (
	"bytes"
	"cmp"
	"fmt"
	"iter"
	"path"
	"slices"
	"strconv"
	"strings"
)

// software is what a database says of one package.
type software struct {
	kind                string // of its purl: apk, deb, rpm, golang
	name, version, arch string
	epoch               string // rpm's, where it has one
	source              string // the package that it was built from
	supplier            string
	homepage            string
	license             string // an SPDX expression
	database            string // path in the image
	files               []string
}

// Where the databases stand (apk-tools 2.14 and 3.0, src/database.c; dpkg 1.21,
// lib/dpkg/dpkg.h; the folder status.d is distroless's, bazel-contrib/rules_distroless; rpm 4.18,
// macros.in and its spellings by Fedora and SUSE).
const (
	dpkgStatus  = "var/lib/dpkg/status"
	dpkgStatusD = "var/lib/dpkg/status.d"
	dpkgInfo    = "var/lib/dpkg/info"
	docs        = "usr/share/doc"
)

func apkDatabases() []string {
	return []string{"lib/apk/db/installed", "usr/lib/apk/db/installed"}
}

func rpmDatabases() []string {
	var all []string
	for _, folder := range []string{"var/lib/rpm", "usr/lib/sysimage/rpm", "usr/share/rpm"} {
		for _, name := range []string{"rpmdb.sqlite", "Packages.db", "Packages"} {
			all = append(all, path.Join(folder, name))
		}
	}
	return all
}

// wanted says whether one of the databases needs the file.
func wanted(name string) bool {
	dir, base := path.Split(name)
	dir = path.Clean(dir)
	switch {
	case slices.Contains(apkDatabases(), name), slices.Contains(rpmDatabases(), strings.TrimSuffix(name, "-wal")):
		return true
	case name == dpkgStatus, dir == dpkgStatusD:
		return true
	case dir == dpkgInfo:
		return path.Ext(base) == ".list"
	case path.Dir(dir) == docs:
		return base == "copyright"
	}
	return slices.Contains(osReleases(), name)
}

// installed are the packages of all databases of the image.
func (i *image) installed(l *licences) ([]software, error) {
	var all []software
	files := &lister{}
	for _, name := range apkDatabases() {
		packages, err := parseAPK(name, i.kept[name], l, files)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		all = append(all, packages...)
	}
	all = append(all, i.dpkg(l)...)
	for _, name := range rpmDatabases() {
		packages, err := parseRPM(name, i.kept[name], i.kept[name+"-wal"], l, files)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		all = append(all, packages...)
	}
	return all, nil
}

// A lister adds files to packages: a database may name one folder, once, for each
// of very many files.
type lister struct{ size int } // bytes of all paths so far

func (l *lister) add(s *software, folder, name string) error {
	if n := len(folder) + len(name); n > maxPath {
		return fmt.Errorf("%.200s...: a path of %d bytes, at most %d", folder, n, maxPath)
	}
	file := strings.TrimPrefix(path.Join("/", folder, name), "/")
	if l.size += len(file); l.size > maxListed {
		return fmt.Errorf("paths of more than %d bytes", maxListed)
	}
	s.files = append(s.files, file)
	return nil
}

// parseAPK reads the list of installed packages: a letter, a colon and a value
// on each line, a blank line behind each package (apk-tools 2.14, src/package.c).
func parseAPK(database string, data []byte, l *licences, files *lister) ([]software, error) {
	var all []software
	for block := range bytes.SplitSeq(data, []byte("\n\n")) {
		s := software{kind: "apk", database: database}
		var folder, words string
		for line := range strings.Lines(string(block)) {
			key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
			switch key {
			case "P":
				s.name = value
			case "V":
				s.version = value
			case "A":
				s.arch = value
			case "L":
				words = value
			case "U":
				s.homepage = value
			case "o":
				s.source = value
			case "F":
				folder = value
			case "R":
				if err := files.add(&s, folder, value); err != nil {
					return nil, err
				}
			}
		}
		if s.name != "" {
			s.license = l.expression(words)
			all = append(all, s)
		}
	}
	return all, nil
}

// dpkg reads dpkg's status, and distroless's status.d, which has a file for
// each package.
func (i *image) dpkg(l *licences) []software {
	databases := []string{dpkgStatus}
	for name := range i.kept {
		if path.Dir(name) == dpkgStatusD && path.Ext(name) != ".md5sums" {
			databases = append(databases, name)
		}
	}
	slices.Sort(databases)
	var all []software
	for _, database := range databases {
		for p := range paragraphs(i.kept[database]) {
			// want, flag, state (dpkg 1.21, lib/dpkg/parsehelp.c)
			status := strings.Fields(p["Status"])
			if len(status) == 3 && (status[2] == "not-installed" || status[2] == "config-files") || p["Package"] == "" {
				continue
			}
			s := software{
				kind: "deb", name: p["Package"], version: p["Version"], arch: p["Architecture"],
				source: p["Source"], homepage: p["Homepage"], database: database,
			}
			s.license = i.copyright(s.name, l)
			s.files = i.dpkgFiles(database, s)
			all = append(all, s)
		}
	}
	return all
}

// dpkgFiles are the files of a package as dpkg, or distroless, lists them.
func (i *image) dpkgFiles(database string, s software) []string {
	var files []string
	for _, list := range []string{path.Join(dpkgInfo, s.name+".list"), path.Join(dpkgInfo, s.name+":"+s.arch+".list")} {
		for line := range strings.Lines(string(i.kept[list])) {
			files = append(files, strings.Trim(line, "/\n"))
		}
	}
	if database != dpkgStatus {
		for line := range strings.Lines(string(i.kept[database+".md5sums"])) {
			_, file, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "  ")
			files = append(files, file)
		}
	}
	return files
}

// copyright is the licence of a Debian package, where its copyright file is
// machine-readable: that of its header paragraph, which is for the package as a
// whole, else all those of its files together.
func (i *image) copyright(name string, l *licences) string {
	data := i.kept[path.Join(docs, name, "copyright")]
	if target, ok := i.links[path.Join(docs, name)]; ok {
		data = i.kept[path.Join(target, "copyright")]
	}
	var all []string
	header := true
	for p := range paragraphs(data) {
		short, _, _ := strings.Cut(p["License"], "\n")
		if header {
			if !strings.Contains(p["Format"], "copyright-format") && !strings.Contains(p["Format"], "dep5") {
				return noAssertion
			}
			if header = false; short != "" {
				return l.debian(short)
			}
		}
		if _, ok := p["Files"]; ok && short != "" {
			all = append(all, l.debian(short))
		}
	}
	slices.Sort(all)
	return cmp.Or(join("AND", all), noAssertion)
}

// paragraphs reads Debian's control format (deb822(5)); the lines of a value
// are trimmed.
func paragraphs(data []byte) iter.Seq[map[string]string] {
	return func(yield func(map[string]string) bool) {
		p, last := map[string]string{}, ""
		for line := range strings.Lines(string(data) + "\n\n") {
			switch text := strings.TrimSpace(line); {
			case text == "":
				if len(p) > 0 && !yield(p) {
					return
				}
				p, last = map[string]string{}, ""
			case line[0] == '#':
			case line[0] == ' ' || line[0] == '\t':
				if last != "" {
					p[last] += "\n" + text
				}
			default:
				key, value, _ := strings.Cut(text, ":")
				last, p[key] = key, strings.TrimSpace(value)
			}
		}
	}
}

func osReleases() []string { return []string{"etc/os-release", "usr/lib/os-release"} }

// osRelease reads what the image says of its distribution (os-release(5)).
func (i *image) osRelease() map[string]string {
	release := map[string]string{}
	for _, name := range osReleases() {
		for line := range strings.Lines(string(i.kept[name])) {
			key, value, ok := strings.Cut(strings.TrimSpace(line), "=")
			if !ok {
				continue
			}
			if plain, err := strconv.Unquote(value); err == nil {
				value = plain
			}
			release[key] = strings.Trim(value, "'")
		}
		if len(release) > 0 {
			break
		}
	}
	return release
}
