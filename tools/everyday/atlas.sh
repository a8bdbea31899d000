#!/bin/sh
# SPDX-License-Identifier: MPL-2.0
#
# Fetches the drawings and writes them, cut out and resized, into one file: the atlas.
#
#   tools/everyday/atlas.sh [ATLAS] [SIZE]     default: target/everyday/atlas.bin, 96 pixels
#
# Training styles: noto (npm emoji-datasource-google, Noto Emoji, Apache-2.0) and fluent (npm
# @lobehub/fluent-emoji-3d, Fluent Emoji, MIT). Styles that no training sees, and that are never
# redistributed: openmoji (npm, CC BY-SA 4.0) and the photographs of Debian's tuxpaint-stamps-default (GPL).
# Needs npm, python3, and apt-get; without apt-get the last style is left out.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
work=$root/target/everyday
atlas=${1:-$work/atlas.bin}
size=${2:-96}
mkdir -p "$work"
cd "$work"

# Fetches one npm package and unpacks it beside the others, once.
drawings() {
    [ ! -d "$2" ] || return 0
    file=$(npm pack --silent "$1")
    mkdir "$2.part"
    tar -xzf "$file" -C "$2.part" --strip-components=1
    rm "$file"
    mv "$2.part" "$2"
}
drawings emoji-datasource-google@16.0.0 noto
drawings @lobehub/fluent-emoji-3d@1.1.0 fluent
drawings openmoji@17.0.0 openmoji
if [ ! -d tuxpaint ] && command -v apt-get >/dev/null; then
    apt-get download tuxpaint-stamps-default=2022.06.04-1
    dpkg-deb -x tuxpaint-stamps-default_*.deb tuxpaint.part
    rm tuxpaint-stamps-default_*.deb
    mv tuxpaint.part tuxpaint
fi

if [ ! -x venv/bin/python ]; then
    python3 -m venv venv
    venv/bin/pip install --quiet --requirement "$here/requirements.txt"
fi
venv/bin/python "$here/atlas.py" "$here/nouns.tsv" "$work" "$atlas" --size "$size"
