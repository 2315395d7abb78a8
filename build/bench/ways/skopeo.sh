#!/bin/sh
# skopeo copy; zstd -19
# needs: skopeo zstd
set -eu
TMPDIR=$PWD
export TMPDIR
skopeo --insecure-policy copy --quiet "oci-archive:$INPUT" "docker-archive:saved.tar:$REPOTAG"
zstd -q -19 --long=27 -o result saved.tar
