//go:build !linux

package filestamp

import "io/fs"

// Of returns "", so that files are read again.
func Of(fs.FileInfo) Stamp { return "" }

// KeepOn does nothing.
func (s Stamp) KeepOn(string) {}

// KeptOn reports false.
func (s Stamp) KeptOn(string) bool { return false }
