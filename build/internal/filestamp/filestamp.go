// Package filestamp tells whether a file is still the one that was read before,
// without reading it: by what the file system says of it. A stamp is kept in an
// extended attribute of another file, and so is lost where that is copied without
// its attributes.
package filestamp

// A Stamp changes whenever its file does: it has the time of the inode's last
// change, which the kernel sets and no program can. "" is no file's.
type Stamp string
