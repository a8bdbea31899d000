#!/bin/sh
# SPDX-License-Identifier: MPL-2.0
#
# A live source (a moving ball) that you ask while it runs: type a question, press Enter, and the
# answer appears token by token; Ctrl-D ends. The video does not wait for answers.
#
#   pipelines/live.sh [MODEL]
#   (sleep 5; echo "what color is it now?") | pipelines/live.sh
set -eu
. "$(dirname "$0")/env.sh"
exec "$root/examples/embed.py" --ball --model "${1:-$model}"
