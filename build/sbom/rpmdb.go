package sbom

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"
)

// rpmHeaders returns the packages' headers in an rpm database: SQLite, as rpm writes
// it since 4.16 (UBI 9), or Berkeley DB (UBI 8). wal is the write-ahead log next to an
// SQLite database that was not closed. An empty database has no headers.
func rpmHeaders(ctx context.Context, db, wal []byte) ([][]byte, error) {
	p := pages{ctx: ctx, db: db}
	if len(db) == 0 {
		return nil, nil
	}
	if !bytes.HasPrefix(db, []byte("SQLite format 3\x00")) {
		return p.berkeley()
	}
	if len(wal) > 0 {
		var err error
		if p.db, err = replay(ctx, db, wal); err != nil {
			return nil, fmt.Errorf("write-ahead log: %w", err)
		}
	}
	return p.sqlite()
}

// pages reads a database and trusts no number in it. Every page is read once, so that
// the time is bounded by the size.
type pages struct {
	ctx  context.Context
	db   []byte
	size int64 // of a page, bytes
	left int64 // pages that were not read yet
}

func (p *pages) begin(size int64) error {
	if size < 512 || size > 64<<10 || size&(size-1) != 0 { // SQLite 1.3.2; Berkeley DB 5.3, src/dbinc/db_int.in
		return fmt.Errorf("page size %d", size)
	}
	p.size, p.left = size, int64(len(p.db))/size
	return nil
}

// page returns a page by its number from 0.
func (p *pages) page(number int64) ([]byte, error) {
	if p.ctx.Err() != nil {
		return nil, context.Cause(p.ctx)
	}
	if number < 0 || number >= int64(len(p.db))/p.size {
		return nil, fmt.Errorf("no page %d in a database of %d bytes", number, len(p.db))
	}
	if p.left--; p.left < 0 {
		return nil, errors.New("pages are linked more than once")
	}
	return p.db[number*p.size:][:p.size], nil
}

