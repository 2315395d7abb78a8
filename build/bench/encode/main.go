// Encode is pretag's zstd:best encoder alone, from standard input to standard
// output: what a build of an archive cannot be cheaper than.
package main

import (
	"io"
	"log"
	"os"

	"github.com/klauspost/compress/zstd"
)

func main() {
	z, err := zstd.NewWriter(os.Stdout,
		zstd.WithEncoderLevel(zstd.SpeedBestCompression),
		zstd.WithWindowSize(128<<20),
		zstd.WithEncoderConcurrency(1),
	)
	if err != nil {
		log.Fatal(err)
	}
	if _, err := io.Copy(z, os.Stdin); err != nil {
		log.Fatal(err)
	}
	if err := z.Close(); err != nil {
		log.Fatal(err)
	}
}
