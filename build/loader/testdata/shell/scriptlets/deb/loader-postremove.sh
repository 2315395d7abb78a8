#!/bin/sh
set -e
unit=gitlab-runner-helper-images.service
if [ "$1" = purge ] && [ ! -e "/usr/lib/systemd/system/$unit" ]; then
	if command -v deb-systemd-helper >/dev/null; then
		deb-systemd-helper purge "$unit" >/dev/null || true
		deb-systemd-helper unmask "$unit" >/dev/null || true
	fi
	rm -f "/etc/systemd/system/timers.target.wants/${unit%service}timer"
	rm -rf /var/lib/gitlab-runner-helper-images
fi
if [ -d /run/systemd/system ]; then
	systemctl --system daemon-reload || true
fi
exit 0
