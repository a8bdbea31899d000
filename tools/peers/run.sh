#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
# Makes what run.py needs, and runs it: a virtual environment, and the 0.5B with random weights, whole and
# with a tower of one layer (2.8 GB, which stay). Usage: tools/peers/run.sh [options of run.py].
# STREAMKVQA_VENV, STREAMKVQA_BIG: where environment and checkpoints are; BENCH: examples/bench, built.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
target=${CARGO_TARGET_DIR:-$here/../../target}
bench=${BENCH:-$target/debug/examples/bench}
[ -x "$bench" ] || { echo "error: $bench is missing: cargo build --workspace --examples --locked" >&2; exit 1; }
venv=${STREAMKVQA_VENV:-$target/venv-peers}
python=$venv/bin/python
[ -x "$python" ] || python3 -m venv "$venv" ||
    { echo 'error: python3 -m venv is missing (Debian: python3-venv)' >&2; exit 1; }
if ! "$python" -c 'import torch, transformers' 2> /dev/null; then
    echo '==> installing PyTorch and transformers: 5 GB of disk'
    "$python" -m pip install --quiet --disable-pip-version-check --no-deps -r "$here/requirements.txt"
fi

if [[ " $* " == *' --quick '* ]]; then
    "$python" "$here/check.py" "$here/../../tests/fixtures/ov-even"
    exec "$python" "$here/run.py" --bench "$bench" "$@"
fi
big=${STREAMKVQA_BIG:-${TMPDIR:-/tmp}/streamkvqa-big}
name=llava-onevision-qwen2-0.5b-ov-hf
mkdir -p "$big"
write() {
    local out=$big/$1
    shift
    [ -e "$out" ] && return
    rm -rf "$out.part"
    "$python" "$here/../real-size/write.py" "$name" "$out.part" --shard-gb 1 "$@"
    mv "$out.part" "$out"
}
write $name
write $name-short --tower-layers 1
exec "$python" "$here/run.py" --bench "$bench" --model "$big/$name" --short "$big/$name-short" "$@"
