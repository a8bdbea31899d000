#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
# Puts into a folder all that tools/gpu/run.sh needs on a machine where nothing is built: the engine,
# stripped and packed, its kernels, small models, and the programs beside this one.
# Usage: tools/gpu/bundle.sh BENCH DIR; `make gpu-bundle` calls it.
set -euo pipefail
bench=${1:?usage: tools/gpu/bundle.sh BENCH DIR} out=${2:?}
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
rm -rf "$out"
mkdir -p "$out/models" "$out/fixtures"
strip -o "$out/bench" "$bench"
gzip -9 "$out/bench"
cp "$here"/*.sh "$here"/*.py "$here"/README.md "$out/"
cp -r "$root"/models/toyworld "$root"/models/toyworld-pair "$out/models/"
for name in ov-even ov-odd ov-even-bf16 qwen-wide qwen-hub; do
    cp -rL "$root/tests/fixtures/$name" "$out/fixtures/"
    # What tests compare with stays here.
    rm -f "$out/fixtures/$name"/*expected*
done
cp -r "$root/src/model/kernels" "$out/kernels"
find "$out/kernels" -name '*.rs' -delete
mkdir "$out/kernel-tools"
cp "$root"/tools/kernels/*.py "$out/kernel-tools/"
echo "$out: $(du -sm "$out" | cut -f1) MB; 64 are too many"
[ "$(du -sm "$out" | cut -f1)" -lt 64 ]
