package sbom

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const pageSize = 4096

// varintOf encodes a number as SQLite does (sqlite.org/fileformat2.html, 1.6).
func varintOf(n int) []byte {
	b := []byte{byte(n & 0x7f)}
	for n >>= 7; n > 0; n >>= 7 {
		b = append([]byte{byte(n&0x7f) | 0x80}, b...)
	}
	return b
}

// A sqliteDB is an SQLite database in the making; its first page is the schema.
type sqliteDB struct{ pages [][]byte }

func (db *sqliteDB) page() (number int, page []byte) {
	page = make([]byte, pageSize)
	db.pages = append(db.pages, page)
	return len(db.pages), page
}

// leaf makes a page with a row for each payload, and returns its number.
func (db *sqliteDB) leaf(payloads ...[]byte) int {
	number, page := db.page()
	header, end := 0, pageSize
	if number == 1 {
		header = 100
	}
	page[header] = 13
	binary.BigEndian.PutUint16(page[header+3:], uint16(len(payloads)))
	for i, payload := range payloads {
		cell := append(varintOf(len(payload)), varintOf(i+1)...)
		local := len(payload)
		if most, least := pageSize-35, (pageSize-12)*32/255-23; local > most {
			if local = least + (len(payload)-least)%(pageSize-4); local > most {
				local = least
			}
		}
		cell = append(cell, payload[:local]...)
		if rest := payload[local:]; len(rest) > 0 {
			cell = binary.BigEndian.AppendUint32(cell, uint32(len(db.pages)+1))
			for chunk := range slices.Chunk(rest, pageSize-4) {
				next, overflow := db.page()
				if copy(overflow[4:], chunk); len(chunk) == pageSize-4 {
					binary.BigEndian.PutUint32(overflow, uint32(next+1))
				}
			}
		}
		end -= len(cell)
		copy(page[end:], cell)
		binary.BigEndian.PutUint16(page[header+8+2*i:], uint16(end))
	}
	return number
}

// interior makes a page with children, the last of them in its header.
func (db *sqliteDB) interior(children ...int) int {
	number, page := db.page()
	page[0] = 5
	last := len(children) - 1
	binary.BigEndian.PutUint16(page[3:], uint16(last))
	binary.BigEndian.PutUint32(page[8:], uint32(children[last]))
	for i, child := range children[:last] {
		at := pageSize - 5*(i+1)
		binary.BigEndian.PutUint32(page[at:], uint32(child))
		binary.BigEndian.PutUint16(page[12+2*i:], uint16(at))
	}
	return number
}

func (db *sqliteDB) bytes() []byte {
	all := slices.Concat(db.pages...)
	copy(all, "SQLite format 3\x00")
	binary.BigEndian.PutUint16(all[16:], pageSize)
	binary.BigEndian.PutUint32(all[28:], uint32(len(db.pages)))
	return all
}

// recordOf makes a row of NULL (the row's number) and blobs.
func recordOf(blobs ...[]byte) []byte {
	header, body := []byte{0}, []byte(nil)
	for _, blob := range blobs {
		header = append(header, varintOf(12+2*len(blob))...)
		body = append(body, blob...)
	}
	return append(append(varintOf(len(header)+1), header...), body...)
}

// newSQLite begins a database whose tables have their roots on those pages.
func newSQLite(packages, names int) *sqliteDB {
	schema := func(name string, root int) []byte { // type, name, tbl_name, rootpage, sql
		header := []byte{6, 13 + 2*5, byte(13 + 2*len(name)), byte(13 + 2*len(name)), 4, 13}
		return binary.BigEndian.AppendUint32(append(header, "table"+name+name...), uint32(root))
	}
	db := &sqliteDB{}
	db.leaf(schema("Packages", packages), schema("Name", names))
	return db
}

// sqliteOf makes a database of headers.
func sqliteOf(headers ...[]byte) []byte {
	db := newSQLite(2, 3)
	db.page()
	var rows, names [][]byte
	for _, header := range headers {
		rows, names = append(rows, recordOf(header)), append(names, recordOf(header[:1]))
	}
	db.leaf(names...)
	packages := db.leaf(rows...)
	db.pages[1] = db.pages[packages-1] // its overflow pages stay behind it
	return db.bytes()
}

