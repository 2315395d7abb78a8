package job

import (
	"bytes"
	"compress/zlib"
	"crypto/sha1" // git's object names
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
)

// branch is the only one of the repository.
const branch = "main"

// writeRepository writes a bare git repository whose only commit holds one
// file, and returns the commit's name. It needs no git: the helper image that
// clones it brings its own. The format is git's (gitrepository-layout(5), gitformat-loose(5)).
func writeRepository(dir, name string, content []byte) (commit string, err error) {
	object := func(kind string, body []byte) []byte {
		whole := append(fmt.Appendf(nil, "%s %d\x00", kind, len(body)), body...)
		sum := sha1.Sum(whole)
		id := hex.EncodeToString(sum[:])
		var packed bytes.Buffer
		w := zlib.NewWriter(&packed)
		w.Write(whole) // a bytes.Buffer takes everything
		w.Close()
		if err == nil {
			err = writeFile(filepath.Join(dir, "objects", id[:2], id[2:]), packed.Bytes())
		}
		return sum[:]
	}
	blob := object("blob", content)
	tree := object("tree", append([]byte("100644 "+name+"\x00"), blob...))
	const who = "pretag <pretag@localhost> 0 +0000"
	commit = hex.EncodeToString(object("commit", fmt.Appendf(nil, "tree %x\nauthor %s\ncommitter %s\n\nverify\n", tree, who, who)))
	for path, content := range map[string]string{
		"HEAD":                 "ref: refs/heads/" + branch + "\n",
		"config":               "[core]\n\trepositoryformatversion = 0\n\tbare = true\n",
		"refs/heads/" + branch: commit + "\n",
	} {
		if err == nil {
			err = writeFile(filepath.Join(dir, path), []byte(content))
		}
	}
	return commit, err
}

// writeFile writes a file that every user may read, and makes its directories.
func writeFile(path string, content []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, content, 0o644)
}
