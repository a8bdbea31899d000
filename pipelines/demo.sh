#!/bin/sh
# SPDX-License-Identifier: MPL-2.0
#
# Plays a minute and a half of a street, asks about it at set times and has two questions stand until
# their answers change, and shows each answer with the seconds of video that it rests on. You will see
# questions and answers below each other, and find two files: demo.srt with them as subtitles, and
# demo.mkv with them burned into the picture.
#
#   [STREAMKVQA_WORLD=toyworld] pipelines/demo.sh
set -eu
. "$(dirname "$0")/env.sh"

# textoverlay holds back text that comes after the video's end; a queue without bounds takes it, so that the
# other branch of the tee gets its own.
endless="max-size-buffers=0 max-size-bytes=0 max-size-time=0"

echo "Playing $(basename "$clip") as fast as it can be watched and asked about."
echo
launch \
    filesrc location="$clip" ! matroskademux ! vp8dec ! \
    streamkvqa name=qa model-path="$model" questions-file="$questions" \
    text-template="$question_and_answer" text-duration=4000000000 ! \
    queue ! videoscale ! video/x-raw,width=640,pixel-aspect-ratio=1/1 ! \
    textoverlay name=burn font-desc="Sans 16" shaded-background=true ! \
    videoconvert ! vp8enc deadline=1 cpu-used=-8 target-bitrate=600000 ! \
    matroskamux ! filesink location=demo.mkv \
    qa.text ! tee name=text \
    text. ! queue $endless ! burn.text_sink \
    text. ! queue ! srtenc ! filesink location=demo.srt |
    answers "$right_answers"
echo
echo "Written: demo.srt (subtitles) and demo.mkv (questions and answers in the picture)."
