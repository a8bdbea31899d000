#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
# Trains models/toyworld-plain: toyworld's architecture without any help for retrieval, on other seeds, with an
# odd grid of patches. Interrupt it whenever you like: started again, it goes on.
#
#   RUN=folder     checkpoints and features (default: target/toyworld-plain-run)
#   OUT=folder     the exported model (default: models/toyworld-plain)
#   VISION_MINUTES, LANGUAGE_MINUTES, SCENES, CURRICULUM, RANKS: the budget
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
run=${RUN:-$root/target/toyworld-plain-run}
out=${OUT:-$root/models/toyworld-plain}
# Tower and projector start from there: they never met a question.
like=$root/models/toyworld
scenes=${SCENES:-16000}
curriculum=${CURRICULUM:-4:0.04,8:0.1,16:0.18,32:1}
ranks=${RANKS:-2}
# 5x5 patches, pooled to 3x3 tokens, 288 of them in 32 frames; the first seed of training, and that of fresh weights.
export IMAGE=70 FIRST_SEED=250000000 TORCH_SEED=1
. "$here/prepare.sh"

"$python" vision.py --run "$run" --ranks "$ranks" --minutes "${VISION_MINUTES:-0.4}" --lr 2e-3 --every 25 \
    --like "$like"
[ -f "$run/vision-scaled.pt" ] || "$python" encode.py --run "$run" --scenes "$scenes" --threads "$ranks"
"$python" plain.py --run "$run" --scenes "$scenes" --curriculum "$curriculum" --ranks "$ranks" \
    --minutes "${LANGUAGE_MINUTES:-15}"
"$python" assemble.py --run "$run" --out "$out" --vision vision-scaled.pt --trained-frames 32 --pair "" \
    --segment-threshold 0.7
"$python" check.py "$out" --frames 32 --long 64 128 --streams 65 --generate 12 --out "$run/results.json"
"$python" manifest.py --run "$run" --results "$run/results.json" --scenes "$scenes" \
    --curriculum "$curriculum" --vision-from "${like#"$root/"}" --out "$here/manifest-plain.json"
