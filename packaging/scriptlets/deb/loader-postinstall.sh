#!/bin/sh
# Enables the unit on the first installation, as deb-systemd-helper(1) decides, and
# starts it where systemd runs, which loads the images in the background: not in a
# chroot or an image build. dpkg calls it with "triggered" after archives of other
# packages have been unpacked.
set -e
unit=gitlab-runner-helper-images.service
case $1 in
configure | abort-upgrade | abort-deconfigure | abort-remove)
	if command -v deb-systemd-helper >/dev/null; then
		deb-systemd-helper unmask "$unit" >/dev/null || true
		if deb-systemd-helper --quiet was-enabled "$unit"; then
			deb-systemd-helper enable "$unit" >/dev/null || true
		else
			deb-systemd-helper update-state "$unit" >/dev/null || true
		fi
	fi
	;;
esac
if [ -d /run/systemd/system ]; then
	[ "$1" = triggered ] || systemctl --system daemon-reload || true
	# The timer too: removing the single layout of an earlier version has stopped it.
	for each in "$unit" gitlab-runner-helper-images.timer; do
		if systemctl --quiet is-enabled "$each" 2>/dev/null; then
			systemctl --no-block start "$each" || true
		fi
	done
fi
exit 0
