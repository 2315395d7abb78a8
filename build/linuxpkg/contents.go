package linuxpkg

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"pretag/build/release"

	"github.com/goreleaser/nfpm/v2"
	"github.com/goreleaser/nfpm/v2/files"
)

// Sources that are not in the definitions' folder.
const (
	archivesTree  = "archives" // tree: the package's archives, each with its record
	loaderProgram = "loader"   // file: the loader of the package's architecture
)

// templateSuffix marks a file whose text is a template; it is dropped from the name.
const templateSuffix = ".tmpl"

// A stager turns the contents of one definition into files that nfpm can open:
// archives where they are, everything else in dir. Owner, group, mode and time
// are set on each, so that umask, clock and checkout do not matter.
type stager struct {
	files     fs.FS
	rows      []row
	loader    string
	documents map[string][]Document
	values    values
	mtime     time.Time
	dir       string

	contents files.Contents
	size     int64 // of all contents, bytes
	archives []string
	staged   int
}

// stage replaces what info refers to by staged files and returns the package's
// size and the base names of its archives.
func (s *stager) stage(info *nfpm.Info) (size int64, archives []string, err error) {
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return 0, nil, err
	}
	var errs []error
	for _, c := range info.Contents {
		if c.Packager != "" && c.Packager != s.values.Format {
			continue
		}
		err := s.add(c)
		if errors.As(err, &unwritten{}) {
			return 0, nil, err
		}
		errs = append(errs, err)
	}
	info.Contents = s.contents
	for _, file := range []*string{
		&info.Changelog,
		&info.Scripts.PreInstall, &info.Scripts.PostInstall, &info.Scripts.PreRemove, &info.Scripts.PostRemove,
		&info.RPM.Scripts.PreTrans, &info.RPM.Scripts.PostTrans, &info.RPM.Scripts.Verify,
		&info.Deb.Scripts.Rules, &info.Deb.Scripts.Templates, &info.Deb.Scripts.Config,
	} {
		if *file != "" {
			staged, _, err := s.file(*file, "")
			if errors.As(err, &unwritten{}) {
				return 0, nil, err
			}
			errs = append(errs, err)
			*file = staged
		}
	}
	return s.size, s.archives, errors.Join(errs...)
}

// add stages one entry of a definition's contents.
func (s *stager) add(c *files.Content) error {
	switch {
	case c.Type == files.TypeDir:
		s.put(*c, "", 0o755)
		return nil
	case c.Type == files.TypeSymlink:
		s.put(*c, c.Source, 0o777)
		return nil
	case c.Type == files.TypeTree && c.Source == archivesTree:
		return s.addArchives(*c)
	case c.Type == files.TypeTree && (c.Source == SBOM || c.Source == Licences):
		return s.addDocuments(*c)
	case c.Type == files.TypeTree:
		return s.addTree(*c)
	case c.Source == loaderProgram:
		return s.addLoader(*c)
	}
	return s.addFile(*c)
}

func (s *stager) addArchives(tree files.Content) error {
	for _, r := range s.rows {
		// nfpm packs a symbolic link as one, whatever its target
		source, err := filepath.EvalSymlinks(r.file.Path)
		if err != nil {
			return fmt.Errorf("%s: %w", r.helper, err)
		}
		stat, err := os.Stat(source)
		if err != nil {
			return fmt.Errorf("%s: %w", r.helper, err)
		}
		if stat.Size() != r.file.Size {
			return fmt.Errorf("%s: %s: %d bytes, want %d as recorded", r.helper, r.file.Path, stat.Size(), r.file.Size)
		}
		info, err := s.write(r.file.Info())
		if err != nil {
			return err
		}
		c := tree
		c.Type, c.Destination = files.TypeFile, path.Join(tree.Destination, r.file.Name)
		s.put(c, source, 0o644)
		c.Destination += release.InfoSuffix
		s.put(c, info, 0o644)
		s.size += r.file.Size
		s.archives = append(s.archives, r.file.Name)
	}
	return nil
}

func (s *stager) addLoader(c files.Content) error {
	if s.loader == "" {
		return errors.New("the definition takes a loader, but is not one for each loader")
	}
	stat, err := os.Stat(s.loader)
	if err != nil {
		return err
	}
	s.size += stat.Size()
	s.put(c, s.loader, 0o755)
	return nil
}

