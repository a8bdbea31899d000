#!/bin/sh
# SPDX-License-Identifier: MPL-2.0
#
# Installs with cargo-c into an empty folder, and looks whether GStreamer finds the element there, and the element
# the model.
set -eu
cd "$(dirname "$0")/../.."

cargo=${CARGO:-cargo}
target=${CARGO_TARGET_DIR:-$PWD/target}
# The last one that Rust 1.92 compiles.
version=0.10.21+cargo-0.95.0
tools=$target/tools/bin

if ! grep -qsF "\"cargo-c $version " "$target/tools/.crates.toml" || [ ! -x "$tools/cargo-cinstall" ]; then
    echo "==> installing cargo-c $version into $target/tools"
    env -u CARGO_TARGET_DIR "$cargo" install --quiet --debug cargo-c --version "=$version" --locked --force \
        --root "$target/tools"
fi

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
# In a folder of its own: cargo-c names the target, and so shares nothing with other builds.
PATH=$tools:$PATH "$tools/cargo-cinstall" cinstall --locked --debug --library-type cdylib \
    --target-dir "$target/cargo-c" --destdir "$root" --prefix /usr --libdir /usr/lib

find "$root" -type f | sed "s|^$root||" | sort
export GST_PLUGIN_PATH="$root/usr/lib/gstreamer-1.0" GST_REGISTRY="$root/registry"
export XDG_DATA_DIRS="$root/usr/share"
gst-inspect-1.0 streamkvqa | grep -F "$root/usr/lib/gstreamer-1.0/libgststreamkvqa.so"
test -s "$root/usr/share/man/man7/streamkvqa.7"
test -s "$root/usr/share/doc/streamkvqa/streamkvqa.md"
gst-launch-1.0 -q filesrc location=examples/media/everyday.webm ! decodebin ! \
    streamkvqa name=qa model-path=everyday question="what is here now?" question-interval=10000000000 ! \
    fakesink qa.text ! fdsink sync=false | grep -q dog
echo "==> cargo cinstall: GStreamer finds the element, and the element its model"
