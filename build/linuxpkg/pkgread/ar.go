package pkgread

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

const (
	arMagic      = "!<arch>\n"
	arHeaderSize = 60    // bytes: name 16, mtime 12, uid 6, gid 6, mode 8, size 10, end 2 (ar(5))
	arHeaderEnd  = "`\n" // of every header

	// maxMembers is far above the three members of a deb and its signatures.
	maxMembers = 64
)

// An arMember is a file in an ar archive.
type arMember struct {
	*io.SectionReader
	name string
}

// arMembers returns the members of an ar archive of size bytes, in its order.
func arMembers(archive io.ReaderAt, size int64) ([]arMember, error) {
	var members []arMember
	for at := int64(len(arMagic)); at < size; {
		if len(members) == maxMembers {
			return nil, fmt.Errorf("more than %d members", maxMembers)
		}
		header := make([]byte, arHeaderSize)
		if _, err := archive.ReadAt(header, at); err != nil {
			return nil, fmt.Errorf("header of member %d: %w", len(members)+1, unexpected(err))
		}
		at += arHeaderSize
		name := strings.TrimSuffix(strings.TrimRight(string(header[:16]), " "), "/")
		field := strings.TrimRight(string(header[48:58]), " ")
		length, err := strconv.ParseInt(field, 10, 64)
		switch {
		case string(header[58:]) != arHeaderEnd:
			err = errors.New("its header has no end mark: the package is damaged")
		case err != nil || length < 0:
			err = fmt.Errorf("its size is %q, want a number: the package is damaged", field)
		case length > size-at:
			err = fmt.Errorf("%d bytes, but %d are left: %w", length, size-at, io.ErrUnexpectedEOF)
		}
		if err != nil {
			return nil, fmt.Errorf("member %q: %w", name, err)
		}
		members = append(members, arMember{io.NewSectionReader(archive, at, length), name})
		at += length + length&1 // headers begin at even offsets
	}
	return members, nil
}
