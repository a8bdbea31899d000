#!/bin/sh
# SPDX-License-Identifier: MPL-2.0
#
# A camera that you ask while it runs: type a question, press Enter, and the answer appears token by
# token; Ctrl-D ends. The video does not wait for answers. Without an address a camera on loopback
# stands in (pipelines/rtsp-camera.py).
#
#   pipelines/live.sh [rtsp://... [MODEL]]
#   (sleep 5; echo "what is here now?") | pipelines/live.sh
set -eu
. "$(dirname "$0")/env.sh"
camera "${1-}"
"$root/examples/embed.py" "$url" --model "${2:-$model}"
