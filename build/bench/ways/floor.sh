#!/bin/sh
# xz -dc; sha256sum; pretag's encoder alone
# needs: xz sha256sum
set -eu
xz -dc "$INPUT/prebuilt-$HELPERS.tar.xz" >rootfs.tar
sha256sum rootfs.tar
"$ENCODE" <rootfs.tar >result
