#!/bin/sh
# pretag archives
set -eu
mkdir in
ln -s "$INPUT" "in/$NAME"
HELPER_IMAGES=in OUT=out "$PRETAG" archives
mv out/helper-images/*.docker.tar.zst result
