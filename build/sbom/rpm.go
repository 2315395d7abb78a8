package sbom

import (
	"errors"
	"fmt"

	"pretag/build/internal/rpmheader"
)

// Tags of a header (rpm 4.18, include/rpm/rpmtag.h).
const (
	tagName, tagVersion, tagRelease, tagEpoch = 1000, 1001, 1002, 1003
	tagVendor, tagLicense, tagURL, tagArch    = 1011, 1014, 1020, 1022
	tagSource                                 = 1044
)

// parseRPM reads the packages of an rpm database.
func parseRPM(database string, db, wal []byte, l *licences, files *lister) ([]software, error) {
	blobs, err := rpmHeaders(db, wal)
	if err != nil {
		return nil, err
	}
	var all []software
	for n, blob := range blobs {
		s, words, err := rpmPackage(blob, files)
		if err != nil {
			return nil, fmt.Errorf("header %d: %w", n+1, err)
		}
		if s.name == "gpg-pubkey" { // a key that rpm was given to trust
			continue
		}
		s.license, s.database = l.expression(words), database
		all = append(all, s)
	}
	return all, nil
}

func rpmPackage(blob []byte, files *lister) (s software, license string, err error) {
	h, err := rpmheader.Parse(blob)
	if err != nil {
		return s, "", err
	}
	s.kind = "rpm"
	var release string
	var errs []error
	for tag, at := range map[uint32]*string{
		tagName: &s.name, tagVersion: &s.version, tagRelease: &release, tagArch: &s.arch,
		tagVendor: &s.supplier, tagLicense: &license, tagURL: &s.homepage, tagSource: &s.source,
	} {
		*at, err = h.String(tag)
		errs = append(errs, err)
	}
	epoch, err := h.Ints(tagEpoch)
	errs = append(errs, err)
	paths, err := h.Paths()
	errs = append(errs, err)
	if s.name == "" || s.version == "" {
		errs = append(errs, errors.New("no name or no version"))
	}
	if err := errors.Join(errs...); err != nil {
		return s, "", err
	}
	s.version += "-" + release
	if len(epoch) > 0 {
		s.epoch = fmt.Sprint(epoch[0])
	}
	for _, path := range paths {
		if err := files.add(&s, "", path); err != nil {
			return s, "", err
		}
	}
	return s, license, nil
}
