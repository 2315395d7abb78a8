#!/bin/sh
# Purge removes the state, and what deb-systemd-helper(1) knows of the unit; dpkg
# removes the configuration. Images stay. While the unit is there, a package of the
# other layout has it, and with it all of these.
set -e
unit=gitlab-runner-helper-images.service
if [ "$1" = purge ] && [ ! -e "/usr/lib/systemd/system/$unit" ]; then
	if command -v deb-systemd-helper >/dev/null; then
		deb-systemd-helper purge "$unit" >/dev/null || true
		deb-systemd-helper unmask "$unit" >/dev/null || true
	fi
	rm -rf /var/lib/gitlab-runner-helper-images
fi
if [ -d /run/systemd/system ]; then
	systemctl --system daemon-reload || true
fi
exit 0
