package sbom

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"

	"pretag/build/internal/rpmheader"
)

// Tags of a header (rpm 4.18, include/rpm/rpmtag.h).
const (
	tagName, tagVersion, tagRelease, tagEpoch = 1000, 1001, 1002, 1003
	tagVendor, tagLicense, tagURL, tagArch    = 1011, 1014, 1020, 1022
	tagSource                                 = 1044
)

// rpm reads an rpm database and its write-ahead log, which may be empty.
func (l *licenses) rpm(ctx context.Context, db, wal []byte) iter.Seq2[software, error] {
	return func(yield func(software, error) bool) {
		headers, err := rpmHeaders(ctx, db, wal)
		if err != nil {
			yield(software{}, err)
			return
		}
		for n, header := range headers {
			if ctx.Err() != nil {
				yield(software{}, context.Cause(ctx))
				return
			}
			s, err := l.rpmPackage(header)
			if err != nil {
				yield(s, fmt.Errorf("header %d: %w", n+1, err))
				return
			}
			if s.name == "gpg-pubkey" { // a key that rpm was told to trust
				continue
			}
			if !yield(s, nil) {
				return
			}
		}
	}
}

func (l *licenses) rpmPackage(header []byte) (software, error) {
	h, err := rpmheader.Parse(header)
	if err != nil {
		return software{}, err
	}
	s := software{kind: "rpm"}
	var release, words string
	var errs []error
	for tag, at := range map[uint32]*string{
		tagName: &s.name, tagVersion: &s.version, tagRelease: &release, tagArch: &s.arch,
		tagVendor: &s.supplier, tagLicense: &words, tagURL: &s.homepage, tagSource: &s.source,
	} {
		*at, err = h.String(tag)
		errs = append(errs, err)
	}
	epoch, err1 := h.Ints(tagEpoch)
	paths, err2 := h.Paths()
	if err := errors.Join(append(errs, err1, err2)...); err != nil {
		return software{}, err
	}
	if s.name == "" || s.version == "" {
		return software{}, errors.New("no package name or version")
	}
	if s.version += "-" + release; len(epoch) > 0 {
		s.epoch = fmt.Sprint(epoch[0])
	}
	s.license, s.files = l.expression(words), slices.Values(paths)
	return s, nil
}
