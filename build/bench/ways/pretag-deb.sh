#!/bin/sh
# pretag package, deb
set -eu
mkdir out
cp -r "$INPUT" out/helper-images
HELPER_IMAGES=none OUT=out FORMATS=deb PACKAGE_LAYOUT=single "$PRETAG" package
cat out/deb/*.deb >result
