#!/bin/sh
# pretag package
set -eu
HELPER_IMAGES=$INPUT OUT=out PACKAGE_LAYOUT=single "$PRETAG" package
cat out/rpm/*.rpm out/deb/*.deb >result
