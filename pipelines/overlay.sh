#!/bin/sh
# SPDX-License-Identifier: MPL-2.0
#
# Asks one question again and again and writes the answers into the picture. You will see a window
# where there is a display, and get overlay.mkv where there is none (or with OUT=FILE).
#
#   [OUT=FILE.mkv] pipelines/overlay.sh [VIDEO [QUESTION [MODEL]]]
set -eu
. "$(dirname "$0")/env.sh"
video=${1:-$clip}
question=${2:-what do you see now?}
model=${3:-$model}

if [ -z "${OUT-}" ] && [ -n "${DISPLAY-}${WAYLAND_DISPLAY-}" ]; then
    set -- autovideosink
else
    OUT=${OUT:-overlay.mkv}
    set -- vp8enc deadline=1 cpu-used=-8 target-bitrate=400000 ! matroskamux ! filesink location="$OUT"
fi
# question-interval counts nanoseconds: every three seconds.
gst-launch-1.0 -q \
    filesrc location="$video" ! decodebin ! \
    streamkvqa name=qa model-path="$model" \
    text-template="$question_and_answer" \
    question="$question" question-interval=3000000000 ! \
    queue ! textoverlay name=burn font-desc="Sans 18" shaded-background=true ! videoconvert ! "$@" \
    qa.text ! queue ! burn.text_sink
[ -z "${OUT-}" ] || echo "Written: $OUT"
