package pkgread

import (
	"cmp"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"math"
	"path"
	"slices"

	"github.com/cavaliergopher/cpio"

	"pretag/build/internal/rpmheader"
	"pretag/build/release"
)

// rpmMagic begins the lead (rpm 4.18, docs/manual/format.md).
func rpmMagic() []byte { return []byte{0xed, 0xab, 0xee, 0xdb} }

// Tags of the header (rpm 4.18, include/rpm/rpmtag.h).
const (
	tagName, tagVersion, tagRelease, tagEpoch                 = 1000, 1001, 1002, 1003
	tagSummary, tagDescription, tagVendor, tagLicense         = 1004, 1005, 1011, 1014
	tagPackager, tagGroup, tagURL, tagArch                    = 1015, 1016, 1020, 1022
	tagFileSizes, tagFileModes, tagFileMTimes, tagFileDigests = 1028, 1030, 1034, 1035
	tagFileLinkTos, tagFileFlags, tagFileUser, tagFileGroup   = 1036, 1037, 1039, 1040
	tagFileInodes, tagPayloadFormat, tagPayloadCompressor     = 1096, 1124, 1125
	tagLongFileSizes, tagFileDigestAlgo, tagPayloadDigestAlgo = 5008, 5011, 5093
)

// Tags of the signature header (rpm 4.18, include/rpm/rpmtag.h).
const sigDSA, sigSHA1, sigGPG = 267, 269, 1005

const fileConfig, fileGhost = 1 << 0, 1 << 6 // rpm 4.18, include/rpm/rpmfiles.h

// A header is one of the two headers of an rpm, with its bytes.
type header struct {
	*rpmheader.Header
	raw []byte
}

func readHeader(r io.Reader) (header, error) {
	h, raw, err := rpmheader.Read(r)
	return header{h, raw}, err
}

func (r *Reader) openRPM(size int64) error {
	if _, err := io.CopyN(io.Discard, r.file, rpmheader.LeadSize); err != nil {
		return err
	}
	signature, err := readHeader(r.file)
	if err != nil {
		return fmt.Errorf("signature header: %w", err)
	}
	if _, err := io.CopyN(io.Discard, r.file, int64(rpmheader.Padding(len(signature.raw)))); err != nil {
		return err
	}
	at, err := r.file.Seek(0, io.SeekCurrent)
	if err != nil {
		return err
	}
	h, err := readHeader(r.file)
	if err != nil {
		return fmt.Errorf("header: %w", err)
	}
	if err := r.checkSignature(signature, h, at, size); err != nil {
		return err
	}
	if err := r.describe(h); err != nil {
		return fmt.Errorf("header: %w", err)
	}
	files, err := h.files()
	if err != nil {
		return fmt.Errorf("header: %w", err)
	}

	want, digest, err := h.payloadDigest()
	if err != nil {
		return fmt.Errorf("header: %w", err)
	}
	var raw io.Reader = r.file
	if digest != nil {
		raw = io.TeeReader(raw, digest)
	}
	plain, kind, err := r.payload(raw, r.Compression)
	if err != nil {
		return err
	}
	r.Compression = kind
	r.contents = func(yield func(Entry, error) bool) {
		if !yieldCPIO(plain, files, yield) {
			return
		}
		// past the archive's end, to the checksums
		if _, err := io.Copy(io.Discard, plain); err != nil {
			yield(Entry{}, err)
			return
		}
		if _, err := io.Copy(io.Discard, raw); err != nil {
			yield(Entry{}, err)
			return
		}
		if digest != nil {
			if got := fmt.Sprintf("%x", digest.Sum(nil)); got != want {
				yield(Entry{}, fmt.Errorf("payload: digest %s, want %s as the header says", got, want))
			}
		}
	}
	return nil
}

// payloadDigest returns the digest that the compressed payload must have, and the
// hash that computes it; nil if the header has no digest.
func (h header) payloadDigest() (want string, digest hash.Hash, err error) {
	want, err = h.String(rpmheader.TagPayloadDigest)
	if err != nil || want == "" {
		return "", nil, err
	}
	algorithm, err := h.Ints(tagPayloadDigestAlgo)
	if err != nil {
		return "", nil, err
	}
	if len(algorithm) == 0 {
		algorithm = []int64{8} // rpm 4.18, lib/rpmvs.c: SHA-256
	}
	digest, err = newHash(algorithm[0])
	return want, digest, err
}

