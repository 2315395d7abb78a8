#!/bin/sh
# skopeo, docker load, create, export; 7z -mx8; of several, rpmbuild with bzip2 and dpkg-deb with gzip
# needs: skopeo docker dockerd 7z rpmbuild dpkg-deb root
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
mkdir images
for helper in $(echo "$HELPERS" | tr , ' '); do
	skopeo --insecure-policy copy --quiet "oci-archive:$INPUT/$helper.tar" "docker-archive:saved.tar:$REPOSITORY:$helper"
	docker load --quiet --input saved.tar
	container=$(docker create "$REPOSITORY:$helper" none)
	docker export --output rootfs.tar "$container"
	7z a -txz -mx8 -bd "images/prebuilt-$helper.tar.xz" rootfs.tar >/dev/null
	rm saved.tar rootfs.tar
done
kill $!
wait $! || :
case $HELPERS in
*,*)
	INPUT=$PWD/images PAYLOAD=w9.bzdio sh "$WAYS/rpmbuild.sh"
	mv result package.rpm
	INPUT=$PWD/images COMPRESSION=gzip sh "$WAYS/dpkg-deb.sh"
	cat package.rpm >>result
	;;
*) mv images/*.tar.xz result ;;
esac
