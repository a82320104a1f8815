#!/bin/sh
# Writes SHA256SUMS over the files of the input `files`, sorted by name. Needs sha256sum (coreutils) or shasum (Perl).
#
# Run by ecgpipe as `sh checksums.sh job.json` in an empty folder. An artifact of kind `files` is a folder of plain files there,
# `inputs/<port>` and `outputs/<port>`, so that job.json need not be read. The protocol: docs/plugins.md.
set -eu
LC_ALL=C
export LC_ALL

# The host shows the message, not just the exit status.
fail() {
    printf '{"format": 1, "error": {"message": "%s", "help": "%s"}}\n' "$1" "$2" >result.json
    exit 1
}

if command -v sha256sum >/dev/null; then
    sum() { sha256sum "$@"; }
elif command -v shasum >/dev/null; then
    sum() { shasum -a 256 "$@"; }
else
    fail 'neither sha256sum nor shasum is on PATH' 'install coreutils'
fi

mkdir -p outputs/manifest
manifest=$PWD/outputs/manifest/SHA256SUMS
: >"$manifest"
cd inputs/files
for file in *; do
    # An empty bundle leaves the pattern as it is.
    if [ -e "$file" ]; then
        sum -- "$file" >>"$manifest"
    fi
done
cd ../..

printf '{"format": 1, "metrics": [], "warnings": []}\n' >result.json
