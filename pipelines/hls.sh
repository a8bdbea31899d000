#!/bin/sh
# SPDX-License-Identifier: MPL-2.0
#
# Writes the answers into the picture and the picture as an HLS stream that every browser plays: live.m3u8
# and its pieces, in the folder that you name. Serve it with any web server.
#
# hlssink2 of GStreamer 1.22 would do without mpegtsmux, and now and then keeps the end of the stream to itself.
#
#   pipelines/hls.sh [FOLDER [VIDEO [QUESTION [MODEL]]]]
set -eu
. "$(dirname "$0")/env.sh"
folder=${1:-hls}
video=${2:-$clip}
question=${3:-what is here now?}
model=${4:-$model}

mkdir -p "$folder"
gst-launch-1.0 -q \
    filesrc location="$video" ! decodebin3 ! \
    streamkvqa name=qa model-path="$model" question="$question" question-interval=3000000000 \
    text-template="$question_and_answer" ! \
    queue ! textoverlay name=burn font-desc="Sans 18" shaded-background=true ! videoconvert ! \
    openh264enc complexity=low gop-size=16 bitrate=800000 ! h264parse ! mpegtsmux ! \
    hlssink location="$folder/part%05d.ts" playlist-location="$folder/live.m3u8" \
    target-duration=4 playlist-length=0 max-files=0 \
    qa.text ! queue ! burn.text_sink
echo "Written: $folder/live.m3u8"
