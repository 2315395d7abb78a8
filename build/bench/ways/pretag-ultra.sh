#!/bin/sh
# pretag archives, zstd:ultra
# needs: zstd
set -eu
HELPER_IMAGES=$INPUT OUT=out ARCHIVE_COMPRESSION=zstd:ultra "$PRETAG" archives
mv out/helper-images/*.docker.tar.zst result
