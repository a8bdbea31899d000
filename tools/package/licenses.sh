#!/bin/sh
# SPDX-License-Identifier: MPL-2.0
#
# Prints the licences of the crates that the plugin is made of: which crate has which, and the texts that
# its package brings, each text once. Their terms ask for that where the plugin is handed on in binary form.
#
#   tools/package/licenses.sh
set -eu
cd "$(dirname "$0")/../.."

sources=${CARGO_HOME:-$HOME/.cargo}/registry/src
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# What is linked into the plugin: no build tools, no procedural macros, and not this crate itself.
"${CARGO:-cargo}" tree --locked --edges no-build,no-dev,no-proc-macro --prefix none --format '{p}|{l}' |
    sed -e 's/ (\*)$//' -e '1d' | sort -u >"$work/crates"
[ -s "$work/crates" ] || { echo 'error: cargo tree names no crate' >&2; exit 1; }

echo "The plugin has these crates linked into it. Below are the texts of their licences."
echo
while IFS='|' read -r crate license; do
    printf '%s: %s\n' "$crate" "${license:-see its text}"
    name=${crate%% *} version=${crate#* v}
    for text in "$sources"/*/"$name-${version%% *}"/LICEN[CS]E* \
        "$sources"/*/"$name-${version%% *}"/COPYING* "$sources"/*/"$name-${version%% *}"/NOTICE*; do
        [ -f "$text" ] || continue
        sum=$(sha256sum "$text" | cut -d ' ' -f 1)
        [ -e "$work/$sum.text" ] || tr -d '\r' <"$text" >"$work/$sum.text"
        echo "$name $version, $(basename "$text")" >>"$work/$sum.of"
    done
done <"$work/crates"

for of in "$work"/*.of; do
    printf '\n%s\n' ----------------------------------------------------------------
    sort -u "$of"
    echo
    cat "${of%.of}.text"
done
