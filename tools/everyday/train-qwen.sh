#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
# Trains models/everyday-qwen, a small Qwen2.5-VL, on the everyday world, from where models/everyday ended.
# Interrupt it whenever you like: started again, it goes on.
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
teacher=${TEACHER:-$root/models/everyday}
. "$here/prepare.sh"
curriculum=${CURRICULUM:-4:0.05,16:0.2,8@$looking_back:0.28,16@$looking_back+after+before+first:0.45,32:0.65,64:1}

if [ "$what" = all ] || [ "$what" = learn ]; then
    "$python" qwen_pool.py --run "$run" --teacher "$teacher" --threads "$ranks"
    if [ ! -f "$run/vision-scaled.pt" ]; then
        "$python" qwen_vision.py --run "$run" --ranks "$ranks" --minutes "${VISION_MINUTES:-16}"
        "$python" qwen_encode.py --run "$run" --threads "$ranks"
    fi
    "$python" qwen_lm.py --run "$run" --teacher "$teacher" --curriculum "$curriculum" --ranks "$ranks" \
        --port 29581 --streams 3 --questions 24 --every 500 --validation 24 --minutes "${LANGUAGE_MINUTES:-45}"
fi
if [ "$what" = all ] || [ "$what" = assemble ]; then
    "$python" qwen_assemble.py --run "$run" --out "$out"
fi
if [ "$what" = all ] || [ "$what" = check ]; then
    "$python" qwen_check.py "$out" --generate 2 --out "$run/results.json"
    "$python" manifest.py --run "$run" --results "$run/results.json" --curriculum "$curriculum" \
        --out "$here/manifest-qwen.json" --first-seed 100000000 --torch-seed 2 --begun-with "$teacher"
fi
