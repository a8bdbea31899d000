#!/bin/sh
# SPDX-License-Identifier: MPL-2.0
#
# A short pipeline under valgrind's memcheck: reads of what is not there or was never written, and what is lost
# for good. Video comes in, a question is asked at a time and one at the end, their text goes out, and all is
# stopped. The model is a small one with random weights.
#
# valgrind 3.19, Debian 12's, knows no AVX-512 and tells programs of a processor without it; those kernels choose
# what they run by asking the processor, so here they run the code for AVX2.
#
#   tools/proof/valgrind.sh
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
export GST_PLUGIN_PATH="$target/debug/gstreamer-1.0"

questions=$(mktemp)
export GST_REGISTRY="$questions.registry"
trap 'rm -f "$questions" "$GST_REGISTRY" "$questions.answers"' EXIT
printf '%s\n' '{"question": "what is it?", "at": 0.5}' '{"question": "what was it?"}' >"$questions"
# The registry is written by a process that is not watched: it loads every plugin there is.
gst-inspect-1.0 streamkvqa >/dev/null

# G_SLICE, G_DEBUG: glib's own pools would hide who allocated what.
G_SLICE=always-malloc G_DEBUG=gc-friendly valgrind --quiet --error-exitcode=9 --num-callers=30 \
    --leak-check=full --show-leak-kinds=definite --errors-for-leak-kinds=definite \
    --suppressions="$here/valgrind.supp" ${VALGRIND_OPTIONS:-} \
    gst-launch-1.0 -q videotestsrc pattern=ball num-buffers=12 ! \
    video/x-raw,format=I420,width=56,height=56,framerate=10/1 ! \
    streamkvqa name=qa model-path="$root/tests/fixtures/ov-even" method=streamkv max-tokens=3 sample-rate=5/1 eos-timeout=900000000000 \
        text-template="<{question}>" questions-file="$questions" ! fakesink \
    qa.text ! filesink location="$questions.answers"
[ "$(grep -o '<what [a-z ]*it?>' "$questions.answers" | wc -l)" = 2 ] || { echo 'error: not two answers' >&2; exit 1; }
echo "==> valgrind has found nothing"
