#!/bin/sh
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
	# The timer too: the other layout's package has stopped it when it was removed.
	for each in "$unit" gitlab-runner-helper-images.timer; do
		if systemctl --quiet is-enabled "$each" 2>/dev/null; then
			systemctl --no-block start "$each" || true
		fi
	done
fi
exit 0