// addDocuments adds the documents of one kind about the package's archives.
func (s *stager) addDocuments(tree files.Content) error {
	for _, r := range s.rows {
		for _, document := range s.documents[r.file.Name] {
			if document.Kind != tree.Source {
				continue
			}
			data, err := os.ReadFile(document.Path)
			if err != nil {
				return fmt.Errorf("%s: %w", r.helper, err)
			}
			staged, err := s.write(data)
			if err != nil {
				return err
			}
			c := tree
			c.Type, c.Destination = "", path.Join(tree.Destination, filepath.Base(document.Path))
			s.mark(&c)
			s.put(c, staged, 0o644)
			s.size += int64(len(data))
		}
	}
	return nil
}

func (s *stager) addTree(tree files.Content) error {
	return fs.WalkDir(s.files, tree.Source, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || entry.Name() == ".gitkeep" {
			return err
		}
		c := tree
		c.Type, c.Source = "", name
		c.Destination = path.Join(tree.Destination, strings.TrimPrefix(name, tree.Source))
		return s.addFile(c)
	})
}

// addFile stages one file of the definitions' folder. As rpmbuild does, it goes
// by the destination: /etc is configuration, documentation is marked so for rpm
// (rpm 4.18 macros.in, __docdir_path), manual pages are compressed.
func (s *stager) addFile(c files.Content) error {
	c.Destination = strings.TrimSuffix(c.Destination, templateSuffix)
	under := func(dir string) bool { return strings.HasPrefix(c.Destination, dir) }
	mode := fs.FileMode(0o644)
	switch path.Base(path.Dir(c.Destination)) {
	case "bin", "sbin", "libexec":
		mode = 0o755
	}
	s.mark(&c)
	if under("/usr/share/man/") && path.Ext(c.Destination) != ".gz" {
		c.Destination += ".gz"
	}
	source, size, err := s.file(c.Source, c.Destination)
	if err != nil {
		return err
	}
	s.size += size
	s.put(c, source, mode)
	return nil
}

// mark sets what a file is, by its destination.
func (s *stager) mark(c *files.Content) {
	under := func(dir string) bool { return strings.HasPrefix(c.Destination, dir) }
	switch {
	case c.Type != "":
	case under("/etc/"):
		c.Type = files.TypeConfigNoReplace
	case s.values.Format == release.RPM && under("/usr/share/licenses/"):
		c.Type = files.TypeRPMLicense
	case s.values.Format == release.RPM && (under("/usr/share/doc/") || under("/usr/share/man/")):
		c.Type = files.TypeRPMDoc
	}
}

func (s *stager) put(c files.Content, source string, mode fs.FileMode) {
	info := files.ContentFileInfo{Owner: "root", Group: "root", Mode: mode}
	if given := c.FileInfo; given != nil {
		info.Owner, info.Group = cmp.Or(given.Owner, info.Owner), cmp.Or(given.Group, info.Group)
		info.Mode = cmp.Or(given.Mode, info.Mode)
	}
	info.MTime = s.mtime
	c.Source, c.FileInfo, c.Packager = source, &info, ""
	s.contents = append(s.contents, &c)
}

// file stages a file of the definitions' folder for destination.
func (s *stager) file(name, destination string) (staged string, size int64, err error) {
	data, err := fs.ReadFile(s.files, name)
	if err != nil {
		return "", 0, err
	}
	if strings.HasSuffix(name, templateSuffix) {
		text, err := s.values.execute(name, string(data))
		if err != nil {
			return "", 0, err
		}
		data = []byte(text)
	}
	if strings.HasSuffix(destination, ".gz") && path.Ext(name) != ".gz" {
		if data, err = compressed(data); err != nil {
			return "", 0, err
		}
	}
	staged, err = s.write(data)
	return staged, int64(len(data)), err
}

func (s *stager) write(data []byte) (staged string, err error) {
	s.staged++
	staged = filepath.Join(s.dir, fmt.Sprint(s.staged))
	if err := os.WriteFile(staged, data, 0o600); err != nil {
		return "", unwritten{err}
	}
	return staged, nil
}

// unwritten is the error of a file that could not be staged, such as on a full
// disk. Later writes would fail too, so staging stops.
type unwritten struct{ error }

func (u unwritten) Unwrap() error { return u.error }

// compressed is what gzip -9n makes of data: no name, no time.
func compressed(data []byte) ([]byte, error) {
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	_, err = w.Write(data)
	err = errors.Join(err, w.Close())
	return b.Bytes(), err
}
