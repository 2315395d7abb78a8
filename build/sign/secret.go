package sign

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// The most bytes that are read of a key file and of a passphrase file.
const (
	maxKey        = 1 << 20
	maxPassphrase = 4 << 10
)

// CheckKeyPath rejects a value of GPG_KEY_PATH that does not name a file or a named
// pipe. The value may be a secret, so the error shows it only if its directory exists.
func CheckKeyPath(value string) error {
	dir := filepath.Dir(value)
	if info, err := os.Stat(dir); err == nil && info.IsDir() && dir != "." {
		return checkPath(value, strconv.Quote(value))
	}
	return checkPath(value, hidden)
}

// CheckPassphrasePath rejects a value of GPG_PASSPHRASE_PATH that does not name a
// file, /dev/fd/N or a named pipe. The value may be the passphrase, so no error shows it.
func CheckPassphrasePath(value string) error { return checkPath(value, hidden) }

// hidden stands for a value that may be a secret.
const hidden = "<not shown>"

func checkPath(value, shown string) error {
	if strings.Contains(value, armorStart) || strings.ContainsAny(value, "\r\n") {
		return errors.New(hidden + ": holds a key or several lines, want the path of a file; in GitLab choose the variable type File")
	}
	info, err := os.Stat(value)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s: no such file or directory; want the path of a file, not the secret itself; in GitLab choose the variable type File", shown)
	case err != nil:
		return fmt.Errorf("%s: %w; want the path of a file", shown, withoutPath(err))
	case !info.Mode().IsRegular() && info.Mode().Type() != fs.ModeNamedPipe:
		return fmt.Errorf("%s: not a regular file or a named pipe", shown)
	}
	return nil
}

// ReadPassphrase returns the first line of the file or pipe at path, without a
// byte order mark and a carriage return. No error holds the path.
func ReadPassphrase(ctx context.Context, path string) ([]byte, error) {
	secret, err := readSecret(ctx, path, maxPassphrase)
	if err != nil {
		return nil, fmt.Errorf("read the passphrase file: %w", err)
	}
	secret, _, _ = bytes.Cut(secret, []byte("\n"))
	return bytes.TrimSuffix(secret, []byte("\r")), nil
}

// readSecret reads a file or a pipe of at most limit bytes, without a byte order
// mark. A pipe that nobody writes into blocks, so the wait ends with ctx.
func readSecret(ctx context.Context, path string, limit int64) ([]byte, error) {
	type result struct {
		data []byte
		err  error
	}
	done := make(chan result, 1)
	go func() {
		data, err := readLimited(path, limit)
		done <- result{data, err}
	}()
	select {
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case r := <-done:
		if r.err != nil {
			return nil, withoutPath(r.err)
		}
		if bytes.HasPrefix(r.data, []byte("\xff\xfe")) || bytes.HasPrefix(r.data, []byte("\xfe\xff")) {
			return nil, errors.New("is UTF-16 text; save it as UTF-8")
		}
		return bytes.TrimPrefix(r.data, []byte("\ufeff")), nil
	}
}

func readLimited(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("has more than %d bytes", limit)
	}
	return data, err
}

// withoutPath returns the cause of a path error.
func withoutPath(err error) error {
	if pathErr := (*fs.PathError)(nil); errors.As(err, &pathErr) {
		return pathErr.Err
	}
	return err
}
