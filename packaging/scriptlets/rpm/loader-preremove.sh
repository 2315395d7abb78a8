#!/bin/sh
# On removal, not on upgrade: switches the unit off and ends a load that is
# under way. Loaded images stay where they are.
unit=gitlab-runner-helper-images.service
if [ "$1" -eq 0 ] && command -v systemctl >/dev/null; then
	if [ -d /run/systemd/system ]; then
		systemctl --no-reload disable --now "$unit" >/dev/null 2>&1 || :
	else
		systemctl --no-reload disable "$unit" >/dev/null 2>&1 || :
	fi
fi
exit 0
