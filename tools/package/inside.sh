#!/bin/sh
# SPDX-License-Identifier: MPL-2.0
#
# What check.sh runs in the clean system.
set -eu
package=$1
name=gstreamer1.0-streamkvqa
export DEBIAN_FRONTEND=noninteractive

say() { echo "==> $*"; }
die() { echo "error: $*" >&2; exit 1; }
# As whoever uses it: no rights, no home.
user() { setpriv --reuid=65534 --regid=65534 --clear-groups env -i PATH="$PATH" GST_REGISTRY=/tmp/registry "$@"; }

say "installing it with what it needs, and what it recommends"
apt-get -q -y -o Dpkg::Use-Pty=0 install --no-install-recommends \
    "$package" gstreamer1.0-tools gstreamer1.0-plugins-good >/tmp/apt 2>&1 || { cat /tmp/apt; exit 1; }

say "gst-inspect-1.0 streamkvqa"
user gst-inspect-1.0 streamkvqa >/tmp/inspected 2>&1 || { cat /tmp/inspected; exit 1; }
grep -q "/lib/.*-linux-gnu/gstreamer-1.0/libgststreamkvqa.so" /tmp/inspected || { cat /tmp/inspected; die "found elsewhere than installed"; }

say "man streamkvqa"
gzip -dc /usr/share/man/man7/streamkvqa.7.gz | grep -q '^\.SH NAME' || die "no manual page"
[ -s "/usr/share/doc/$name/copyright" ] || die "no copyright"
[ -s "/usr/share/doc/$name/docs/streamkvqa.md" ] || [ -s "/usr/share/doc/$name/docs/streamkvqa.md.gz" ] ||
    die "no reference of the element"

# The first example of the manual page, word for word.
say "asking about a clip"
gzip -dc /usr/share/man/man7/streamkvqa.7.gz |
    sed -n '/^gst\\-launch\\-1.0 \\-q/,/^\.fi/p' |
    sed -e '/^\.fi/d' -e 's/\\\\/\\/g' -e 's/\\-/-/g' >/tmp/example
user timeout 120 sh -eu /tmp/example >/tmp/answers || { cat /tmp/example; die "the manual's example fails"; }
sed -n 1,3p /tmp/answers
answers=$(grep -c '"status":"ok"' /tmp/answers) || die "no answer"
[ "$answers" -ge 20 ] || die "$answers answers"
grep -q '"answer":"dog"' /tmp/answers || die "nobody has seen the dog"

say "removing it"
apt-get -q -y -o Dpkg::Use-Pty=0 purge "$name" >/tmp/apt 2>&1 || { cat /tmp/apt; exit 1; }
rm -f /tmp/registry
! user gst-inspect-1.0 streamkvqa >/dev/null 2>&1 || die "still found"
[ ! -e /usr/share/streamkvqa ] && [ ! -e "/usr/share/doc/$name" ] || die "something is left"
