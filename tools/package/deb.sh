#!/bin/sh
# SPDX-License-Identifier: MPL-2.0
#
# Makes a package for Debian and its relatives of the plugin, the models, the manual page and the documents.
# What goes where is in Cargo.toml, [package.metadata.deb].
#
#   tools/package/deb.sh [PROFILE]     a profile of cargo: release, dev
set -eu
cd "$(dirname "$0")/../.."

profile=${1:-release}
cargo=${CARGO:-cargo}
target=${CARGO_TARGET_DIR:-$PWD/target}
# One version for all, so that all get the same package.
version=3.8.0
tool=$target/tools/bin/cargo-deb
# Where cargo-deb looks for what is built; of one profile alone, so that it takes any.
stage=$target/package

if ! grep -qsF "\"cargo-deb $version " "$target/tools/.crates.toml" || [ ! -x "$tool" ]; then
    echo "==> installing cargo-deb $version into $target/tools"
    env -u CARGO_TARGET_DIR "$cargo" install --quiet cargo-deb --version "=$version" --locked --force \
        --root "$target/tools"
fi

"$cargo" build --lib --locked --profile "$profile" --target-dir "$target"
case $profile in dev) built=$target/debug ;; *) built=$target/$profile ;; esac
mkdir -p "$stage/release" "$target/debian"
cp -f "$built/libgststreamkvqa.so" "$stage/release/"
tools/package/licenses.sh | gzip -9n >"$stage/release/crates.gz"

# Of one name, whatever was made here before.
rm -f "$target"/debian/*.deb
# What nobody hands on is packed in a hurry.
case $profile in dev) set -- --fast ;; *) set -- ;; esac
CARGO_TARGET_DIR=$stage "$tool" deb --no-build --locked --multiarch=same "$@" --output "$target/debian/"
