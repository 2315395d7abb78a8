#!/bin/sh
# At the end of the transaction, when every archive of it is there and packages
# of GitLab Runner have pruned what they prune: enables the unit as the presets
# say, once, and has the images loaded, in the background. Where systemd does not
# run (a chroot, an image build, bootc, rpm-ostree) or the unit is not enabled,
# nothing is loaded. A file tells whether it is the first time: $1 counts the
# packages of one name, which the layouts and GitLab Runner's own package share.
unit=gitlab-runner-helper-images.service
state=/var/lib/gitlab-runner-helper-images
if [ ! -e "$state/preset" ] && command -v systemctl >/dev/null; then
	systemctl --no-reload preset "$unit" >/dev/null 2>&1 || :
	mkdir -p "$state" && touch "$state/preset"
fi
if [ -d /run/systemd/system ]; then
	systemctl daemon-reload || :
	if systemctl --quiet is-enabled "$unit" 2>/dev/null; then
		systemctl --no-block start "$unit" || :
	fi
fi
exit 0
