#!/bin/sh
# xz -dc; xz -8
# needs: xz
set -eu
xz -dc "$INPUT/prebuilt-$HELPERS.tar.xz" | xz -8 >result
