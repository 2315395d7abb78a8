#!/bin/sh
# podman import, save; zstd -19
# needs: podman zstd root
set -eu
podman() { command podman --root "$PWD/root" --runroot "$PWD/run" --tmpdir "$PWD/libpod" --storage-driver vfs "$@"; }
TMPDIR=$PWD
export TMPDIR
podman import --quiet --change 'ENTRYPOINT ["/usr/bin/dumb-init", "/entrypoint"]' "$INPUT/prebuilt-$HELPERS.tar.xz" "$REPOSITORY:$HELPERS"
podman save --quiet --format docker-archive --output saved.tar "$REPOSITORY:$HELPERS"
zstd -q -19 --long=27 -o result saved.tar
