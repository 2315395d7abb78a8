#!/bin/sh
# At the end of the transaction, when every archive of it is there and packages
# of GitLab Runner have pruned what they prune: has the images loaded, in the
# background. Where systemd does not run (a chroot, an image build, bootc,
# rpm-ostree) or the unit is not enabled, nothing happens.
unit=gitlab-runner-helper-images.service
if [ -d /run/systemd/system ]; then
	systemctl daemon-reload || :
	if systemctl --quiet is-enabled "$unit" 2>/dev/null; then
		systemctl --no-block start "$unit" || :
	fi
fi
exit 0
