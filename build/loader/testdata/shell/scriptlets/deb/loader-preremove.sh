#!/bin/sh
set -e
if [ "$1" = remove ] && [ -d /run/systemd/system ]; then
	systemctl stop gitlab-runner-helper-images.timer gitlab-runner-helper-images.service || true
fi
exit 0
