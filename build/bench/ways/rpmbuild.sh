#!/bin/sh
# rpmbuild, w3.zstdio
# needs: rpmbuild
set -eu
cat >helper-images.spec <<'SPEC'
Name: helper-images
Version: 1
Release: 1
Summary: Helper images
License: MIT
BuildArch: noarch
%define _binary_payload w3.zstdio
%define __os_install_post %{nil}
%description
Helper images.
%install
mkdir -p %{buildroot}/usr/lib/gitlab-runner
cp -r %{input} %{buildroot}/usr/lib/gitlab-runner/helper-images
%files
/usr/lib/gitlab-runner/helper-images
SPEC
rpmbuild --quiet -bb --define "_topdir $PWD/rpm" --define "input $INPUT" helper-images.spec
mv rpm/RPMS/noarch/*.rpm result
