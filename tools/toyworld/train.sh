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
. "$here/prepare.sh"

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
