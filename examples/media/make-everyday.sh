#!/bin/sh
# SPDX-License-Identifier: MPL-2.0
#
# Makes the clip of the everyday world, from a street that no training has seen: everyday.webm (VP8),
# everyday.questions.jsonl, everyday.answers.tsv. Fetches the drawings first, unless they are there.
#
#   examples/media/make-everyday.sh [SEED]
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
seed=${1:-2000000007}
# Drawings of 256 pixels: the others were made for small pictures.
atlas=$PWD/target/everyday/atlas-256.bin
[ -f "$atlas" ] || tools/everyday/atlas.sh "$atlas" 256
cargo run --quiet --locked -p everyday --example street_clip -- --seed "$seed" --atlas "$atlas" \
    --questions "$here/everyday.questions.jsonl" --answers "$here/everyday.answers.tsv" |
    gst-launch-1.0 -q fdsrc ! \
        rawvideoparse format=rgb width=640 height=480 framerate=8/1 ! videoconvert ! \
        vp8enc deadline=0 end-usage=cq cq-level=14 min-quantizer=4 max-quantizer=44 \
        target-bitrate=160000 keyframe-max-dist=200 ! \
        webmmux ! filesink location="$here/everyday.webm"
ls -l "$here/everyday.webm"
