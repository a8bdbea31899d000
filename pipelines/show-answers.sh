#!/bin/sh
# SPDX-License-Identifier: MPL-2.0
#
# Reads what `gst-launch-1.0 -m` prints and writes the questions and answers in it, as they come:
#
#    31.5 s  where was the red circle?
#            top left                      seen at 12-15 s, 4-5 s
#
# Alerts stand between them, with an exclamation mark:
#
#    51.0 s ! is there an elephant now?
#            yes since 51 s             seen at 51-52 s
#
# With a file of right answers (tag, a tab, answer) each answer whose tag is in it is checked, others are
# left out, and the last line says how many were right. With --names the name of the element that answered stands in
# front. Errors and the loading of the model are passed on. A line `exit status N`, which `launch` in
# env.sh adds, makes N the exit status: a shell's pipe only has that of its last part.
#
#   gst-launch-1.0 -m ... | pipelines/show-answers.sh [--names] [RIGHT-ANSWERS.tsv]
set -eu

names=
if [ "${1-}" = --names ]; then
    names=yes
    shift
fi
right_answers=${1-}
asked=0
right=0
status=0

fields='
# The value of a field; the quoting is off already, so a text ends where the next field begins.
function field(name, text) {
    if (!match($0, "[, ]" name "=\\([a-z0-9]*\\)")) return ""
    text = substr($0, RSTART + RLENGTH)
    sub(/, [a-z-]+=\([a-zA-Z0-9]*\).*/, "", text)
    sub(/;$/, "", text)
    return text
}
'
# One message of an answer in, one block of text out.
block=$fields'
# The number of a field of a stretch of evidence.
function number(name, stretch) {
    if (!match(stretch, name "=\\([a-z0-9]*\\)[0-9.]+")) return 0
    stretch = substr(stretch, RSTART, RLENGTH)
    sub(/.*\)/, "", stretch)
    return stretch + 0
}
function seconds(ns) { return sprintf("%.1f", ns / 1e9) + 0 }
function span(stretch, from, to) {
    from = seconds(number("start", stretch))
    to = seconds(number("end", stretch))
    return (from == to ? from : from "-" to) " s"
}
{
    # The two stretches that weighed most, the heavier first.
    seen = ""
    n = split($0, stretch, /evidence, /)
    for (rank = 1; rank <= 2 && rank < n; rank++) {
        best = 2
        for (i = 2; i <= n; i++)
            if (number("score", stretch[i]) > number("score", stretch[best])) best = i
        seen = seen (seen == "" ? "seen at " : ", ") span(stretch[best])
        stretch[best] = ""
    }
    status = field("status")
    name = ""
    if (names && match($0, /from element [^ ]+/)) name = substr($0, RSTART + 13, RLENGTH - 13) ": "
    alert = status == "began" || status == "ceased"
    answer = field("answer")
    if (alert) answer = answer (status == "began" ? " since " : ", it lasted ") \
        seconds(number(status == "began" ? "since" : "lasted", $0)) " s"
    printf "%7.1f s %s %s%s\n", seconds(number("asked-at", $0)), alert ? "!" : "", name, field("question")
    printf "%9s  %-26s %s%s%s\n", "", answer, seen, verdict,
        status == "ok" || alert ? "" : "  (" status ")"
}'

while IFS= read -r line; do
    case $line in
        *'streamkvqa/alert'*)
            verdict=
            printf '%s\n' "$line" | sed 's/[\\"]//g' | awk -v names="$names" -v verdict= "$block"
            ;;
        *'streamkvqa/answer'*)
            # GstStructure quotes a text within a structure within a text; none of it matters here.
            plain=$(printf '%s\n' "$line" | sed 's/[\\"]//g')
            verdict=
            if [ -n "$right_answers" ]; then
                tag=$(printf '%s\n' "$plain" | awk "$fields"'{ print field("tag") }')
                answer=$(printf '%s\n' "$plain" | awk "$fields"'{ print field("answer") }')
                expected=$(awk -F '\t' -v tag="$tag" '$1 == tag { print $2 }' "$right_answers")
                [ -z "$expected" ] || asked=$((asked + 1))
                if [ -z "$expected" ]; then
                    # A standing question has many answers; its alerts tell.
                    continue
                elif [ "$answer" = "$expected" ]; then
                    right=$((right + 1))
                    verdict='  right'
                else
                    verdict="  wrong: $expected"
                fi
            fi
            printf '%s\n' "$plain" | awk -v names="$names" -v verdict="$verdict" "$block"
            ;;
        'exit status '*) status=${line#exit status } ;;
        'Progress: (load-model) '* | ERROR* | WARNING*)
            # Paths below the current folder are shortened.
            line=${line#'Progress: (load-model) '}
            case $line in *"$PWD/"*) line=${line%%"$PWD/"*}${line#*"$PWD/"} ;; esac
            printf '%s\n' "$line"
            ;;
    esac
done

if [ -n "$right_answers" ]; then
    echo "$right of $asked answers were right."
fi
exit "$status"
