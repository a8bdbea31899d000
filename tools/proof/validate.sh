#!/bin/sh
# SPDX-License-Identifier: MPL-2.0
#
# The element under gst-validate: its monitors watch every pad (segments, timestamps, flushes, caps, seqnums) while
# the scenarios beside this script seek, scrub, pause, change the rate and the state. Answers are asked for all the
# while, and a report of any level fails the run, but for those that are named below.
#
# Debian 12 has no gst-validate. Where there is none on PATH, it is compiled from the sources that GST_DEVTOOLS
# names: the folder subprojects/gst-devtools of GStreamer, or the repository gst-devtools. STREAMKVQA_MODEL: another
# model than the small one.
#
#   GST_DEVTOOLS=FOLDER tools/proof/validate.sh [SCENARIO ...]
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
tools=$target/gst-validate

libraries=$(ls -d "$tools"/lib/* "$tools/lib" 2>/dev/null | tr '\n' ':')
if ! command -v gst-validate-1.0 >/dev/null && [ ! -x "$tools/bin/gst-validate-1.0" ]; then
    if [ ! -d "${GST_DEVTOOLS:-}/validate" ]; then
        echo 'error: there is no gst-validate-1.0. Install gst-devtools, or name its sources:' >&2
        echo '    git clone --depth 1 --branch 1.22.0 https://gitlab.freedesktop.org/gstreamer/gstreamer.git' >&2
        echo '    make validate GST_DEVTOOLS=$PWD/gstreamer/subprojects/gst-devtools' >&2
        exit 1
    fi
    echo "==> compiling gst-validate into $tools"
    # What the library exports is marked in its headers in one way before 1.24 and in another since.
    { meson setup "$tools/build" "$GST_DEVTOOLS" --prefix="$tools" -Dc_args=-fvisibility=default -Dtests=disabled \
        -Dintrospection=disabled -Dnls=disabled -Ddoc=disabled -Ddebug_viewer=disabled &&
        ninja -C "$tools/build" install; } >"$tools.log" 2>&1 || { cat "$tools.log"; exit 1; }
    libraries=$(ls -d "$tools"/lib/* "$tools/lib" | tr '\n' ':')
fi
PATH=$PATH:$tools/bin
export LD_LIBRARY_PATH="$libraries${LD_LIBRARY_PATH:-}"

export GST_PLUGIN_PATH="$target/debug/gstreamer-1.0${GST_PLUGIN_PATH:+:$GST_PLUGIN_PATH}"
clip=$root/examples/media/everyday.webm
model=${STREAMKVQA_MODEL:-$root/models/toyworld}
logs=$target/validated
mkdir -p "$logs"
# What may be said, and of which pad. The text has one open segment of running time, and not the video's. A seek
# comes from two sinks; the second is taken for what it is, the first one again, and brings no flush of its own.
known='warning : a new segment event has different value than the received one on <qa:text>
issue : FLUSH_START events that are part of the same pipeline operation should have the same seqnum on <qa:src>
issue : FLUSH_STOP events that are part of the same pipeline operation should have the same seqnum on <qa:src>'
# Each report of a log as a line: its level, what it is, and the pad.
reported() {
    tr -d "'" <"$1" | sed -n -e '/^ *\(issue\|warning\|critical\) : /{s/^ *//;h}' \
        -e '/^ *Detected on /{s/^ *Detected on / on /;H;g;s/\n//;p}'
}
[ $# -gt 0 ] || set -- seek scrub pause rate states
for scenario; do
    echo "==> $scenario"
    # matroskademux of 1.22 reports an error by itself when it is stopped while it starts.
    case $scenario in
        states) source="videotestsrc pattern=ball ! video/x-raw,width=160,height=120,framerate=10/1" ;;
        *) source="filesrc location=$clip ! matroskademux ! vp8dec" ;;
    esac
    # shellcheck disable=SC2086 # words of a pipeline
    GST_VALIDATE=print_issues timeout --kill-after=5 120 \
        gst-validate-1.0 --set-scenario "$here/scenarios/$scenario.scenario" $source ! \
        streamkvqa name=qa model-path="$model" max-tokens=4 question="what is here now?" \
            question-interval=500000000 ! fakevideosink \
        qa.text ! fakesink sync=true >"$logs/$scenario.log" 2>&1 || failed=$?
    # Without the position, which it prints all the time.
    tr '\r' '\n' <"$logs/$scenario.log" | grep -a -v -e '^<position' -e '^ *$' >"$logs/$scenario.txt" || true
    # By itself it fails for what is critical alone.
    unknown=$(reported "$logs/$scenario.txt" | grep -v -x -F -e "$known") || true
    [ -z "$unknown" ] || failed=${failed:-$unknown}
    [ -z "${failed:-}" ] || { cat "$logs/$scenario.txt"; echo "error: $scenario ($failed)" >&2; exit 1; }
    tail -n 2 "$logs/$scenario.txt"
done
