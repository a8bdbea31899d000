#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
# Trains models/everyday-qwen, a small Qwen2.5-VL, on the everyday world. Interrupt it whenever you like:
# started again, it goes on.
#
#   train-qwen.sh           learns until the budget is spent, then does what `assemble` and `check` do
#   train-qwen.sh learn     learns, and no more
#   train-qwen.sh assemble  the model folder from the newest checkpoint, also while another learns
#   train-qwen.sh check     measures the model folder, writes the manifest
#
#   RUN=folder     checkpoints and features (default: target/everyday-qwen-run)
#   OUT=folder     the exported model (default: models/everyday-qwen)
#   VISION_MINUTES, LANGUAGE_MINUTES, CAMERAS, CURRICULUM, RANKS: the budget
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
run=${RUN:-$root/target/everyday-qwen-run}
out=${OUT:-$root/models/everyday-qwen}
what=${1:-all}
ranks=${RANKS:-2}
. "$here/prepare.sh"
curriculum=${CURRICULUM:-2@now+exists_now+where_now+distance_now:0.03,4:0.07,8:0.14,16:0.26,8@$looking_back:0.31,16@$looking_back+after+before+first:0.44,32:0.6,64:1}

if [ "$what" = all ] || [ "$what" = learn ]; then
    "$python" qwen_pool.py --run "$run" --teacher "${TEACHER:-$root/models/everyday}" --threads "$ranks"
    if [ ! -f "$run/vision-scaled.pt" ]; then
        "$python" qwen_vision.py --run "$run" --ranks "$ranks" --minutes "${VISION_MINUTES:-22}"
        "$python" qwen_encode.py --run "$run" --threads "$ranks"
    fi
    "$python" qwen_lm.py --run "$run" --curriculum "$curriculum" --ranks "$ranks" --port 29581 --streams 3 \
        --questions 24 --every 500 --validation 24 --minutes "${LANGUAGE_MINUTES:-180}"
fi
if [ "$what" = all ] || [ "$what" = assemble ]; then
    "$python" qwen_assemble.py --run "$run" --out "$out"
fi
if [ "$what" = all ] || [ "$what" = check ]; then
    "$python" qwen_check.py "$out" --generate 2 --out "$run/results.json"
    "$python" manifest.py --run "$run" --results "$run/results.json" --curriculum "$curriculum" \
        --out "$here/manifest-qwen.json" --first-seed 100000000 --torch-seed 2
fi
