package pkgread

import (
	"archive/tar"
	"crypto/md5"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"

	"pretag/build/internal/deb822"
	"pretag/build/release"
)

// openDeb reads the ar archive of debian-binary, control.tar, data.tar and, after
// them, signatures (deb(5), dpkg 1.21; debsigs puts _gpgorigin last).
func (r *Reader) openDeb(size int64) error {
	members, err := arMembers(r.file, size)
	if err != nil {
		return err
	}
	if len(members) == 0 {
		return io.ErrUnexpectedEOF
	}
	version, err := io.ReadAll(io.NewSectionReader(members[0], 0, 16))
	if err != nil {
		return err
	}
	if members[0].name != "debian-binary" || !strings.HasPrefix(string(version), "2.") {
		return fmt.Errorf("begins with %s %q, want debian-binary 2.0", members[0].name, version)
	}
	control, kind, err := member(members, "control.tar")
	if err != nil {
		return err
	}
	digests, config, err := r.readControl(control, kind)
	if err != nil {
		return fmt.Errorf("control.tar: %w", err)
	}
	if err := r.readSignatures(members); err != nil {
		return err
	}
	data, kind, err := member(members, "data.tar")
	if err != nil {
		return err
	}
	plain, kind, err := r.payload(data, kind)
	if err != nil {
		return fmt.Errorf("data.tar: %w", err)
	}
	r.Compression = kind
	r.contents = func(yield func(Entry, error) bool) {
		yieldTar(plain, digests, config, yield)
	}
	return nil
}

// member returns the first member of that name and the compression that its suffix names.
func member(members []arMember, want string) (m arMember, kind string, err error) {
	kinds := map[string]string{"": "none", ".gz": "gzip", ".xz": "xz", ".zst": "zstd", ".bz2": "bzip2", ".lzma": "lzma"}
	for _, m := range members {
		if suffix, ok := strings.CutPrefix(m.name, want); ok {
			if kind, ok := kinds[suffix]; ok {
				return m, kind, nil
			}
			return m, "", fmt.Errorf("%s: unknown compression", m.name)
		}
	}
	return m, "", fmt.Errorf("no %s", want)
}

// readSignatures keeps the members _gpg*, wherever they are. They sign the
// concatenated bodies of the others (debsigs 0.1.15, debsigs(1p)).
func (r *Reader) readSignatures(members []arMember) error {
	isSignature := func(m arMember) bool { return strings.HasPrefix(m.name, "_gpg") }
	signed := func() io.Reader {
		var bodies []io.Reader
		for _, m := range members {
			if !isSignature(m) {
				bodies = append(bodies, io.NewSectionReader(m, 0, m.Size()))
			}
		}
		return io.MultiReader(bodies...)
	}
	for _, m := range members {
		if !isSignature(m) {
			continue
		}
		data, err := bounded(m)
		if err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
		r.Signatures = append(r.Signatures, Signature{Place: m.name, Data: data, Signed: signed})
	}
	return nil
}

// readControl fills in the metadata. It returns the MD5 digest of each file,
// and which files are configuration.
func (r *Reader) readControl(raw io.Reader, kind string) (digests map[string]string, config map[string]bool, err error) {
	plain, _, err := r.payload(raw, kind)
	if err != nil {
		return nil, nil, err
	}
	r.Format, r.Scripts = release.Deb, map[string]string{}
	digests, config = map[string]string{}, map[string]bool{}
	var control []byte
	for members := tar.NewReader(io.LimitReader(plain, maxMetadata)); ; {
		h, err := members.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, nil, err
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		data, err := bounded(members)
		if err != nil {
			return nil, nil, err
		}
		switch name := path.Clean(h.Name); name {
		case "control":
			control = data
		case "md5sums":
			for line := range strings.Lines(string(data)) {
				if sum, file, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "  "); ok {
					digests[path.Join("/", file)] = sum
				}
			}
		case "conffiles":
			for line := range strings.Lines(string(data)) {
				config[strings.TrimSpace(line)] = true
			}
		case "preinst", "postinst", "prerm", "postrm", "config":
			r.Scripts[name] = string(data)
		}
	}
	for fields, err := range deb822.Paragraphs(r.ctx, control) {
		if err != nil {
			return nil, nil, fmt.Errorf("control: %w", err)
		}
		return digests, config, r.describeDeb(fields)
	}
	return nil, nil, errors.New("no control file, or an empty one")
}

// describeDeb fills in the metadata from the fields of the control file.
func (r *Reader) describeDeb(fields deb822.Paragraph) error {
	r.Name, r.Arch, r.Section = fields["package"], fields["architecture"], fields["section"]
	r.Maintainer, r.Homepage = fields["maintainer"], fields["homepage"]
	r.Vendor = fields["vendor"]
	r.Summary, r.Description, _ = strings.Cut(fields["description"], "\n")
	r.Version = fields["version"]
	if epoch, rest, ok := strings.Cut(r.Version, ":"); ok {
		r.Epoch, r.Version = epoch, rest
	}
	if i := strings.LastIndex(r.Version, "-"); i >= 0 { // Debian Policy 5.6.12
		r.Version, r.Release = r.Version[:i], r.Version[i+1:]
	}
	if r.Name == "" || r.Version == "" || r.Arch == "" {
		return errors.New("control: no package name, version or architecture")
	}
	r.Relations = map[string][]string{}
	for _, word := range []string{"pre-depends", "depends", "recommends", "suggests", "enhances", "provides", "conflicts", "breaks", "replaces"} {
		for relation := range strings.SplitSeq(fields[word], ",") {
			if relation = strings.TrimSpace(relation); relation != "" {
				r.Relations[word] = append(r.Relations[word], relation)
			}
		}
	}
	return nil
}

// yieldTar yields the files of a data.tar.
func yieldTar(plain io.Reader, digests map[string]string, config map[string]bool, yield func(Entry, error) bool) {
	for r := tar.NewReader(plain); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			yield(Entry{}, fmt.Errorf("data.tar: %w", err))
			return
		}
		file := path.Join("/", h.Name)
		if file == "/" {
			continue
		}
		e := Entry{
			Path: h.Name, Mode: h.FileInfo().Mode(), MTime: h.ModTime.Unix(),
			Owner: h.Uname, Group: h.Gname, Link: h.Linkname, Config: config[file],
		}
		if e.Owner == "" {
			e.Owner = fmt.Sprint(h.Uid)
		}
		if e.Group == "" {
			e.Group = fmt.Sprint(h.Gid)
		}
		switch {
		case sparse(h):
			err = fmt.Errorf("%s: sparse files are not supported", file)
		case h.Typeflag == tar.TypeLink:
			e.Hard, e.Link = true, path.Join("/", h.Linkname)
		case e.Mode.IsRegular():
			b := &body{r: r, left: h.Size}
			if sum, ok := digests[file]; ok {
				b.digest, b.want = md5.New(), sum
			}
			e.Size, e.Body = h.Size, b
		case e.Mode&(fs.ModeDir|fs.ModeSymlink) == 0:
			err = fmt.Errorf("%s: tar entries of type %q are not supported", file, h.Typeflag)
		}
		if err != nil {
			yield(Entry{}, err)
			return
		}
		if !yield(e, nil) {
			return
		}
	}
	if _, err := io.Copy(io.Discard, plain); err != nil { // to the checksums
		yield(Entry{}, fmt.Errorf("data.tar: %w", err))
	}
}

// sparse reports whether an entry is a file with holes, which can claim any size.
func sparse(h *tar.Header) bool {
	if h.Typeflag == tar.TypeGNUSparse {
		return true
	}
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return true
		}
	}
	return false
}
