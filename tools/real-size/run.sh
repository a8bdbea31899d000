#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
# Writes a checkpoint of a published size with random weights, loads it, asks it a question, and
# prints what that costs. Usage: tools/real-size/run.sh 0.5b|7b|qwen-3b|qwen-7b|qwen2-2b|qwen2-7b|
# qwen3-2b|qwen3-4b|qwen3-8b|internvl3-1b|internvl3-2b|internvl3-8b|internvl3.5-1b|internvl3.5-2b|internvl3.5-4b|
# internvl3.5-8b [f32|bf16|f16|auto] [options of examples/bench]. STREAMKVQA_BIG: where the gigabytes go; KEEP=1
# leaves them there.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
case ${1:-} in
    0.5b) name=llava-onevision-qwen2-0.5b-ov-hf shard=1 ;;
    7b) name=llava-onevision-qwen2-7b-ov-hf shard=5 ;;
    qwen-3b) name=Qwen2.5-VL-3B-Instruct shard=5 ;;
    qwen-7b) name=Qwen2.5-VL-7B-Instruct shard=5 ;;
    qwen2-2b) name=Qwen2-VL-2B-Instruct shard=5 ;;
    qwen2-7b) name=Qwen2-VL-7B-Instruct shard=5 ;;
    qwen3-2b) name=Qwen3-VL-2B-Instruct shard=5 ;;
    qwen3-4b) name=Qwen3-VL-4B-Instruct shard=5 ;;
    qwen3-8b) name=Qwen3-VL-8B-Instruct shard=5 ;;
    internvl3-1b) name=InternVL3-1B-hf shard=5 ;;
    internvl3-2b) name=InternVL3-2B-hf shard=5 ;;
    internvl3-8b) name=InternVL3-8B-hf shard=5 ;;
    internvl3.5-1b) name=InternVL3_5-1B-HF shard=5 ;;
    internvl3.5-2b) name=InternVL3_5-2B-HF shard=5 ;;
    internvl3.5-4b) name=InternVL3_5-4B-HF shard=5 ;;
    internvl3.5-8b) name=InternVL3_5-8B-HF shard=5 ;;
    *) sed -n '3,8s/^# //p' "$0" >&2; exit 2 ;;
esac
dtype=${2:-auto}
shift $(($# < 2 ? $# : 2))
big=${STREAMKVQA_BIG:-${TMPDIR:-/tmp}/streamkvqa-big}
mkdir -p "$big"
if [ ! -e "$big/$name" ]; then
    venv=${STREAMKVQA_VENV:-$big/venv}
    [ -x "$venv/bin/python" ] || python3 -m venv "$venv"
    "$venv/bin/python" -c 'import numpy' 2>/dev/null ||
        "$venv/bin/pip" install --quiet --requirement "$here/requirements.txt"
    rm -rf "$big/$name.part"
    "$venv/bin/python" "$here/write.py" "$name" "$big/$name.part" --shard-gb "$shard"
    mv "$big/$name.part" "$big/$name"
fi
[ -n "${KEEP:-}" ] || trap 'rm -rf "$big/$name"' EXIT
cd "$here/../.."
cargo run --quiet --example bench -- --model "$big/$name" --dtype "$dtype" --load-limit 1.3 --repeat 1 "$@"
