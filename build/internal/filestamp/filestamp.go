// Package filestamp recognizes a file that was read before without reading it again,
// by its metadata. A stamp is kept in an extended attribute of another file. It is
// lost if that file is copied without its attributes; the file is then read again.
// A file of stamps would be one more file in OUT to own, lock and remove.
package filestamp

// A Stamp changes whenever its file does: it contains the time of the inode's last
// change, which only the kernel sets. The empty Stamp matches no file.
type Stamp string
