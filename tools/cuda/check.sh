#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
# Runs cargo with the feature `cuda` on a machine that has nothing of CUDA. Everything is compiled and
# linked but the kernels' texts, which are empty: what comes of it runs on the CPU.
#
#   tools/cuda/check.sh                        clippy over library, tests and examples, warnings are errors
#   tools/cuda/check.sh check --lib            any other command of cargo, on the engine with `cuda`
#   tools/cuda/check.sh test --lib cuda
set -euo pipefail
cd "$(dirname "$0")/../.."
cargo=${CARGO:-cargo}
target=${CARGO_TARGET_DIR:-$PWD/target}
environment=$(tools/cuda/toolchain.sh --check "$target/cuda-check")
eval "$environment"
if [ $# = 0 ]; then set -- clippy --all-targets -- -D warnings; fi
command=$1
shift
exec "$cargo" "$command" --no-default-features --features cuda --locked "$@"
