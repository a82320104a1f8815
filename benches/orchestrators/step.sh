#!/bin/sh
# One body of the benchmark: `step.sh STEP PARAMETER OUTPUT INPUT...`. The same program whatever tool calls it, so that what
# differs is the tool. It notes in $BODIES that it ran. Steps 1 to 4 turn a file of 2 MB over, step 5 sums up all files,
# steps 6 to 9 hand the sum on.
set -eu
step=$1 parameter=$2 output=$3
shift 3
echo "$step" >>"$BODIES"
case $step in
    1 | 2 | 3 | 4) tr 'a-z' 'b-za' <"$1" >"$output" ;;
    5) for input in "$@"; do cksum <"$input"; done >"$output" ;;
    *) { echo "$step $parameter"; cat "$1"; } >"$output" ;;
esac
