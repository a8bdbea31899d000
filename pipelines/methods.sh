#!/bin/sh
# SPDX-License-Identifier: MPL-2.0
#
# Asks the questions of the demo with one method after the other. You will see a line for each
# method: how many of its answers were right, and what it said where they were not.
#
#   [JOBS=2] pipelines/methods.sh [METHOD...]
set -eu
. "$(dirname "$0")/env.sh"
# Without names: all that the element knows, as its own help lists them.
[ $# -gt 0 ] || set -- $(gst-inspect-1.0 --no-colors streamkvqa |
    sed -n 's/^  method  *: [^:]*: \([^.]*\)\..*/\1/p' | tr -d ',')

results=$(mktemp -d)
trap 'rm -rf "$results"' EXIT

# Plays the clip to one method.
play() {
    launch \
        filesrc location="$clip" ! matroskademux ! vp8dec ! \
        streamkvqa model-path="$model" method="$1" questions-file="$questions" ! \
        fakesink sync=false |
        answers "$right_answers" >"$results/$1" || touch "$results/$1.failed"
}

# What `answers` printed, as one line; wrong answers by the tags of their questions.
line='
FILENAME == ARGV[1] {
    match($0, /"question":"[^"]*"/)
    question = substr($0, RSTART + 12, RLENGTH - 13)
    match($0, /"tag":"[^"]*"/)
    tags[question] = substr($0, RSTART + 7, RLENGTH - 8)
    next
}
/ answers were right\.$/ { count = $1 " of " $3; next }
/^ *[0-9.]+ s  / { sub(/^ *[0-9.]+ s  /, ""); question = $0; next }
/  wrong: / {
    answer = substr($0, 12)
    sub(/ seen at .*|  .*/, "", answer)
    wrong = wrong (wrong == "" ? "" : ", ") tags[question] " \"" answer "\""
}
END { printf "%-16s %-10s %s\n", method, count, wrong }'

failed=0
report() {
    for method; do
        if [ -e "$results/$method.failed" ]; then
            failed=1
            printf '%-16s failed\n' "$method"
            cat "$results/$method"
        else
            awk -v method="$method" "$line" "$questions" "$results/$method"
        fi
    done
}

printf '%-16s %-10s %s\n' method right wrong
running=
for method; do
    play "$method" &
    running="$running $method"
    if [ "$(echo "$running" | wc -w)" -ge "${JOBS:-2}" ]; then
        wait
        report $running
        running=
    fi
done
wait
report $running
exit "$failed"
