package pkgread

import (
	"archive/tar"
	"bufio"
	"bytes"
	"crypto/md5"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"

	"pretag/build/release"
)

// A deb is an ar archive of debian-binary, control.tar, data.tar and, after
// them, signatures (deb(5), dpkg 1.21; debsigs puts _gpgorigin last).
func (r *Reader) openDeb() error {
	info, err := r.file.Stat()
	if err != nil {
		return err
	}
	members, err := arMembers(r.file, info.Size())
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

// member returns the first one of that name with any compression, and says which.
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
// bodies of the others, one behind the other (debsigs 0.1.15, debsigs(1p)).
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
// and which are configuration.
func (r *Reader) readControl(raw io.Reader, kind string) (digests map[string]string, config map[string]bool, err error) {
	plain, _, err := r.payload(raw, kind)
	if err != nil {
		return nil, nil, err
	}
	r.Format, r.Scripts = release.Deb, map[string]string{}
	digests, config = map[string]string{}, map[string]bool{}
	var fields map[string]string
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
			if fields, err = parseControl(data); err != nil {
				return nil, nil, err
			}
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
	if fields == nil {
		return nil, nil, errors.New("no control file")
	}
	return digests, config, r.describeDeb(fields)
}

// parseControl reads one paragraph of fields (Debian Policy 5.1), by names in
// lower case.
func parseControl(data []byte) (map[string]string, error) {
	fields := map[string]string{}
	var last string
	scanner := bufio.NewScanner(bytes.NewReader(data))
	scanner.Buffer(nil, maxMetadata)
	for line := 1; scanner.Scan(); line++ {
		text := scanner.Text()
		switch {
		case strings.TrimSpace(text) == "":
		case text[0] == ' ' || text[0] == '\t':
			if text = text[1:]; text == "." {
				text = ""
			}
			fields[last] += "\n" + text
		default:
			name, value, ok := strings.Cut(text, ":")
			if !ok {
				return nil, fmt.Errorf("control: line %d: %q is no field", line, text)
			}
			last = strings.ToLower(name)
			fields[last] = strings.TrimSpace(value)
		}
	}
	return fields, scanner.Err()
}

func (r *Reader) describeDeb(fields map[string]string) error {
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
		return errors.New("control: no package, version or architecture")
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
			err = fmt.Errorf("%s: a sparse file", file)
		case h.Typeflag == tar.TypeLink:
			e.Hard, e.Link = true, path.Join("/", h.Linkname)
		case e.Mode.IsRegular():
			b := &body{r: r, left: h.Size}
			if sum, ok := digests[file]; ok {
				b.digest, b.want = md5.New(), sum
			}
			e.Size, e.Body = h.Size, b
		case e.Mode&(fs.ModeDir|fs.ModeSymlink) == 0:
			err = fmt.Errorf("%s: a file of type %q", file, h.Typeflag)
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

// sparse tells a file that claims more bytes than it has.
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
