#!/bin/sh
# On removal: ends a load that is under way, disables unit and timer, and removes
# the state. rpm has no purge, and keeps a changed configuration. Loaded images
# stay. If the unit is still there, this is an upgrade, or the unit belongs to the
# single layout of an earlier version, whatever $1 says: it counts the packages of
# one name.
unit=gitlab-runner-helper-images.service
timer=gitlab-runner-helper-images.timer
if [ ! -e "/usr/lib/systemd/system/$unit" ]; then
	if [ -d /run/systemd/system ]; then
		systemctl stop "$timer" "$unit" >/dev/null 2>&1 || :
	fi
	rm -f /etc/systemd/system/*/"$timer" /etc/systemd/system/*/"$unit"
	rm -rf /var/lib/gitlab-runner-helper-images
	if [ -d /run/systemd/system ]; then
		systemctl daemon-reload || :
	fi
fi
exit 0
