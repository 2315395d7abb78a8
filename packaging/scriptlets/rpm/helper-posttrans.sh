#!/bin/sh
# At the end of the transaction, when all its archives are installed and packages
# of GitLab Runner have pruned images: starts the unit, which loads the images in
# the background. Nothing happens if systemd does not run (a chroot, an image
# build, bootc, rpm-ostree) or the unit is not enabled.
unit=gitlab-runner-helper-images.service
if [ -d /run/systemd/system ] && systemctl --quiet is-enabled "$unit" 2>/dev/null; then
	systemctl --no-block start "$unit" || :
fi
exit 0
