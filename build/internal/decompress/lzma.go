package decompress

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/ulikunitz/xz/lzma"
)

// LZMA is the legacy format of LZMA Utils. It has no magic number, so that Detect
// cannot know it.
const LZMA Format = "lzma"

// NewLZMA begins to read r, which is known to be in the format LZMA
// (xz 5.4, doc/lzma-file-format.txt).
func NewLZMA(r io.Reader) (*Reader, error) {
	input := &counter{r: r}
	buffered := bufio.NewReader(input)
	reader := &Reader{Format: LZMA, input: input, release: func() {}}
	head, err := buffered.Peek(lzma.HeaderLen)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, reader.explain(err)
	}
	if dictionary := binary.LittleEndian.Uint32(head[1:]); dictionary > MaxWindow { // the decoder trusts it
		return nil, fmt.Errorf("the lzma stream asks for more than %d MiB of history", MaxWindow>>20)
	}
	if reader.plain, err = lzma.NewReader(buffered); err != nil {
		return nil, reader.explain(err)
	}
	return reader, nil
}