// sqlite returns the second column of the table Packages, which is
// (hnum INTEGER PRIMARY KEY, blob BLOB): rpm 4.18, lib/backend/sqlite.c. The
// numbers below are sections of SQLite's file format (sqlite.org/fileformat2.html).
func (p *pages) sqlite() ([][]byte, error) {
	if len(p.db) < 100 {
		return nil, io.ErrUnexpectedEOF
	}
	size := int64(binary.BigEndian.Uint16(p.db[16:])) // 1.3.2
	if size == 1 {
		size = 65536
	}
	if err := p.begin(size); err != nil {
		return nil, err
	}
	if pages := int64(binary.BigEndian.Uint32(p.db[28:])); pages*size > int64(len(p.db)) {
		return nil, fmt.Errorf("%d bytes, want %d pages of %d", len(p.db), pages, size)
	}
	usable := size - int64(p.db[20])
	if usable < 480 { // 1.3.4
		return nil, fmt.Errorf("%d usable bytes in a page", usable)
	}
	roots := map[string]int64{}
	err := p.table(1, usable, 0, func(columns [][]byte) error { // 2.6: type, name, tbl_name, rootpage, sql
		if len(columns) >= 4 && string(columns[0]) == "table" {
			root := int64(0)
			for _, b := range columns[3] {
				root = root<<8 | int64(b)
			}
			if name := string(columns[1]); name == "Packages" || name == "Name" {
				roots[name] = root
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if roots["Packages"] == 0 {
		return nil, errors.New("no table Packages")
	}
	var headers [][]byte
	err = p.table(roots["Packages"], usable, 0, func(columns [][]byte) error {
		if len(columns) < 2 {
			return fmt.Errorf("row of %d columns, want 2", len(columns))
		}
		headers = append(headers, columns[1])
		return nil
	})
	if err != nil || roots["Name"] == 0 {
		return headers, err
	}
	names := 0 // rpm's index has a row for each package: it shows that some were lost
	err = p.table(roots["Name"], usable, 0, func([][]byte) error { names++; return nil })
	if err == nil && names > len(headers) {
		err = fmt.Errorf("table Packages has %d rows, want %d as table Name", len(headers), names)
	}
	return headers, err
}

// table calls row for the rows of the b-tree whose root is that page, numbered from 1 (1.6).
func (p *pages) table(number, usable, depth int64, row func([][]byte) error) error {
	const maxDepth = 20 // SQLite 3.40, src/btreeInt.h: BTCURSOR_MAX_DEPTH
	if depth == maxDepth {
		return fmt.Errorf("tree of more than %d levels", maxDepth)
	}
	page, err := p.page(number - 1)
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
		return fmt.Errorf("page %d has kind %d, want a page of a table", number, kind)
	}
	if pointers+2*cells > usable {
		return fmt.Errorf("page %d: %d cells", number, cells)
	}
	taken := int64(0)
	for i := range cells {
		offset := int64(binary.BigEndian.Uint16(page[pointers+2*i:]))
		if offset+4 > usable {
			return fmt.Errorf("page %d: cell at offset %d", number, offset)
		}
		if kind == 5 {
			err = p.table(int64(binary.BigEndian.Uint32(page[offset:])), usable, depth+1, row)
		} else {
			var n int64
			n, err = p.cell(page[offset:usable], usable, row)
			if taken += n; err == nil && taken > usable {
				err = errors.New("cells overlap")
			}
		}
		if err != nil {
			return fmt.Errorf("page %d: %w", number, err)
		}
	}
	if kind == 5 {
		return p.table(int64(binary.BigEndian.Uint32(page[header+8:])), usable, depth+1, row)
	}
	return nil
}

// cell reads one row, including the part on overflow pages (1.6, 1.7). It returns the
// length of the cell in bytes.
func (p *pages) cell(cell []byte, usable int64, row func([][]byte) error) (taken int64, err error) {
	size, n := varint(cell)
	_, m := varint(cell[n:]) // the row's number
	taken = int64(n + m)
	local := size
	if most := usable - 35; size > most {
		least := (usable-12)*32/255 - 23
		if local = least + (size-least)%(usable-4); local > most {
			local = least
		}
	}
	if size < 0 || size > int64(len(p.db)) || local > int64(len(cell))-taken {
		return 0, io.ErrUnexpectedEOF
	}
	payload, rest := append(make([]byte, 0, size), cell[taken:][:local]...), cell[taken+local:]
	for int64(len(payload)) < size {
		if len(rest) < 4 {
			return 0, io.ErrUnexpectedEOF
		}
		page, err := p.page(int64(binary.BigEndian.Uint32(rest)) - 1)
		if err != nil {
			return 0, err
		}
		payload = append(payload, page[4:min(usable, 4+size-int64(len(payload)))]...)
		rest = page
	}
	columns, err := record(payload)
	if err != nil {
		return 0, err
	}
	return taken + local, row(columns)
}

// record splits a row into its columns (2.1).
func record(payload []byte) ([][]byte, error) {
	const maxColumns = 8 // rpm's tables have up to 3, the schema has 5
	size, n := varint(payload)
	if size < int64(n) || size > int64(len(payload)) {
		return nil, io.ErrUnexpectedEOF
	}
	header, body := payload[n:size], payload[size:]
	var columns [][]byte
	for len(header) > 0 {
		if len(columns) == maxColumns {
			return nil, fmt.Errorf("row of more than %d columns", maxColumns)
		}
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

// varint reads a number of one to nine bytes and returns its length (1.6).
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

// replay returns the database with the changes of the write-ahead log, up to the last
// one that was committed (4.1 to 4.4).
func replay(ctx context.Context, db, wal []byte) ([]byte, error) {
	const headerSize, frameHeader = 32, 24
	if len(wal) < headerSize || binary.BigEndian.Uint32(wal)&^1 != 0x377f0682 {
		return nil, errors.New("no header")
	}
	size, salt, rest := int(binary.BigEndian.Uint32(wal[8:])), wal[16:24], wal[headerSize:]
	if size < 512 || size > 65536 {
		return nil, fmt.Errorf("page size %d", size)
	}
	type frame struct {
		page int
		data []byte
	}
	var frames []frame
	committed, pages := 0, len(db)/size
	for len(rest) >= frameHeader+size && bytes.Equal(rest[8:16], salt) {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		frames = append(frames, frame{int(binary.BigEndian.Uint32(rest)) - 1, rest[frameHeader:][:size]})
		if n := int(binary.BigEndian.Uint32(rest[4:])); n > 0 { // a commit, and the pages of the database after it
			committed, pages = len(frames), n
		}
		rest = rest[frameHeader+size:]
	}
	if pages*size > len(db)+len(wal) {
		return nil, fmt.Errorf("%d pages", pages)
	}
	changed := make([]byte, pages*size)
	copy(changed, db)
	for _, f := range frames[:committed] {
		if f.page >= 0 && f.page < pages { // later commits may have cut the others off
			copy(changed[f.page*size:], f.data)
		}
	}
	return changed, nil
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

// berkeley reads the form of rpm up to 4.15: a hash of package numbers, whose values
// are the headers (rpm 4.15, lib/backend/db3.c; rpm 4.18, lib/backend/bdb_ro.c).
func (p *pages) berkeley() ([][]byte, error) {
	if len(p.db) < 512 {
		return nil, io.ErrUnexpectedEOF
	}
	meta := p.db[:512]
	var order binary.ByteOrder = binary.LittleEndian
	if order.Uint32(meta[12:]) != bdbMagic {
		order = binary.BigEndian
	}
	if order.Uint32(meta[12:]) != bdbMagic {
		return nil, errors.New("neither an SQLite database nor a hash of Berkeley DB")
	}
	if err := p.begin(int64(order.Uint32(meta[20:]))); err != nil {
		return nil, err
	}
	if last := int64(order.Uint32(meta[32:])); (last+1)*p.size > int64(len(p.db)) {
		return nil, fmt.Errorf("%d bytes, want %d pages of %d", len(p.db), last+1, p.size)
	}
	var headers [][]byte
	last := int64(order.Uint32(meta[72:]))
	for bucket := int64(0); bucket <= last; bucket++ {
		spares := order.Uint32(meta[96+4*bits.Len32(uint32(bucket)):])
		for number := bucket + int64(spares); ; {
			page, err := p.bdbPage(order, number, bdbHash, bdbHashUnsorted)
			if err != nil {
				return nil, fmt.Errorf("bucket %d: %w", bucket, err)
			}
			found, err := p.bdbValues(order, page)
			if err != nil {
				return nil, fmt.Errorf("page %d: %w", number, err)
			}
			headers = append(headers, found...)
			if number = int64(order.Uint32(page[16:])); number == 0 {
				break
			}
		}
	}
	return headers, nil
}

// bdbPage returns a page, which must have that number and one of the kinds.
func (p *pages) bdbPage(order binary.ByteOrder, number int64, kinds ...byte) ([]byte, error) {
	page, err := p.page(number)
	if err != nil {
		return nil, err
	}
	if got := int64(order.Uint32(page[8:])); got != number || bytes.IndexByte(kinds, page[25]) < 0 {
		return nil, fmt.Errorf("page %d has number %d and kind %d, want kind %d", number, got, page[25], kinds[0])
	}
	return page, nil
}

// bdbValues returns the headers on a hash page: keys and values in turn, growing
// down from the end of the page.
func (p *pages) bdbValues(order binary.ByteOrder, page []byte) (headers [][]byte, err error) {
	end := p.size
	for i := range int64(order.Uint16(page[20:])) {
		if bdbPageHeader+2*i+2 > p.size {
			return nil, errors.New("too many items")
		}
		offset := int64(order.Uint16(page[bdbPageHeader+2*i:]))
		if offset >= end {
			return nil, fmt.Errorf("item %d at offset %d overlaps the one before it", i, offset)
		}
		item := page[offset:end]
		if end = offset; i%2 == 0 {
			continue
		}
		value, err := p.bdbValue(order, item)
		if err != nil {
			return nil, fmt.Errorf("item %d: %w", i, err)
		}
		if len(value) > 4 { // 4: the next package's number
			headers = append(headers, value)
		}
	}
	return headers, nil
}

func (p *pages) bdbValue(order binary.ByteOrder, item []byte) ([]byte, error) {
	if item[0] == bdbKeyData {
		return item[1:], nil
	}
	if item[0] != bdbOffPage || len(item) < 12 {
		return nil, fmt.Errorf("kind %d", item[0])
	}
	var value []byte
	number, size := int64(order.Uint32(item[4:])), int64(order.Uint32(item[8:]))
	for int64(len(value)) < size {
		page, err := p.bdbPage(order, number, bdbOverflow)
		if err != nil {
			return nil, err
		}
		used := bdbPageHeader + int64(order.Uint16(page[22:]))
		if used > p.size || used-bdbPageHeader > size-int64(len(value)) {
			return nil, fmt.Errorf("overflow page %d of %d bytes", number, used)
		}
		value = append(value, page[bdbPageHeader:used]...)
		number = int64(order.Uint32(page[16:]))
	}
	return value, nil
}