// berkeleyOf makes a database of headers with one bucket.
func berkeleyOf(headers ...[]byte) []byte {
	little := binary.LittleEndian
	page := func(number int, kind byte) []byte {
		page := make([]byte, pageSize)
		little.PutUint32(page[8:], uint32(number))
		page[25] = kind
		return page
	}
	meta, bucket := page(0, 8), page(1, bdbHash)
	pages := [][]byte{meta, bucket}
	end := pageSize
	item := func(i int, data []byte) {
		end -= len(data)
		copy(bucket[end:], data)
		little.PutUint16(bucket[26+2*i:], uint16(end))
	}
	for i, header := range headers {
		item(2*i, []byte{bdbKeyData, byte(i), 0, 0, 0})
		link := little.AppendUint32([]byte{bdbOffPage, 0, 0, 0}, uint32(len(pages)))
		item(2*i+1, little.AppendUint32(link, uint32(len(header))))
		for chunk := range slices.Chunk(header, pageSize-26) {
			overflow := page(len(pages), bdbOverflow)
			little.PutUint16(overflow[22:], uint16(len(chunk)))
			if copy(overflow[26:], chunk); len(chunk) == pageSize-26 {
				little.PutUint32(overflow[16:], uint32(len(pages)+1))
			}
			pages = append(pages, overflow)
		}
	}
	little.PutUint16(bucket[20:], uint16(2*len(headers)))
	little.PutUint32(meta[12:], bdbMagic)
	little.PutUint32(meta[20:], pageSize)
	little.PutUint32(meta[32:], uint32(len(pages)-1))
	little.PutUint32(meta[96:], 1) // bucket 0 is on page 1
	return slices.Concat(pages...)
}

// headerOf makes a header of text tags.
func headerOf(tags ...any) []byte {
	var index, store []byte
	for i := 0; i < len(tags); i += 2 {
		for _, word := range []int{tags[i].(int), 6, len(store), 1} {
			index = binary.BigEndian.AppendUint32(index, uint32(word))
		}
		store = append(store, tags[i+1].(string)+"\x00"...)
	}
	b := binary.BigEndian.AppendUint32(nil, uint32(len(index)/16))
	b = binary.BigEndian.AppendUint32(b, uint32(len(store)))
	return append(append(b, index...), store...)
}

func TestHeaders(t *testing.T) {
	long := []byte(strings.Repeat("0123456789", 3000))
	want := [][]byte{[]byte("first"), long, []byte("last!")}
	for name, db := range map[string][]byte{"sqlite": sqliteOf(want...), "berkeley": berkeleyOf(want...)} {
		got, err := rpmHeaders(t.Context(), db, nil)
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%s: %v %.500s", name, err, diff)
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		stop := errors.New("stop")
		cancel(stop)
		if _, err := rpmHeaders(ctx, db, nil); !errors.Is(err, stop) {
			t.Errorf("%s: error %v, want %v", name, err, stop)
		}
		for n := 1; n < len(db); n += 97 {
			if _, err := rpmHeaders(t.Context(), db[:n], nil); err == nil {
				t.Errorf("%s: no error for %d of %d bytes", name, n, len(db))
			}
			bad := slices.Clone(db)
			bad[n] ^= 0x55
			_, _ = rpmHeaders(t.Context(), bad, nil)
		}
	}
}

