#!/bin/sh
# crane append; zstd -19
# needs: xz zstd
set -eu
xz -dc "$INPUT/prebuilt-$HELPERS.tar.xz" >layer.tar
"$CRANE" append --new_layer layer.tar --new_tag "$REPOSITORY:$HELPERS" --output saved.tar
zstd -q -19 --long=27 -o result saved.tar
