#!/bin/sh
# SPDX-License-Identifier: MPL-2.0
#
# Two cameras in one pipeline, each with a memory of its own, one loaded model for both. You will
# see each of them asked about what it shows, the names `door` and `yard` in front of the answers.
#
#   pipelines/two-cameras.sh [VIDEO [MODEL]]
set -eu
. "$(dirname "$0")/env.sh"
video=${1:-$clip}
model=${2:-$model}

launch \
    filesrc location="$video" ! decodebin ! \
    streamkvqa name=door model-path="$model" question="what is here now?" \
    question-interval=10000000000 ! fakesink sync=false \
    filesrc location="$video" ! decodebin ! videoflip method=horizontal-flip ! \
    streamkvqa name=yard model-path="$model" question="is it day, dusk or night now?" \
    question-interval=10000000000 ! fakesink sync=false |
    answers --names