// Databases that were damaged, or made to keep a reader busy.
func TestHostileDatabases(t *testing.T) {
	row := recordOf([]byte("header"))
	zeroed := func(db []byte, page int) []byte { clear(db[page*pageSize:][:pageSize]); return db }
	emptied := sqliteOf([]byte("header"))
	binary.BigEndian.PutUint16(emptied[pageSize+3:], 0)
	columns := newSQLite(2, 0)
	columns.leaf(append(varintOf(1<<20), make([]byte, 1<<20)...))
	deep := newSQLite(2, 0)
	for n := range 30 {
		deep.interior(n + 3)
	}
	wide := newSQLite(2, 0)
	wide.interior(3, 3, 3, 3)
	wide.leaf(row)
	same := newSQLite(2, 0)
	same.leaf(recordOf(make([]byte, 3000)), row)
	copy(same.pages[1][10:], same.pages[1][8:10])
	binary.BigEndian.PutUint16(same.pages[1][3:], 2)
	size := berkeleyOf([]byte("header"))
	binary.LittleEndian.PutUint32(size[20:], 3000)
	circle := berkeleyOf([]byte("header"))
	binary.LittleEndian.PutUint32(circle[pageSize+16:], 1)
	buckets := berkeleyOf([]byte("header"))
	binary.LittleEndian.PutUint32(buckets[72:], 1<<32-1)
	shared := berkeleyOf(make([]byte, 3*(pageSize-26)), []byte("header"))
	copy(shared[2*pageSize-34:], shared[2*pageSize-17:][:12])
	for name, row := range map[string]struct {
		db   []byte
		want string
	}{
		"sqlite: no rows left":        {emptied, "table Packages has 0 rows, want 1 as table Name"},
		"sqlite: page zeroed":         {zeroed(sqliteOf([]byte("header")), 1), "page 2 has kind 0, want a page of a table"},
		"sqlite: no table":            {newSQLite(0, 0).bytes(), "no table Packages"},
		"sqlite: many columns":        {columns.bytes(), "row of more than 8 columns"},
		"sqlite: deep":                {deep.bytes(), "tree of more than 20 levels"},
		"sqlite: wide":                {wide.bytes(), "pages are linked more than once"},
		"sqlite: the same cell twice": {same.bytes(), "cells overlap"},
		"sqlite: reserved bytes":      {slices.Concat([]byte("SQLite format 3\x00\x02\x00\x01\x01\xff"), make([]byte, 2000)), "257 usable bytes in a page"},
		"sqlite: page size":           {append([]byte("SQLite format 3\x00\x03\x00"), make([]byte, 2000)...), "page size 768"},
		"berkeley: bucket zeroed":     {zeroed(berkeleyOf([]byte("header")), 1), "bucket 0: page 1 has number 0 and kind 0, want kind 13"},
		"berkeley: value zeroed":      {zeroed(berkeleyOf([]byte("header")), 2), "page 2 has number 0 and kind 0, want kind 7"},
		"berkeley: page size":         {size, "page size 3000"},
		"berkeley: circle":            {circle, "pages are linked more than once"},
		"berkeley: 4 billion buckets": {buckets, "pages are linked more than once"},
		"berkeley: shared value":      {shared, "pages are linked more than once"},
		"ndb":                         {append([]byte("RpmP"), make([]byte, 4096)...), "neither an SQLite database nor a hash of Berkeley DB"},
	} {
		t.Run(name, func(t *testing.T) {
			headers, err := rpmHeaders(t.Context(), row.db, nil)
			if err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("%d headers, error %v, want %q", len(headers), err, row.want)
			}
		})
	}
}

// walOf makes a write-ahead log of frames: the page's number, the pages of the database
// if it is a commit, and a byte to fill the page with.
func walOf(frames ...[3]int) []byte {
	wal := make([]byte, 32)
	binary.BigEndian.PutUint32(wal, 0x377f0682)
	binary.BigEndian.PutUint32(wal[8:], pageSize)
	for _, f := range frames {
		frame := make([]byte, 24+pageSize)
		binary.BigEndian.PutUint32(frame, uint32(f[0]))
		binary.BigEndian.PutUint32(frame[4:], uint32(f[1]))
		for i := range frame[24:] {
			frame[24+i] = byte(f[2])
		}
		wal = append(wal, frame...)
	}
	return wal
}

func TestReplay(t *testing.T) {
	db := make([]byte, 2*pageSize)
	for name, row := range map[string]struct {
		wal  []byte
		want string // first byte of each page, or an error
	}{
		"one commit":            {walOf([3]int{2, 2, 7}), "[0 7]"},
		"grows":                 {walOf([3]int{1, 0, 5}, [3]int{3, 3, 6}), "[5 0 6]"},
		"shrinks after growing": {walOf([3]int{3, 3, 6}, [3]int{1, 1, 5}), "[5]"},
		"not committed":         {walOf([3]int{1, 2, 5}, [3]int{1, 0, 6}), "[5 0]"},
		"later wins":            {walOf([3]int{1, 0, 5}, [3]int{1, 2, 6}), "[6 0]"},
		"cut":                   {walOf([3]int{1, 2, 5}, [3]int{1, 2, 6})[:32+24+pageSize+100], "[5 0]"},
		"claims":                {walOf([3]int{1, 1 << 30, 5}), "1073741824 pages"},
		"no header":             {make([]byte, 100), "no header"},
	} {
		got, err := replay(t.Context(), db, row.wal)
		var first []byte
		for page := range slices.Chunk(got, pageSize) {
			first = append(first, page[0])
		}
		text := fmt.Sprint(first)
		if err != nil {
			text = err.Error()
		}
		if text != row.want {
			t.Errorf("%s: got %s, want %s", name, text, row.want)
		}
	}
}

// Whatever the bytes, reading ends, and the headers are not larger than the database.
func FuzzHeaders(f *testing.F) {
	for _, db := range [][]byte{sqliteOf([]byte("a"), make([]byte, 5000)), berkeleyOf([]byte("abcde"), make([]byte, 5000))} {
		f.Add(db, walOf([3]int{2, 3, 0}))
	}
	f.Fuzz(func(t *testing.T, db, wal []byte) {
		headers, err := rpmHeaders(t.Context(), db, wal)
		if size := len(slices.Concat(headers...)); err == nil && size > len(db)+len(wal) {
			t.Errorf("%d bytes of headers in a database of %d", size, len(db)+len(wal))
		}
	})
}
