// Package rpmheader reads the headers of rpm: those of packages and those that
// rpm's database keeps of installed packages. It doubts every number in them.
package rpmheader

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"path"
	"slices"
	"strings"
)

// maxValues is the most values that a tag is read with; the largest packages have
// some 100,000 files.
const maxValues = 1 << 18

// What the paths of a header may take: a folder's name stands there once for all
// of its files.
const (
	maxPath  = 4096     // bytes of one (PATH_MAX of Linux, limits.h)
	maxPaths = 64 << 20 // bytes of all
)

// Tags of the files (rpm 4.18, include/rpm/rpmtag.h).
const tagDirIndexes, tagBaseNames, tagDirNames = 1116, 1117, 1118

// Types of tags (rpm 4.18, include/rpm/rpmtag.h).
const (
	typeInt16, typeInt32, typeInt64             = 3, 4, 5
	typeString, typeBin, typeStrings, typeI18nS = 6, 7, 8, 9
)

// A Header is the values of some tags.
type Header struct {
	tags map[uint32]tagged
}

type tagged struct {
	kind, count uint32
	data        []byte // from the value's first byte to the store's end
}

// Parse reads a header from the two numbers that begin it to its end: how many
// tags, how many bytes, the index, the store (rpm 4.18, docs/manual/format.md).
func Parse(blob []byte) (*Header, error) {
	if len(blob) < 8 {
		return nil, io.ErrUnexpectedEOF
	}
	entries, size := int64(binary.BigEndian.Uint32(blob)), int64(binary.BigEndian.Uint32(blob[4:]))
	rest := blob[8:]
	if int64(len(rest)) < entries*16+size {
		return nil, fmt.Errorf("%d tags and %d bytes do not fit into %d bytes", entries, size, len(rest))
	}
	h := &Header{tags: map[uint32]tagged{}}
	index, store := rest[:entries*16], rest[entries*16:][:size]
	for entry := range slices.Chunk(index, 16) {
		word := func(i int) uint32 { return binary.BigEndian.Uint32(entry[4*i:]) }
		tag, kind, offset, count := word(0), word(1), word(2), word(3)
		if int64(offset) > size || int64(count) > size {
			return nil, fmt.Errorf("tag %d: %d values at offset %d of %d bytes", tag, count, int32(offset), size)
		}
		if kind != typeBin && count > maxValues { // what costs a byte there costs 16 in memory
			return nil, fmt.Errorf("tag %d: %d values, at most %d", tag, count, maxValues)
		}
		h.tags[tag] = tagged{kind, count, store[offset:]}
	}
	return h, nil
}

// Strings is a tag's values; nil where the header has no such tag.
func (h *Header) Strings(tag uint32) ([]string, error) {
	t, ok := h.tags[tag]
	if !ok {
		return nil, nil
	}
	if t.kind != typeString && t.kind != typeStrings && t.kind != typeI18nS {
		return nil, fmt.Errorf("tag %d: type %d is no string", tag, t.kind)
	}
	values := make([]string, 0, t.count)
	for data := t.data; len(values) < int(t.count); {
		value, rest, ok := bytes.Cut(data, []byte{0})
		if !ok {
			return nil, fmt.Errorf("tag %d: %w", tag, io.ErrUnexpectedEOF)
		}
		values, data = append(values, string(value)), rest
	}
	return values, nil
}

// String is a tag's first value, "" where there is none.
func (h *Header) String(tag uint32) (string, error) {
	values, err := h.Strings(tag)
	if len(values) == 0 {
		return "", err
	}
	return values[0], err
}

// Ints is a tag's values, none below 0; nil where the header has no such tag.
func (h *Header) Ints(tag uint32) ([]int64, error) {
	t, ok := h.tags[tag]
	if !ok {
		return nil, nil
	}
	width, ok := map[uint32]int{typeInt16: 2, typeInt32: 4, typeInt64: 8}[t.kind]
	if !ok {
		return nil, fmt.Errorf("tag %d: type %d is no number", tag, t.kind)
	}
	if len(t.data) < int(t.count)*width {
		return nil, fmt.Errorf("tag %d: %w", tag, io.ErrUnexpectedEOF)
	}
	values := make([]int64, t.count)
	for i := range values {
		switch at := t.data[i*width:]; width {
		case 2:
			values[i] = int64(binary.BigEndian.Uint16(at))
		case 4:
			values[i] = int64(binary.BigEndian.Uint32(at))
		case 8:
			value := binary.BigEndian.Uint64(at)
			if value > math.MaxInt64 {
				return nil, fmt.Errorf("tag %d: %d is no number of anything", tag, value)
			}
			values[i] = int64(value)
		}
	}
	return values, nil
}

// Paths are the absolute and clean paths of the files, in their order.
func (h *Header) Paths() ([]string, error) {
	names, err1 := h.Strings(tagBaseNames)
	folders, err2 := h.Strings(tagDirNames)
	indexes, err3 := h.Ints(tagDirIndexes)
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, err
	}
	if len(indexes) != len(names) {
		return nil, fmt.Errorf("%d files, but folders of %d", len(names), len(indexes))
	}
	paths, size := make([]string, len(names)), 0
	for i, name := range names {
		if indexes[i] >= int64(len(folders)) {
			return nil, fmt.Errorf("%.200s: folder %d of %d", name, indexes[i], len(folders))
		}
		if strings.Contains(name, "/") {
			return nil, fmt.Errorf("%.200q is no file name", name)
		}
		folder := folders[indexes[i]]
		n := len(folder) + len(name)
		if n > maxPath {
			return nil, fmt.Errorf("%.200s...: a path of %d bytes, at most %d", path.Join("/", folder, name), n, maxPath)
		}
		if size += n; size > maxPaths {
			return nil, fmt.Errorf("paths of more than %d bytes", maxPaths)
		}
		paths[i] = path.Join("/", folder, name)
	}
	return paths, nil
}

// Bytes is a tag's binary value; nil where the header has no such tag.
func (h *Header) Bytes(tag uint32) ([]byte, error) {
	t, ok := h.tags[tag]
	if !ok {
		return nil, nil
	}
	if t.kind != typeBin || len(t.data) < int(t.count) {
		return nil, fmt.Errorf("tag %d: type %d, %d bytes of %d", tag, t.kind, len(t.data), t.count)
	}
	return t.data[:t.count], nil
}
