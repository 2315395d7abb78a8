// Package rpmheader reads and writes the headers of rpm: those of packages and those
// that rpm's database keeps of installed packages. It validates every number it reads.
package rpmheader

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"path"
	"slices"
	"strings"
)

// Limits on a header.
const (
	maxHeader = 64 << 20  // bytes
	maxTags   = 1<<16 - 1 // rpm 4.18, lib/header.c: HEADER_TAGS_MAX
	maxValues = 1 << 18   // of one tag; the largest packages have some 100,000 files
	maxPath   = 4096      // bytes of one path (PATH_MAX of Linux, limits.h)
	maxPaths  = 64 << 20  // bytes of all paths: a directory's name is stored once for all of its files
)

// LeadSize is the size of the lead, which begins a package, in bytes
// (rpm 4.18, docs/manual/format.md).
const LeadSize = 96

// Padding returns how many bytes follow a signature header of size bytes, which ends at
// a multiple of 8 (rpm 4.18, docs/manual/format.md).
func Padding(size int) int { return -size & 7 }

// Tags of the header, and of the signature header (rpm 4.18, include/rpm/rpmtag.h).
const (
	TagSourceRPM, TagPayloadDigest     = 1044, 5092
	SigRSA, SigSHA256, SigSize, SigPGP = 268, 273, 1000, 1002
)

// Tags of the files (rpm 4.18, include/rpm/rpmtag.h).
const tagDirIndexes, tagBaseNames, tagDirNames = 1116, 1117, 1118

// The first and the last region tag. A region tag comes first in the index and its
// value, a trailer, behind the values of the region (rpm 4.18, include/rpm/rpmtag.h
// and docs/manual/format.md).
const firstRegion, lastRegion = 61, 63

// Types of tags (rpm 4.18, include/rpm/rpmtag.h).
const (
	typeChar, typeInt8, typeInt16, typeInt32, typeInt64 = 1, 2, 3, 4, 5
	typeString, typeBin, typeStrings, typeI18nStrings   = 6, 7, 8, 9
)

// A Header is the tags of a header with their values.
type Header struct {
	tags map[uint32]value
}

type value struct {
	kind, count uint32
	data        []byte
}

// magic begins a header in a package (rpm 4.18, docs/manual/format.md).
func magic() []byte { return []byte{0x8e, 0xad, 0xe8, 0x01} }

// introSize is the size of what comes before the index of a header in a package:
// the magic, four reserved bytes, and the two numbers that Parse begins with.
const introSize = 16

// Read reads one header of a package, and returns its bytes too.
func Read(r io.Reader) (h *Header, raw []byte, err error) {
	raw = make([]byte, introSize)
	if _, err := io.ReadFull(r, raw); err != nil {
		return nil, nil, err
	}
	if !bytes.HasPrefix(raw, magic()) {
		return nil, nil, fmt.Errorf("begins with %x, want %x", raw[:4], magic())
	}
	entries, size := int64(binary.BigEndian.Uint32(raw[8:])), int64(binary.BigEndian.Uint32(raw[12:]))
	if entries*16+size > maxHeader {
		return nil, nil, fmt.Errorf("%d tags and %d bytes, at most %d bytes are read", entries, size, maxHeader)
	}
	b := bytes.NewBuffer(raw)
	if n, err := io.Copy(b, io.LimitReader(r, entries*16+size)); err != nil || n < entries*16+size {
		return nil, nil, cmp.Or(err, io.ErrUnexpectedEOF)
	}
	h, err = Parse(b.Bytes()[8:])
	return h, b.Bytes(), err
}

// Parse reads a header from the two numbers that begin it to its end: how many
// tags, how many bytes, the index, the store (rpm 4.18, docs/manual/format.md).
// Like rpm it refuses values that overlap or are not in the order of the index
// (lib/header.c, hdrblobVerifyInfo), so that no byte is read for two tags.
func Parse(blob []byte) (*Header, error) {
	if len(blob) < 8 {
		return nil, io.ErrUnexpectedEOF
	}
	entries, size := int64(binary.BigEndian.Uint32(blob)), int64(binary.BigEndian.Uint32(blob[4:]))
	if entries > maxTags {
		return nil, fmt.Errorf("header has %d tags, at most %d are allowed", entries, maxTags)
	}
	rest := blob[8:]
	if int64(len(rest)) < entries*16+size {
		return nil, fmt.Errorf("%d tags and %d bytes do not fit into %d bytes", entries, size, len(rest))
	}
	h := &Header{tags: map[uint32]value{}}
	index, store := rest[:entries*16], rest[entries*16:][:size]
	end := int64(0) // of the values so far
	for entry := range slices.Chunk(index, 16) {
		word := func(i int) uint32 { return binary.BigEndian.Uint32(entry[4*i:]) }
		tag, kind, offset, count := word(0), word(1), int64(word(2)), int64(word(3))
		if len(h.tags) == 0 && end == 0 && tag >= firstRegion && tag <= lastRegion {
			continue
		}
		if offset < end {
			return nil, fmt.Errorf("tag %d at offset %d overlaps the tag before it, which ends at %d", tag, offset, end)
		}
		if offset > size {
			return nil, fmt.Errorf("tag %d at offset %d of %d bytes", tag, offset, size)
		}
		n, err := length(kind, count, store[offset:])
		if err != nil {
			return nil, fmt.Errorf("tag %d: %w", tag, err)
		}
		h.tags[tag] = value{kind, word(3), store[offset:][:n]}
		end = offset + n
	}
	return h, nil
}

