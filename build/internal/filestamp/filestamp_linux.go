package filestamp

import (
	"fmt"
	"io/fs"
	"syscall"
	"time"
)

// settled is how long ago a file must have changed. Within the granularity of
// its file system's times it could change again, and its stamp would not; two
// seconds are what Go's own caches take (cmd/go/internal/modindex, modTimeCutoff).
const settled = 2 * time.Second

// Of returns the stamp of a file, or "" if the file changed too recently.
func Of(file fs.FileInfo) Stamp {
	s, ok := file.Sys().(*syscall.Stat_t)
	if !ok || time.Since(time.Unix(s.Ctim.Unix())) < settled {
		return ""
	}
	return Stamp(fmt.Sprint(s.Dev, s.Ino, s.Size, s.Mtim.Nano(), s.Ctim.Nano()))
}

// attribute is where a file keeps the stamp of another; see xattr(7).
const attribute = "user.pretag.stamp"

// KeepOn keeps the stamp on the file at path. It does nothing if the file system has
// no extended attributes.
func (s Stamp) KeepOn(path string) {
	if s != "" {
		_ = syscall.Setxattr(path, attribute, []byte(s), 0)
	}
}

// KeptOn reports whether the file at path keeps this stamp.
func (s Stamp) KeptOn(path string) bool {
	kept := make([]byte, len(s)+1) // so that a longer one is not cut to this one
	n, err := syscall.Getxattr(path, attribute, kept)
	return s != "" && err == nil && string(kept[:n]) == string(s)
}
