#!/bin/sh
# SPDX-License-Identifier: MPL-2.0
# What the element costs in a pipeline, beside the goals: frames a second from a file to the end, and the
# processor time of passing 1080p60 while one frame a second is looked at, over that of `identity` in the same
# place. In turn, medians of so many runs; starting is taken off by the difference of a long and a short run.
# Of several builds of the plugin, each in a folder of its own, the runs are in turn as well.
#
# usage: goals.sh [RUNS [FOLDER...]]
set -eu
STREAMKVQA_WORLD=toyworld
. "$(dirname "$0")/env.sh"
runs=${1:-5}
[ $# = 0 ] || shift
[ $# -gt 0 ] || set -- "${GST_PLUGIN_PATH%%:*}"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The plugin of that folder and no other; what GStreamer knows of it is not looked for again at each start.
use() {
    folder=$1 of=$2
    ls "$folder"/*streamkvqa*.so >/dev/null
    export GST_PLUGIN_PATH="$folder" GST_REGISTRY="$work/registry.$of"
    gst-inspect-1.0 streamkvqa >/dev/null
}
# Wall time and processor time of a pipeline, in seconds.
took() {
    bash -c 'TIMEFORMAT="%R %U %S"; { time gst-launch-1.0 -q "$@" >"$0" 2>&1; } 2>&1 || touch "$0.broken"' \
        "$work/log" "$@" | awk '{ print $1, $2 + $3 }'
    [ ! -e "$work/log.broken" ] || cat "$work/log" >&2
}
median() {
    sort -n "$1" | awk '{ v[NR] = $1 } END { print (v[int((NR + 1) / 2)] + v[int(NR / 2) + 1]) / 2 }'
}

gst-launch-1.0 -q filesrc location="$clip" ! matroskademux ! vp8dec ! filesink location="$work/once"
size=$((320 * 240 * 3 / 2))
once=$(($(wc -c <"$work/once") / size))
copies=8
for i in $(seq $copies); do cat "$work/once"; done >"$work/often"

# Every frame is looked at.
file() {
    took filesrc location="$work/$1" blocksize=$size ! \
        rawvideoparse format=i420 width=320 height=240 framerate=10/1 ! \
        streamkvqa model-path="$model" sample-rate=10/1 leaky=never ! fakesink sync=false
}
# At the pace of a camera.
pass() {
    seconds=$1
    shift
    took videotestsrc num-buffers=$((60 * seconds)) pattern=ball ! \
        video/x-raw,format=NV12,width=1920,height=1080,framerate=60/1 ! "$@" ! fakesink sync=true | cut -d' ' -f2
}
for i in $(seq "$runs"); do
    of=0
    for folder; do
        of=$((of + 1))
        use "$folder" $of
        short=$(file once | cut -d' ' -f1)
        long=$(file often | cut -d' ' -f1)
        echo "$short $long" | awk -v n=$((once * (copies - 1))) '{ print n / ($2 - $1) }' >>"$work/rate.$of"
    done
done
for i in $(seq "$runs"); do
    of=0
    a=$(pass 2 identity) b=$(pass 12 identity)
    for folder; do
        of=$((of + 1))
        use "$folder" $of
        c=$(pass 2 streamkvqa model-path="$model" sample-rate=1/1)
        d=$(pass 12 streamkvqa model-path="$model" sample-rate=1/1)
        echo "$a $b $c $d" | awk '{ print ($4 - $3) / ($2 - $1) }' >>"$work/share.$of"
    done
done

if [ -e "$work/log.broken" ]; then
    echo 'error: a pipeline failed' >&2
    exit 1
fi
echo "processor: $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1), $(nproc) threads"
head='| what | goal |' rule='|---|---|'
rate='| toyworld from a file, frames/s | >= 400 |'
share='| passing 1080p60, sampling 1 fps, processor time over identity | <= 1.02 |'
of=0
for folder; do
    of=$((of + 1))
    if [ $# = 1 ]; then head="$head value |"; else head="$head \`$folder\` |"; fi
    rule="$rule---|"
    rate="$rate $(median "$work/rate.$of") |"
    share="$share $(median "$work/share.$of") |"
done
printf '%s\n' "$head" "$rule" "$rate" "$share"
