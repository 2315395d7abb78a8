#!/bin/sh
# rpmbuild, zstd -3
# needs: rpmbuild
set -eu
cat >helper-images.spec <<'SPEC'
Name: helper-images
Version: 1
Release: 1
Summary: Helper images
License: MIT
BuildArch: noarch
%define _binary_payload %{payload}
%define __os_install_post %{nil}
%description
Helper images.
%install
mkdir -p %{buildroot}/usr/lib/gitlab-runner
cp -r %{input} %{buildroot}/usr/lib/gitlab-runner/helper-images
%files
/usr/lib/gitlab-runner/helper-images
SPEC
rpmbuild --quiet -bb --define "_topdir $PWD/rpm" --define "input $INPUT" --define "payload ${PAYLOAD:-w3.zstdio}" helper-images.spec
mv rpm/RPMS/noarch/*.rpm result
