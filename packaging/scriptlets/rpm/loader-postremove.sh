#!/bin/sh
# On removal the state goes; rpm has no purge, and keeps a changed configuration.
if [ "$1" -eq 0 ]; then
	rm -rf /var/lib/gitlab-runner-helper-images
fi
if [ -d /run/systemd/system ]; then
	systemctl daemon-reload || :
fi
exit 0
