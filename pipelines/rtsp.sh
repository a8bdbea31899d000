#!/bin/sh
# SPDX-License-Identifier: MPL-2.0
#
# Watches an RTSP camera and asks it the same question every few seconds. You will see an answer
# every five seconds until Ctrl-C, or for as many seconds as you say. Without an address a camera
# on loopback stands in (pipelines/rtsp-camera.py).
#
#   [SECONDS_TO_RUN=20] pipelines/rtsp.sh [rtsp://... [QUESTION [MODEL]]]
set -eu
. "$(dirname "$0")/env.sh"
camera "${1-}"
question=${2:-what is here now?}
model=${3:-$model}

echo "Watching $url"
limit=
[ -z "${SECONDS_TO_RUN-}" ] || limit="timeout --foreground --signal=INT $SECONDS_TO_RUN"
# An interrupted gst-launch is how this ends; it is no failure.
{ $limit gst-launch-1.0 -m -e \
    rtspsrc location="$url" protocols=tcp latency=200 ! decodebin ! \
    streamkvqa model-path="$model" question="$question" question-interval=5000000000 ! \
    fakesink sync=true || true; } | answers
