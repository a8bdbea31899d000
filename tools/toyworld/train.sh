#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
# Trains models/toyworld and models/toyworld-pair from nothing. Interrupt it whenever you like:
# started again, it goes on.
#
#   RUN=folder     checkpoints and features (default: target/toyworld-run)
#   OUT=folder     the exported model (default: models/toyworld); the pair as toyworld-pair beside it
#   VISION_MINUTES, LANGUAGE_MINUTES, POLISH_MINUTES, PAIR_MINUTES, SCENES, CURRICULUM, RANKS: the budget
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
run=${RUN:-$root/target/toyworld-run}
out=${OUT:-$root/models/toyworld}
# Where streamkvqa.json expects it.
pair=$(dirname "$out")/toyworld-pair
scenes=${SCENES:-40000}
curriculum=${CURRICULUM:-16:0.1,32:0.45,64:1}
# One thread for each rank: at these sizes threads wait for each other more than they help.
export OMP_NUM_THREADS=1
export TOYWORLD=${TOYWORLD:-$root/target/release/toyworld}

mkdir -p "$run"
[ -x "$TOYWORLD" ] || cargo build --release --manifest-path "$root/Cargo.toml" --package toyworld
if [ ! -x "$run/venv/bin/python" ]; then
    python3 -m venv "$run/venv"
    "$run/venv/bin/pip" install --quiet --requirement "$here/requirements.txt"
fi
python=$run/venv/bin/python

cd "$here/training"
"$python" vision.py --run "$run" --threads 1 --minutes "${VISION_MINUTES:-25}"
[ -f "$run/vision-scaled.pt" ] || "$python" encode.py --run "$run" --scenes "$scenes"
"$python" lm.py --run "$run" --scenes "$scenes" --curriculum "$curriculum" \
    --ranks "${RANKS:-2}" --minutes "${LANGUAGE_MINUTES:-105}"
[ -f "$run/vision-polished.pt" ] || "$python" polish.py --run "$run" --minutes "${POLISH_MINUTES:-10}"
"$python" assemble.py --run "$run" --out "$out"
"$python" check.py "$out" --frames 32 64 --long 128 256 --out "$run/results.json"
"$python" manifest.py --run "$run" --results "$run/results.json" --scenes "$scenes" \
    --curriculum "$curriculum" --out "$here/manifest.json"
"$python" pair.py --run "$run" --model "$out" --out "$pair" --minutes "${PAIR_MINUTES:-6}"
"$python" check_pair.py "$pair"
