#!/bin/sh
# SPDX-License-Identifier: MPL-2.0
#
# Installs the package in a Debian 12 that has nothing but apt, looks whether GStreamer finds the element and
# the manual page is there, asks about a clip as somebody without rights, and removes it again. The system is made
# for this alone, in a namespace of its own where this is not root, and is gone afterwards.
#
#   tools/package/check.sh PACKAGE.deb
set -eu
here=$(cd "$(dirname "$0")" && pwd)
package=${1:?which package?}
[ -f "$package" ] || { echo "error: there is no $package; run 'make deb' first" >&2; exit 1; }

command -v lintian >/dev/null && lintian --fail-on error,warning --allow-root "$package"
mmdebstrap --variant=apt --format=null --quiet --dpkgopt=force-unsafe-io \
    --customize-hook="copy-in '$package' '$here/inside.sh' /root" \
    --customize-hook="chroot \"\$1\" sh /root/inside.sh '/root/$(basename "$package")'" \
    bookworm /dev/null
echo "==> $(basename "$package") installs, answers and goes again"