// checkSignature checks the digests of the header h, which begins at the offset
// at of the file of size bytes, and keeps the signatures.
func (r *Reader) checkSignature(signature, h header, at, size int64) error {
	header, all := int64(len(h.raw)), size-at
	for _, check := range []struct {
		tag    uint32
		digest hash.Hash
	}{{rpmheader.SigSHA256, sha256.New()}, {sigSHA1, sha1.New()}} {
		want, err := signature.String(check.tag)
		if err != nil {
			return fmt.Errorf("signature header: %w", err)
		}
		check.digest.Write(h.raw)
		if got := fmt.Sprintf("%x", check.digest.Sum(nil)); want != "" && got != want {
			return fmt.Errorf("header: digest %s, want %s as the signature header says", got, want)
		}
	}
	for _, place := range []struct {
		tag  uint32
		name string
		size int64
	}{{rpmheader.SigRSA, "header", header}, {sigDSA, "header", header}, {rpmheader.SigPGP, "header and payload", all}, {sigGPG, "header and payload", all}} {
		data, err := signature.Bytes(place.tag)
		if err != nil {
			return fmt.Errorf("signature header: %w", err)
		}
		if data != nil {
			signed := func() io.Reader { return io.NewSectionReader(r.file, at, place.size) }
			r.Signatures = append(r.Signatures, Signature{place.name, data, signed})
		}
	}
	return nil
}

// describe fills in the metadata.
func (r *Reader) describe(h header) error {
	r.Format, r.Relations, r.Scripts = release.RPM, map[string][]string{}, map[string]string{}
	var format string
	var errs []error
	for _, field := range []struct {
		tag uint32
		at  *string
	}{
		{tagName, &r.Name},
		{tagVersion, &r.Version},
		{tagRelease, &r.Release},
		{tagArch, &r.Arch},
		{tagSummary, &r.Summary},
		{tagDescription, &r.Description},
		{tagLicense, &r.License},
		{tagGroup, &r.Section},
		{tagPackager, &r.Maintainer},
		{tagVendor, &r.Vendor},
		{tagURL, &r.Homepage},
		{tagPayloadFormat, &format},
		{tagPayloadCompressor, &r.Compression},
	} {
		var err error
		*field.at, err = h.String(field.tag)
		errs = append(errs, err)
	}
	epoch, err := h.Ints(tagEpoch)
	if errs = append(errs, err); len(epoch) > 0 {
		r.Epoch = fmt.Sprint(epoch[0])
	}
	if cmp.Or(format, "cpio") != "cpio" {
		errs = append(errs, fmt.Errorf("payload has the format %q, only cpio is supported", format))
	}
	if r.Name == "" || r.Version == "" || r.Arch == "" {
		errs = append(errs, errors.New("no package name, version or architecture"))
	}

	// name, flags, version of each kind of relation
	for word, tags := range map[string][3]uint32{
		"provides": {1047, 1112, 1113}, "requires": {1049, 1048, 1050}, "conflicts": {1054, 1053, 1055},
		"obsoletes": {1090, 1114, 1115}, "recommends": {5046, 5048, 5047}, "suggests": {5049, 5051, 5050},
		"supplements": {5052, 5054, 5053}, "enhances": {5055, 5057, 5056},
	} {
		relations, err := h.relations(tags)
		if errs = append(errs, err); len(relations) > 0 {
			r.Relations[word] = relations
		}
	}
	for word, tag := range map[string]uint32{
		"prein": 1023, "postin": 1024, "preun": 1025, "postun": 1026,
		"verifyscript": 1079, "pretrans": 1151, "posttrans": 1152,
	} {
		script, err := h.String(tag)
		if errs = append(errs, err); script != "" {
			r.Scripts[word] = script
		}
	}
	return errors.Join(errs...)
}

func (h header) relations(tags [3]uint32) ([]string, error) {
	names, err1 := h.Strings(tags[0])
	flags, err2 := h.Ints(tags[1])
	versions, err3 := h.Strings(tags[2])
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, err
	}
	for i, name := range names {
		if i >= len(flags) || i >= len(versions) || versions[i] == "" {
			continue
		}
		op := ""
		for bit, sign := range []string{1: "<", 2: ">", 3: "="} { // RPMSENSE_LESS, GREATER, EQUAL
			if sign != "" && flags[i]&(1<<bit) != 0 {
				op += sign
			}
		}
		names[i] = name + " " + op + " " + versions[i]
	}
	return names, nil
}

// A listed file is one that the header lists.
type listed struct {
	Entry
	digest   hash.Hash
	want     string
	ghost    bool
	received bool
}

