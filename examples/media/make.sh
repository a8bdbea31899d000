#!/bin/sh
# SPDX-License-Identifier: MPL-2.0
#
# Makes the clip that the demo and the pipelines play, from a seed of the toy world that no
# training has seen: toyworld.webm (VP8), toyworld.questions.jsonl, toyworld.answers.tsv.
#
#   examples/media/make.sh [SEED]
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
seed=${1:-2000000000}
cargo run --quiet --locked -p toyworld --example demo_clip -- --seed "$seed" \
    --questions "$here/toyworld.questions.jsonl" --answers "$here/toyworld.answers.tsv" |
    gst-launch-1.0 -q fdsrc ! \
        rawvideoparse format=rgb width=320 height=240 framerate=10/1 ! videoconvert ! \
        vp8enc deadline=0 end-usage=cq cq-level=12 min-quantizer=2 max-quantizer=40 \
        target-bitrate=220000 keyframe-max-dist=100 ! \
        webmmux ! filesink location="$here/toyworld.webm"
ls -l "$here/toyworld.webm"
