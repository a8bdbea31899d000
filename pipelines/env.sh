# SPDX-License-Identifier: MPL-2.0
# shellcheck shell=sh
# Sourced by the scripts beside it: finds the plugin, the model and the clip.

root=$(cd "$(dirname "$0")/.." && pwd)
# STREAMKVQA_WORLD=toyworld: coloured shapes in place of everyday things.
world=${STREAMKVQA_WORLD:-everyday}
model=$root/models/$world
clip=$root/examples/media/$world.webm
questions=$root/examples/media/$world.questions.jsonl
right_answers=$root/examples/media/$world.answers.tsv
# What the text pad writes: the question, the answer, and the minutes of video it rests on.
question_and_answer='{question}{br}{answer} [{start}-{end}]'

# A plugin built here comes before an installed one. It gets a folder of its own, because GStreamer
# would try to load every library below target/debug.
for built in "${CARGO_TARGET_DIR:-$root/target}/debug" "${CARGO_TARGET_DIR:-$root/target}/release"; do
    plugin=libgststreamkvqa.so
    # `cargo test` on its own renews only the one in deps.
    [ ! "$built/deps/$plugin" -nt "$built/$plugin" ] || plugin=deps/$plugin
    if [ -e "$built/$plugin" ]; then
        mkdir -p "$built/gstreamer-1.0"
        ln -sf "../$plugin" "$built/gstreamer-1.0/libgststreamkvqa.so"
        export GST_PLUGIN_PATH="$built/gstreamer-1.0${GST_PLUGIN_PATH:+:$GST_PLUGIN_PATH}"
        break
    fi
done
if ! gst-inspect-1.0 streamkvqa >/dev/null 2>&1; then
    echo "error: GStreamer finds no streamkvqa element; run 'make build' first" >&2
    exit 1
fi

# `launch ... | answers` runs a pipeline and prints the answers in its messages, as they come.
launch() {
    gst-launch-1.0 -m "$@" && echo "exit status 0" || echo "exit status $?"
}
answers() {
    "$root/pipelines/show-answers.sh" "$@"
}

# `camera ADDRESS` sets url to it; where it is empty, to a camera on loopback that ends with the script.
camera() {
    url=$1
    [ -z "$url" ] || return 0
    address=$(mktemp)
    "$root/pipelines/rtsp-camera.py" 0 "$clip" >"$address" &
    camera=$!
    trap 'kill $camera 2>/dev/null; rm -f "$address"' EXIT
    until [ -s "$address" ]; do
        kill -0 $camera || exit 1
        sleep 0.1
    done
    url=$(cat "$address")
}
