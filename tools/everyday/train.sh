#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
# Trains models/everyday from nothing. Interrupt it whenever you like: started again, it goes on.
#
#   RUN=folder     checkpoints and features (default: target/everyday-run)
#   OUT=folder     the exported model (default: models/everyday)
#   VISION_MINUTES, LANGUAGE_MINUTES, CAMERAS, CURRICULUM, RANKS: the budget
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
run=${RUN:-$root/target/everyday-run}
out=${OUT:-$root/models/everyday}
ranks=${RANKS:-2}
. "$here/prepare.sh"
curriculum=${CURRICULUM:-2@now+exists_now+where_now+distance_now:0.034,4:0.076,8:0.153,16:0.285,8@$looking_back:0.345,16@$looking_back+after+before+first:0.46,32:0.56,64:1}

"$python" vision.py --run "$run" --ranks "$ranks" --minutes "${VISION_MINUTES:-43}"
[ -f "$run/vision-scaled.pt" ] || "$python" encode.py --run "$run" --threads "$ranks"
"$python" lm.py --run "$run" --curriculum "$curriculum" --ranks "$ranks" --streams 3 --questions 32 \
    --minutes "${LANGUAGE_MINUTES:-186}"
"$python" assemble.py --run "$run" --out "$out"
"$python" check.py "$out" --generate 2 --out "$run/results.json"
"$python" manifest.py --run "$run" --results "$run/results.json" --curriculum "$curriculum" \
    --out "$here/manifest.json"
