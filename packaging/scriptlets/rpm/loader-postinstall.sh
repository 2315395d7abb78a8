#!/bin/sh
# Enables the unit on the first installation, as the presets say.
if [ "$1" -eq 1 ] && command -v systemctl >/dev/null; then
	systemctl --no-reload preset gitlab-runner-helper-images.service >/dev/null 2>&1 || :
fi
exit 0
