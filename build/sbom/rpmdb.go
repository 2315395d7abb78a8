package sbom

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// rpmHeaders takes the packages' headers out of an rpm database in one of rpm's
// three forms, told apart by content. wal is what stands in the file beside an
// SQLite database that was not closed.
func rpmHeaders(db, wal []byte) ([][]byte, error) {
	switch r := (pages{db: db, taken: new(int64)}); {
	case len(db) == 0:
		return nil, nil
	case bytes.HasPrefix(db, []byte("SQLite format 3\x00")):
		if len(wal) > 0 {
			var err error
			if r.db, err = replay(db, wal); err != nil {
				return nil, err
			}
		}
		return r.sqlite()
	case bytes.HasPrefix(db, []byte("RpmP")):
		return r.ndb()
	default:
		return r.bdb()
	}
}

// pages reads a database without trusting a number in it.
type pages struct {
	db    []byte
	size  int64  // of a page
	taken *int64 // bytes of all values so far
}

// take counts a value of n bytes. No two share any in a database that is whole.
func (p pages) take(n int64) error {
	if n < 0 || n > int64(len(p.db))-*p.taken {
		return fmt.Errorf("a value of %d bytes behind %d, of %d in all", n, *p.taken, len(p.db))
	}
	*p.taken += n
	return nil
}

// at is n bytes from offset.
func (p pages) at(offset, n int64) ([]byte, error) {
	if offset < 0 || n < 0 || offset > int64(len(p.db)) || n > int64(len(p.db))-offset {
		return nil, fmt.Errorf("%d bytes at offset %d of %d", n, offset, len(p.db))
	}
	return p.db[offset : offset+n], nil
}

