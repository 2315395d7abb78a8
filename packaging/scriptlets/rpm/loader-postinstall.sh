#!/bin/sh
# Enables the unit as the presets say, on the first installation. Earlier versions
# had the unit in a package of another name too, and a file says that they have
# done so: what the admin decided since then stays.
unit=gitlab-runner-helper-images.service
if [ "$1" -eq 1 ] && [ ! -e /var/lib/gitlab-runner-helper-images/preset ] && command -v systemctl >/dev/null; then
	systemctl --no-reload preset "$unit" >/dev/null 2>&1 || :
fi
exit 0
