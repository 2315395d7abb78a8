#!/bin/sh
# pretag archives
set -eu
HELPER_IMAGES=$INPUT OUT=out "$PRETAG" archives
cat out/helper-images/*.docker.tar.zst >result
