#!/bin/sh
# dpkg-deb, zstd -3
# needs: dpkg-deb
set -eu
mkdir -p deb/DEBIAN deb/usr/lib/gitlab-runner
cp -r "$INPUT" deb/usr/lib/gitlab-runner/helper-images
cat >deb/DEBIAN/control <<'CONTROL'
Package: helper-images
Version: 1
Architecture: all
Maintainer: nobody <nobody@localhost>
Description: helper images
CONTROL
dpkg-deb --build --root-owner-group "-Z${COMPRESSION:-zstd}" -z3 deb result
