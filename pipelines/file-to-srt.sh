#!/bin/sh
# SPDX-License-Identifier: MPL-2.0
#
# A video file and a list of questions in, subtitles out: each question with its answer, at the
# time it was asked. You will see the subtitle file printed at the end.
#
#   pipelines/file-to-srt.sh [VIDEO [QUESTIONS.jsonl [OUT.srt [MODEL]]]]
set -eu
. "$(dirname "$0")/env.sh"
video=${1:-$clip}
questions=${2:-$questions}
out=${3:-answers.srt}
model=${4:-$model}

gst-launch-1.0 -q \
    filesrc location="$video" ! decodebin ! \
    streamkvqa name=qa model-path="$model" questions-file="$questions" \
    text-template="$question_and_answer" ! \
    fakesink sync=false \
    qa.text ! srtenc ! filesink location="$out"
cat "$out"
