#!/bin/sh
# skopeo, docker load, create, export; 7z -mx8
# needs: skopeo docker dockerd 7z root
set -eu
TMPDIR=$PWD
DOCKER_HOST=unix://$PWD/socket
export TMPDIR DOCKER_HOST
echo '{}' >daemon.json
dockerd --config-file=daemon.json --host="$DOCKER_HOST" --data-root="$PWD/root" --exec-root="$PWD/exec" --pidfile="$PWD/pid" \
	--bridge=none --iptables=false --ip-forward=false --ip-masq=false >dockerd.log 2>&1 &
until docker version >/dev/null 2>&1; do
	kill -0 $!
	sleep 0.05
done
skopeo --insecure-policy copy --quiet "oci-archive:$INPUT" "docker-archive:saved.tar:$REPOTAG"
docker load --quiet --input saved.tar
container=$(docker create "$REPOTAG" none)
docker export --output rootfs.tar "$container"
7z a -txz -mx8 -bd rootfs.tar.xz rootfs.tar >/dev/null
mv rootfs.tar.xz result
kill $!
wait $! || :
