#!/bin/sh
# pretag archives, zstd:ultra
# needs: zstd
set -eu
mkdir in
ln -s "$INPUT" "in/$NAME"
ARCHIVE_COMPRESSION=zstd:ultra HELPER_IMAGES=in OUT=out "$PRETAG" archives
mv out/helper-images/*.docker.tar.zst result
