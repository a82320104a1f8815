#!/bin/sh
# Runs new_stage as ecgpipe does, on two small files: `sh test_new_stage.sh`.
set -eu

program=$(cd "$(dirname "$0")" && pwd)/new_stage.sh
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
mkdir -p inputs/files outputs
printf 'abc' >inputs/files/b.txt
: >inputs/files/a.txt
echo '{"format": 1, "stage": "new_stage", "params": {}}' >job.json

sh "$program" job.json

printf 'name,bytes\na.txt,0\nb.txt,3\n' | cmp - outputs/list/sizes.csv
test -s result.json
echo ok