// sqlite reads the second column of the table Packages, which is
// (hnum INTEGER PRIMARY KEY, blob BLOB): rpm 4.18, lib/backend/sqlite.c. The
// file format is SQLite's (sqlite.org/fileformat2.html, the numbers are its sections).
func (p pages) sqlite() ([][]byte, error) {
	header, err := p.at(0, 100)
	if err != nil {
		return nil, err
	}
	p.size = int64(binary.BigEndian.Uint16(header[16:])) // 1.3.2
	if p.size == 1 {
		p.size = 65536
	}
	if p.size < 512 {
		return nil, fmt.Errorf("page size %d", p.size)
	}
	if pages := int64(binary.BigEndian.Uint32(header[28:])); pages*p.size > int64(len(p.db)) {
		return nil, fmt.Errorf("%d bytes, want %d pages of %d", len(p.db), pages, p.size)
	}
	usable := p.size - int64(header[20])
	root := int64(0)
	left := 2 * (int64(len(p.db))/p.size + 1)                      // pages; a bound for what damaged links can lead to
	err = p.table(1, usable, &left, func(columns [][]byte) error { // 2.6: type, name, tbl_name, rootpage, sql
		if len(columns) >= 4 && string(columns[0]) == "table" && string(columns[1]) == "Packages" {
			for _, b := range columns[3] {
				root = root<<8 | int64(b)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if root == 0 {
		return nil, errors.New("no table Packages")
	}
	var blobs [][]byte
	err = p.table(root, usable, &left, func(columns [][]byte) error {
		if len(columns) < 2 {
			return fmt.Errorf("a row of %d columns, want 2", len(columns))
		}
		blobs = append(blobs, columns[1])
		return nil
	})
	return blobs, err
}

// table visits the rows of the table whose b-tree has its root on the page (1.6).
func (p pages) table(number, usable int64, left *int64, row func([][]byte) error) error {
	if *left--; *left < 0 {
		return errors.New("pages link to each other in a circle")
	}
	start := (number - 1) * p.size
	page, err := p.at(start, p.size)
	if err != nil {
		return err
	}
	header := int64(0)
	if number == 1 {
		header = 100
	}
	kind, cells := page[header], int64(binary.BigEndian.Uint16(page[header+3:]))
	pointers := header + 8
	if kind == 5 { // interior: children, the rightmost in the header
		pointers += 4
	} else if kind != 13 {
		return fmt.Errorf("page %d: kind %d is no table", number, kind)
	}
	if pointers+2*cells > p.size {
		return fmt.Errorf("page %d: %d cells", number, cells)
	}
	for i := range cells {
		offset := int64(binary.BigEndian.Uint16(page[pointers+2*i:]))
		if offset+4 > p.size {
			return fmt.Errorf("page %d: a cell at %d", number, offset)
		}
		cell := page[offset:]
		if kind == 5 {
			err = p.table(int64(binary.BigEndian.Uint32(cell)), usable, left, row)
		} else {
			err = p.cell(cell, usable, row)
		}
		if err != nil {
			return err
		}
	}
	if kind == 5 {
		return p.table(int64(binary.BigEndian.Uint32(page[header+8:])), usable, left, row)
	}
	return nil
}

// cell reads one row, with what of it stands on overflow pages (1.6, 1.7).
func (p pages) cell(cell []byte, usable int64, row func([][]byte) error) error {
	size, n := varint(cell)
	_, m := varint(cell[n:]) // the row's number
	cell = cell[n+m:]
	if err := p.take(size); err != nil {
		return err
	}
	local := size
	if most := usable - 35; size > most {
		least := (usable-12)*32/255 - 23
		if local = least + (size-least)%(usable-4); local > most {
			local = least
		}
	}
	if local < 0 || local > int64(len(cell)) {
		return io.ErrUnexpectedEOF
	}
	payload := bytes.Clone(cell[:local])
	for rest := cell[local:]; int64(len(payload)) < size; {
		if len(rest) < 4 {
			return io.ErrUnexpectedEOF
		}
		page, err := p.at((int64(binary.BigEndian.Uint32(rest))-1)*p.size, p.size)
		if err != nil {
			return err
		}
		payload = append(payload, page[4:min(usable, 4+size-int64(len(payload)))]...)
		rest = page
	}
	columns, err := record(payload)
	if err != nil {
		return err
	}
	return row(columns)
}

// record takes a row apart (2.1).
func record(payload []byte) ([][]byte, error) {
	size, n := varint(payload)
	if size < int64(n) || size > int64(len(payload)) {
		return nil, io.ErrUnexpectedEOF
	}
	header, body := payload[n:size], payload[size:]
	var columns [][]byte
	for len(header) > 0 {
		kind, n := varint(header)
		header = header[n:]
		var width int64
		switch {
		case kind >= 12:
			width = (kind - 12) / 2
		case kind >= 0 && kind < 8:
			width = []int64{0, 1, 2, 3, 4, 6, 8, 8}[kind]
		}
		if width > int64(len(body)) {
			return nil, io.ErrUnexpectedEOF
		}
		columns, body = append(columns, body[:width]), body[width:]
	}
	return columns, nil
}

// varint is a number of one to nine bytes, and how many they are (1.6).
func varint(b []byte) (value int64, n int) {
	for n < len(b) {
		c := b[n]
		if n++; n == 9 {
			return value<<8 | int64(c), n
		}
		if value = value<<7 | int64(c&0x7f); c < 0x80 {
			break
		}
	}
	return value, n
}

// replay returns the database with the changes of the write-ahead log, up to
// the last that was committed (4.1 to 4.4).
func replay(db, wal []byte) ([]byte, error) {
	const headerSize, frameHeader = 32, 24
	if len(wal) < headerSize || binary.BigEndian.Uint32(wal)&^1 != 0x377f0682 {
		return nil, errors.New("what stands beside the database is no write-ahead log")
	}
	size, salt, rest := int(binary.BigEndian.Uint32(wal[8:])), wal[16:24], wal[headerSize:]
	if size < 512 || size > 65536 {
		return nil, fmt.Errorf("write-ahead log: page size %d", size)
	}
	changed := map[int64][]byte{} // not committed yet
	db = bytes.Clone(db)
	for len(rest) >= frameHeader+size && bytes.Equal(rest[8:16], salt) {
		changed[int64(binary.BigEndian.Uint32(rest))-1] = rest[frameHeader:][:size]
		if pages := int64(binary.BigEndian.Uint32(rest[4:])); pages > 0 { // a commit, and the database's size after it
			total := pages * int64(size)
			if total > int64(len(db)+len(wal)) {
				return nil, fmt.Errorf("write-ahead log: %d pages", pages)
			}
			db = append(db, make([]byte, max(0, total-int64(len(db))))...)[:total]
			for page, data := range changed {
				if page < 0 || page >= pages {
					return nil, fmt.Errorf("write-ahead log: page %d of %d", page+1, pages)
				}
				copy(db[page*int64(size):], data)
			}
			clear(changed)
		}
		rest = rest[frameHeader+size:]
	}
	return db, nil
}

// ndb reads SUSE's form: slots that point to blobs (rpm 4.18, lib/backend/ndb/rpmpkg.c).
func (p pages) ndb() ([][]byte, error) {
	header, err := p.at(0, 32)
	if err != nil {
		return nil, err
	}
	word := func(b []byte, i int) uint32 { return binary.LittleEndian.Uint32(b[4*i:]) }
	if v := word(header, 1); v != 0 {
		return nil, fmt.Errorf("ndb version %d, want 0", v)
	}
	slots, err := p.at(0, int64(word(header, 3))*4096)
	if err != nil {
		return nil, err
	}
	var blobs [][]byte
	for at := 32; at < len(slots); at += 16 {
		slot := slots[at : at+16]
		if string(slot[:4]) != "Slot" {
			return nil, fmt.Errorf("no slot at offset %d", at)
		}
		if word(slot, 1) == 0 { // free
			continue
		}
		offset := int64(word(slot, 2)) * 16
		block, err := p.at(offset, int64(word(slot, 3))*16)
		if err != nil {
			return nil, err
		}
		if len(block) < 16 || string(block[:4]) != "BlbS" || word(block, 1) != word(slot, 1) || int64(word(block, 3)) > int64(len(block)-16) {
			return nil, fmt.Errorf("no blob of package %d at offset %d", word(slot, 1), offset)
		}
		blob := block[16:][:word(block, 3)]
		if err := p.take(int64(len(blob))); err != nil {
			return nil, err
		}
		blobs = append(blobs, blob)
	}
	return blobs, nil
}

// Kinds of pages and items of a Berkeley DB (5.3, src/dbinc/db_page.h).
const (
	bdbMagic        = 0x061561
	bdbHashUnsorted = 2
	bdbHash         = 13
	bdbOverflow     = 7
	bdbKeyData      = 1
	bdbOffPage      = 3
	bdbPageHeader   = 26
)

// bdb reads the form of rpm up to 4.15: a hash of package numbers, whose values
// are the headers (rpm 4.15, lib/backend/db3.c).
func (p pages) bdb() ([][]byte, error) {
	meta, err := p.at(0, 512)
	if err != nil {
		return nil, err
	}
	var order binary.ByteOrder = binary.LittleEndian
	if order.Uint32(meta[12:]) != bdbMagic {
		order = binary.BigEndian
	}
	if order.Uint32(meta[12:]) != bdbMagic {
		return nil, errors.New("neither SQLite, ndb nor Berkeley DB")
	}
	if p.size = int64(order.Uint32(meta[20:])); p.size < 512 || p.size > 64<<10 { // of 512 to 64 KiB, src/dbinc/db_int.in
		return nil, fmt.Errorf("page size %d", p.size)
	}
	if last := int64(order.Uint32(meta[32:])); (last+1)*p.size > int64(len(p.db)) {
		return nil, fmt.Errorf("%d bytes, want %d pages of %d", len(p.db), last+1, p.size)
	}
	var blobs [][]byte
	for start := p.size; start < int64(len(p.db)); start += p.size {
		page, err := p.at(start, p.size)
		if err != nil {
			return nil, err
		}
		if page[25] != bdbHash && page[25] != bdbHashUnsorted {
			continue
		}
		// keys and values by turns; items grow down from the page's end
		end := p.size
		for i := range int64(order.Uint16(page[20:])) {
			if bdbPageHeader+2*i+2 > p.size {
				return nil, fmt.Errorf("page %d: too many items", start/p.size)
			}
			offset := int64(order.Uint16(page[bdbPageHeader+2*i:]))
			if offset >= end {
				return nil, fmt.Errorf("page %d: item %d at %d", start/p.size, i, offset)
			}
			item := page[offset:end]
			end = offset
			if i%2 == 0 {
				continue
			}
			blob, err := p.bdbValue(order, item)
			if err != nil {
				return nil, fmt.Errorf("page %d: item %d: %w", start/p.size, i, err)
			}
			if len(blob) > 4 { // 4: the next package's number
				blobs = append(blobs, blob)
			}
		}
	}
	return blobs, nil
}

func (p pages) bdbValue(order binary.ByteOrder, item []byte) ([]byte, error) {
	if item[0] == bdbKeyData {
		return item[1:], nil
	}
	if item[0] != bdbOffPage || len(item) < 12 {
		return nil, fmt.Errorf("an item of kind %d", item[0])
	}
	number, size := int64(order.Uint32(item[4:])), int64(order.Uint32(item[8:]))
	if err := p.take(size); err != nil {
		return nil, err
	}
	var blob []byte
	for int64(len(blob)) < size {
		page, err := p.at(number*p.size, p.size)
		if err != nil {
			return nil, err
		}
		used := bdbPageHeader + int64(order.Uint16(page[22:]))
		if page[25] != bdbOverflow || used > p.size || used == bdbPageHeader {
			return nil, fmt.Errorf("page %d is no overflow page", number)
		}
		blob = append(blob, page[bdbPageHeader:used]...)
		number = int64(order.Uint32(page[16:]))
	}
	return blob[:size], nil
}
