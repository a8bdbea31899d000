#!/bin/sh
# SPDX-License-Identifier: MPL-2.0
#
# Several RTSP cameras in one picture, each with a memory of its own and its answers written into its part;
# one loaded model for all. You will see a window where there is a display, and get wall.mkv where there is
# none (or with OUT=FILE), until Ctrl-C or for as many seconds as you say. Without addresses a camera on
# loopback (pipelines/rtsp-camera.py) stands in for four.
#
#   [OUT=FILE.mkv] [QUESTION=...] [MODEL=DIR] [SECONDS_TO_RUN=30] pipelines/wall.sh [rtsp://... ...]
set -eu
. "$(dirname "$0")/env.sh"
question=${QUESTION:-what is here now?}
model=${MODEL:-$model}
if [ $# = 0 ]; then
    camera ""
    set -- "$url" "$url" "$url" "$url"
fi
many=$#

if [ -z "${OUT-}" ] && [ -n "${DISPLAY-}${WAYLAND_DISPLAY-}" ]; then
    sink="autovideosink"
else
    OUT=${OUT:-wall.mkv}
    sink='vp8enc deadline=1 cpu-used=-8 target-bitrate=800000 ! matroskamux ! filesink location="$OUT"'
fi

# As many columns as rows, or one more.
columns=1
while [ $((columns * columns)) -lt "$many" ]; do columns=$((columns + 1)); done
width=320
height=240
at=0
places=
cameras=
for url; do
    places="$places sink_$at::xpos=$((at % columns * width)) sink_$at::ypos=$((at / columns * height))"
    # Everything that a camera needs has its name; what was said by hand stays quoted until it is looked at.
    # question-interval counts nanoseconds.
    cameras="$cameras rtspsrc location=\"\$camera$at\" protocols=tcp latency=200 ! decodebin ! \
        streamkvqa name=camera$at model-path=\"\$model\" question=\"\$question\" \
        question-interval=5000000000 ! \
        queue ! textoverlay name=burn$at font-desc='Sans 14' shaded-background=true ! \
        videoscale add-borders=true ! videorate ! videoconvert ! \
        video/x-raw,format=I420,width=$width,height=$height,framerate=10/1,pixel-aspect-ratio=1/1 ! \
        queue ! wall.sink_$at \
        camera$at.text ! queue ! burn$at.text_sink"
    eval "camera$at=\$url"
    at=$((at + 1))
done

echo "Watching $many cameras"
limit=
[ -z "${SECONDS_TO_RUN-}" ] || limit="timeout --foreground --signal=INT $SECONDS_TO_RUN"
# An interrupted gst-launch is how this ends.
{ eval "$limit gst-launch-1.0 -m -e compositor name=wall $places ! videoconvert ! $sink $cameras" ||
    true; } | answers --names
[ -z "${OUT-}" ] || echo "Written: $OUT"
