#!/bin/sh
# On removal ends a load that is under way, switches unit and timer off, and takes
# the state away; rpm has no purge, and keeps a changed configuration. Loaded images
# stay where they are. A unit that is still there is that of a later package or
# of the other layout's, whatever $1 says: it counts the packages of one name.
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
