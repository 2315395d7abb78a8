package rpmheader

import (
	"encoding/binary"
	"maps"
	"slices"
)

// The regions that a header of a package is in (rpm 4.18, include/rpm/rpmtag.h:
// RPMTAG_HEADERSIGNATURES, RPMTAG_HEADERIMMUTABLE).
const (
	SignatureRegion = 62
	ImmutableRegion = 63
)

// SetString sets a tag to one string.
func (h *Header) SetString(tag uint32, s string) { h.set(tag, typeString, 1, append([]byte(s), 0)) }

// SetStrings sets a tag to a list with one string.
func (h *Header) SetStrings(tag uint32, s string) { h.set(tag, typeStrings, 1, append([]byte(s), 0)) }

// SetInt sets a tag to one number of 32 bits.
func (h *Header) SetInt(tag uint32, n uint32) {
	h.set(tag, typeInt32, 1, binary.BigEndian.AppendUint32(nil, n))
}

// SetBytes sets a tag to binary data.
func (h *Header) SetBytes(tag uint32, data []byte) { h.set(tag, typeBin, uint32(len(data)), data) }

func (h *Header) set(tag, kind, count uint32, data []byte) {
	h.tags[tag] = value{kind, count, data}
}

// Encode returns the header as it is written into a package, with all tags in one
// region: their index in the order of their numbers, then the values, numbers aligned
// to their size, then the region's trailer (rpm 4.18, docs/manual/format.md).
func (h *Header) Encode(region uint32) []byte {
	entry := func(b []byte, words ...uint32) []byte {
		for _, word := range words {
			b = binary.BigEndian.AppendUint32(b, word)
		}
		return b
	}
	var index, store []byte
	for _, tag := range slices.Sorted(maps.Keys(h.tags)) {
		v := h.tags[tag]
		if width := int(width(v.kind)); width > 0 {
			store = append(store, make([]byte, -len(store)&(width-1))...)
		}
		index = entry(index, tag, v.kind, uint32(len(store)), v.count)
		store = append(store, v.data...)
	}
	const trailer = 16 // bytes, an entry whose offset leads back to the beginning of the index
	entries := uint32(len(h.tags) + 1)
	b := append(magic(), 0, 0, 0, 0)
	b = entry(b, entries, uint32(len(store)+trailer))
	b = entry(b, region, typeBin, uint32(len(store)), trailer)
	b = append(append(b, index...), store...)
	return entry(b, region, typeBin, -entries*16, trailer)
}
