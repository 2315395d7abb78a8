#!/bin/sh
# Purge removes the state, what deb-systemd-helper(1) knows of the unit, and the
# link of a timer that the admin has enabled; dpkg removes the configuration.
# Images stay. If the unit is still there, it belongs to the single layout of an
# earlier version, and all of this with it.
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
