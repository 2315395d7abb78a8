package decompress_test

import (
	"bytes"
	"io"
	"os/exec"
	"testing"

	"pretag/build/internal/decompress"
	"pretag/build/internal/require"
)

// 7-Zip's -mx8 asks for up to 256 MiB of history.
func TestLargestDictionary(t *testing.T) {
	command := exec.Command(require.Tool(t, "xz"), "--lzma2=dict=256MiB", "--stdout")
	want := []byte("a root filesystem")
	command.Stdin = bytes.NewReader(want)
	compressed, err := command.Output()
	if err != nil {
		t.Fatal(err)
	}
	r, err := decompress.NewReader(bytes.NewReader(compressed))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%q, %v, want %q", got, err, want)
	}
}