// length returns how many bytes at the beginning of data the values of a tag take.
func length(kind uint32, count int64, data []byte) (n int64, err error) {
	if count > maxValues && kind != typeBin && kind != typeChar && kind != typeInt8 {
		return 0, fmt.Errorf("%d values, at most %d are read", count, maxValues)
	}
	switch kind {
	case typeChar, typeInt8, typeInt16, typeInt32, typeInt64, typeBin:
		n = count * max(1, width(kind))
		if n > int64(len(data)) {
			return 0, io.ErrUnexpectedEOF
		}
	case typeString, typeStrings, typeI18nStrings:
		for range count {
			i := bytes.IndexByte(data[n:], 0)
			if i < 0 {
				return 0, io.ErrUnexpectedEOF
			}
			n += int64(i) + 1
		}
	default:
		return 0, fmt.Errorf("unknown type %d", kind)
	}
	return n, nil
}

// width returns the bytes of a number that Ints reads, or 0.
func width(kind uint32) int64 {
	return map[uint32]int64{typeInt16: 2, typeInt32: 4, typeInt64: 8}[kind]
}

// Strings returns the values of a tag, nil if the header does not have it.
func (h *Header) Strings(tag uint32) ([]string, error) {
	v, ok := h.tags[tag]
	if !ok || len(v.data) == 0 {
		return nil, nil
	}
	if v.kind != typeString && v.kind != typeStrings && v.kind != typeI18nStrings {
		return nil, fmt.Errorf("tag %d has type %d, want strings", tag, v.kind)
	}
	return strings.Split(string(v.data[:len(v.data)-1]), "\x00"), nil
}

// String returns the first value of a tag, "" if there is none.
func (h *Header) String(tag uint32) (string, error) {
	values, err := h.Strings(tag)
	if len(values) == 0 {
		return "", err
	}
	return values[0], err
}

// Ints returns the values of a tag, nil if the header does not have it. None is negative.
func (h *Header) Ints(tag uint32) ([]int64, error) {
	v, ok := h.tags[tag]
	if !ok {
		return nil, nil
	}
	width := width(v.kind)
	if width == 0 {
		return nil, fmt.Errorf("tag %d has type %d, want numbers", tag, v.kind)
	}
	var values []int64
	for number := range slices.Chunk(v.data, int(width)) {
		var value uint64
		for _, b := range number {
			value = value<<8 | uint64(b)
		}
		if value > math.MaxInt64 {
			return nil, fmt.Errorf("tag %d: %d is out of range", tag, value)
		}
		values = append(values, int64(value))
	}
	return values, nil
}

// Bytes returns the binary value of a tag, nil if the header does not have it.
func (h *Header) Bytes(tag uint32) ([]byte, error) {
	v, ok := h.tags[tag]
	if ok && v.kind != typeBin {
		return nil, fmt.Errorf("tag %d has type %d, want binary data", tag, v.kind)
	}
	return v.data, nil
}

// Paths returns the absolute and clean paths of the files, in their order.
func (h *Header) Paths() ([]string, error) {
	names, err1 := h.Strings(tagBaseNames)
	dirs, err2 := h.Strings(tagDirNames)
	indexes, err3 := h.Ints(tagDirIndexes)
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, err
	}
	if len(indexes) != len(names) {
		return nil, fmt.Errorf("%d files, but directories of %d", len(names), len(indexes))
	}
	paths, size := make([]string, len(names)), 0
	for i, name := range names {
		if indexes[i] >= int64(len(dirs)) {
			return nil, fmt.Errorf("%.200q is in directory %d of %d", name, indexes[i], len(dirs))
		}
		if strings.Contains(name, "/") {
			return nil, fmt.Errorf("file name %.200q contains a slash", name)
		}
		dir := dirs[indexes[i]]
		n := len(dir) + len(name)
		if n > maxPath {
			return nil, fmt.Errorf("path %.200q... has %d bytes, at most %d are allowed", dir+name, n, maxPath)
		}
		if size += n; size > maxPaths {
			return nil, fmt.Errorf("paths of more than %d bytes", maxPaths)
		}
		paths[i] = path.Join("/", dir, name)
	}
	return paths, nil
}
