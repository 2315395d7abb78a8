#!/bin/sh
# Purge removes the state; dpkg removes the configuration. Images stay.
set -e
unit=gitlab-runner-helper-images.service
if [ "$1" = purge ]; then
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
