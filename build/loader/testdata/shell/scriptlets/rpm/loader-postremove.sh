#!/bin/sh
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