// files returns the files that the header lists, in their order.
func (h header) files() ([]*listed, error) {
	var errs []error
	stringsOf := func(tag uint32) []string { v, err := h.Strings(tag); errs = append(errs, err); return v }
	intsOf := func(tag uint32) []int64 { v, err := h.Ints(tag); errs = append(errs, err); return v }

	paths, err := h.Paths()
	errs = append(errs, err)
	users, groups, links, digests := stringsOf(tagFileUser), stringsOf(tagFileGroup), stringsOf(tagFileLinkTos), stringsOf(tagFileDigests)
	modes, times, flags, inodes := intsOf(tagFileModes), intsOf(tagFileMTimes), intsOf(tagFileFlags), intsOf(tagFileInodes)
	sizes, algorithm := intsOf(tagFileSizes), intsOf(tagFileDigestAlgo)
	if long := intsOf(tagLongFileSizes); long != nil {
		sizes = long
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	for _, n := range []int{len(users), len(groups), len(links), len(digests), len(modes), len(times), len(flags), len(sizes)} {
		if n != len(paths) {
			return nil, fmt.Errorf("%d files, but %d values of one of their tags", len(paths), n)
		}
	}
	algo := int64(1) // MD5 is the default (RFC 4880 9.4)
	if len(algorithm) > 0 {
		algo = algorithm[0]
	}
	last := map[int64]int{} // of the files of one inode, the one that has the body
	files := make([]*listed, len(paths))
	for i, path := range paths {
		f := &listed{
			Entry: Entry{
				Path: path, Mode: unixMode(modes[i]), MTime: times[i],
				Owner: users[i], Group: groups[i], Link: links[i], Config: flags[i]&fileConfig != 0,
			},
			ghost: flags[i]&fileGhost != 0,
		}
		if f.Mode.IsRegular() {
			f.Size = sizes[i]
			if digests[i] != "" {
				if f.digest, err = newHash(algo); err != nil {
					return nil, fmt.Errorf("%s: %w", path, err)
				}
				f.want = digests[i]
			}
			if i < len(inodes) {
				last[inodes[i]] = i
			}
		}
		files[i] = f
	}
	for i, f := range files {
		if i < len(inodes) && f.Mode.IsRegular() && last[inodes[i]] != i {
			f.Link, f.Hard = files[last[inodes[i]]].Path, true
		}
	}
	return files, nil
}

// newHash returns a hash by its OpenPGP number (RFC 4880 9.4). A digest of another
// algorithm cannot be checked, which is an error: rpm says "NOT OK".
func newHash(algorithm int64) (hash.Hash, error) {
	switch algorithm {
	case 1:
		return md5.New(), nil
	case 2:
		return sha1.New(), nil
	case 8:
		return sha256.New(), nil
	case 9:
		return sha512.New384(), nil
	case 10:
		return sha512.New(), nil
	case 11:
		return sha256.New224(), nil
	}
	return nil, fmt.Errorf("digest algorithm %d is not supported", algorithm)
}

// unixMode converts the mode of a file.
func unixMode(mode int64) fs.FileMode {
	m := fs.FileMode(mode & 0o777)
	for bit, flag := range map[int64]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky} {
		if mode&bit != 0 {
			m |= flag
		}
	}
	return m | map[int64]fs.FileMode{
		0o040000: fs.ModeDir, 0o120000: fs.ModeSymlink, 0o010000: fs.ModeNamedPipe, 0o140000: fs.ModeSocket,
		0o020000: fs.ModeDevice | fs.ModeCharDevice, 0o060000: fs.ModeDevice,
	}[mode&0o170000]
}

// yieldCPIO yields the files of a payload as the header lists them. It returns
// false if reading must stop.
func yieldCPIO(plain io.Reader, files []*listed, yield func(Entry, error) bool) bool {
	byPath := map[string]*listed{}
	for _, f := range files {
		byPath[f.Path] = f
	}
	for r := cpio.NewReader(plain); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) { // the trailer, or no more bytes
			break
		}
		if err != nil && slices.ContainsFunc(files, func(f *listed) bool { return f.Size > math.MaxUint32 }) {
			// rpm 4.18, lib/cpio.c: CPIO_STRIPPED_MAGIC
			err = errors.New("rpm's own cpio format for files above 4 GiB (07070X) is not supported; unpack it with rpm2archive")
		}
		if err != nil {
			yield(Entry{}, fmt.Errorf("payload: %w", err))
			return false
		}
		f := byPath[path.Join("/", h.Name)]
		switch {
		case f == nil || f.received:
			err = fmt.Errorf("payload: %.200q is not in the header, or twice in the payload", h.Name)
		case unixMode(int64(h.Mode)) != f.Mode:
			err = fmt.Errorf("%s: mode %v, want %v as the header says", f.Path, unixMode(int64(h.Mode)), f.Mode)
		case f.Mode&fs.ModeSymlink != 0 && h.Linkname != f.Link:
			err = fmt.Errorf("%s: links to %q, want %q as the header says", f.Path, h.Linkname, f.Link)
		case f.Mode.IsRegular() && !f.Hard && h.Size != f.Size:
			err = fmt.Errorf("%s: %d bytes, want %d as the header says", f.Path, h.Size, f.Size)
		case !f.Mode.IsRegular() || f.Hard:
			if h.Size != 0 {
				err = fmt.Errorf("%s: %d bytes, but it is a link or not a regular file", f.Path, h.Size)
			}
		default:
			f.Body = &body{r, f.Size, f.digest, f.want}
		}
		if err != nil {
			yield(Entry{}, err)
			return false
		}
		f.received = true
		if !yield(f.Entry, nil) {
			return false
		}
	}
	for _, f := range files {
		if !f.received && !f.ghost {
			yield(Entry{}, fmt.Errorf("%s: listed in the header, missing in the payload", f.Path))
			return false
		}
	}
	return true
}
