#!/bin/sh
# Edits the code of one stage in a copy of this checkout, rebuilds, runs the quickstart on one cache, and shows which stages
# have another code identity and which bodies ran. No edit may be served a stale result, and none may compute more than it
# changed:
#
#   nothing      the same program again                    nothing runs
#   comment      a comment in stages/rhythm.rs             nothing runs
#   same result  a factor of 1 in stages/rhythm.rs         rhythm runs, and the wave stops there
#   arithmetic   a factor of 2 in stages/rhythm.rs         rhythm runs, and what depends on its bytes
#
# (Training scales features by their deviation, so a factor of 2 changes the model but no prediction: the wave of the last edit
# stops behind infer.)
#
# Usage: benches/stale_code.sh [EDIT...]    (default: all of them; the target folder is shared: each edit rebuilds the
# members of the workspace alone). Exit 1 if an edit gave another result than it should.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/checkout" "$work/project"
(cd "$root" && git ls-files -z -co --exclude-standard | tar --null -T - -cf -) | tar -xf - -C "$work/checkout"
cp "$work/checkout/stages/rhythm.rs" "$work/rhythm.rs"
cp -r "$work/checkout/pipelines" "$work/project/pipelines"

build() {
    # Whoever else builds into this folder: the copy is newer.
    (cd "$work/checkout" && touch stages/sdk/src/lib.rs stages/tables/src/lib.rs stages/lib.rs stages/build.rs src/lib.rs)
    (cd "$work/checkout" && CARGO_TARGET_DIR="$target" cargo build --release --locked --quiet)
    cp "$target/release/ecgpipe" "$work/ecgpipe"
}

# Runs the quickstart on the one cache; prints what ran and which identities differ from the first program's.
run() {
    (cd "$work/project" && "$work/ecgpipe" run pipelines/quickstart.yaml --offline --quiet 2>"$work/stderr") || {
        cat "$work/stderr"
        exit 1
    }
    folder=$(ls -d "$work"/project/runs/*/ | sort | tail -1)
    python3 - "$1" "$folder" "$work/first.json" <<'PYTHON'
import json, os, sys
edit, folder, first = sys.argv[1:]
plan = json.load(open(folder + "plan.json"))
code = {node["name"]: node["code"] for node in plan["nodes"]}
if not os.path.exists(first):
    json.dump(code, open(first, "w"))
before = json.load(open(first))
jobs = json.load(open(folder + "jobs.json"))
ran = {}
for job in jobs:
    if job.get("why") is not None:
        ran[job["job"]["node"]] = ran.get(job["job"]["node"], 0) + 1
changed = sorted(node for node in code if code[node] != before[node])
print(f"{edit:12} code changed: {', '.join(changed) or 'none':8} ran {sum(ran.values())} of {len(jobs)}: "
      + (", ".join(f"{node} {n}" for node, n in sorted(ran.items())) or "nothing"))
records = sum(job["job"]["node"] == "rhythm" for job in jobs)
fed = {"rhythm", "train", "baseline", "export", "infer", "evaluate", "curves", "confusion", "beats", "strips"}
expected = {
    "first": lambda: changed == [] and sum(ran.values()) == len(jobs),
    "nothing": lambda: changed == [] and ran == {},
    "comment": lambda: changed == [] and ran == {},
    "same result": lambda: changed == ["rhythm"] and ran == {"rhythm": records},
    "arithmetic": lambda: changed == ["rhythm"] and ran["rhythm"] == records and {"train", "baseline"} < set(ran) <= fed,
}
if not expected[edit]():
    sys.exit(f"{edit}: that is wrong")
PYTHON
}

column='computed.columns\[place\].clone()'
build
run first
[ $# -gt 0 ] || set -- nothing comment "same result" arithmetic
for edit in "$@"; do
    cp "$work/rhythm.rs" "$work/checkout/stages/rhythm.rs"
    case $edit in
    nothing) ;;
    comment) sed -i "s|^impl Stage for Rhythm|// An edit without a meaning.\n&|" "$work/checkout/stages/rhythm.rs" ;;
    "same result") sed -i "s|$column|computed.columns[place].clone().into_iter().map(\|value\| value * 1.0).collect()|" "$work/checkout/stages/rhythm.rs" ;;
    arithmetic) sed -i "s|$column|computed.columns[place].clone().into_iter().map(\|value\| value * 2.0).collect()|" "$work/checkout/stages/rhythm.rs" ;;
    *) echo "there is no edit \`$edit\`" && exit 2 ;;
    esac
    if [ "$edit" != nothing ]; then
        ! cmp -s "$work/rhythm.rs" "$work/checkout/stages/rhythm.rs" || { echo "$edit: the edit finds no place"; exit 1; }
        build
    fi
    run "$edit"
done
