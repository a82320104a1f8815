#!/bin/sh
# Lists the sizes of a bundle of files: a skeleton that `ecgpipe stages new` wrote. Say here what the stage does.
#
# Run by ecgpipe as `sh new_stage.sh job.json` in a folder of its own. An artifact of kind `files` is a folder of plain files
# there, `inputs/<port>` and `outputs/<port>`. The protocol is in ecgpipe's docs/plugins.md.
set -eu
LC_ALL=C
export LC_ALL

mkdir -p outputs/list
list=outputs/list/sizes.csv
echo 'name,bytes' >"$list"
for file in inputs/files/*; do
    # An empty bundle leaves the pattern as it is.
    if [ -e "$file" ]; then
        printf '%s,%d\n' "${file##*/}" "$(wc -c <"$file")" >>"$list"
    fi
done

# Written last: it says that the work is done. A failure: {"format": 1, "error": {"message": "...", "help": "..."}} and exit 1.
printf '{"format": 1, "metrics": [], "warnings": []}\n' >result.json
