#!/bin/sh
# pretag package, rpm
set -eu
mkdir out
cp -r "$INPUT" out/helper-images
HELPER_IMAGES=none OUT=out FORMATS=rpm PACKAGE_LAYOUT=single "$PRETAG" package
cat out/rpm/*.rpm >result
