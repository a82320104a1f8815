# The stage of the suite in POSIX sh: `mode` says what it does.
set -eu

# The value of a field that is alone on its line.
field() { sed -n 's/^ *"'"$1"'": "\{0,1\}\([^",]*\)"\{0,1\},\{0,1\}$/\1/p' job.json; }

mode=$(field mode)
result='{"format": 1}'

good() {
    mkdir outputs/files
    cp inputs/files/* outputs/files/
    cp inputs/beats.parquet outputs/beats.parquet
    echo "mode=$mode salt=$(field salt) seed=$(field seed) record=$(field record) threads=$(field threads)" >outputs/files/facts.txt
}

good
case "$mode" in
    error)
        echo '{"format": 1, "error": {"message": "told to fail", "help": "tell it not to", "record": "a"}}' >result.json
        exit 1
        ;;
    error_and_exit_0) result='{"format": 1, "error": {"message": "told to fail"}}' ;;
    exit_1)
        echo 'what was wrong' >&2
        exit 1
        ;;
    exit_1_without_error)
        echo "$result" >result.json
        exit 1
        ;;
    abort) kill -ABRT $$ ;;
    kill) kill -KILL $$ ;;
    hang)
        exec 9>"$(field pipe)"
        # One in the group that outlives the program unless somebody cares.
        sleep 1000 &
        sleep 1000
        ;;
    leave)
        exec 9>"$(field pipe)"
        sleep 1000 &
        ;;
    events)
        echo '{"event": "progress", "done": 1, "total": 2, "unit": "parts"}'
        echo '{"event": "metric", "key": "loss", "step": 3, "value": 0.25}'
        echo '{"event": "note", "text": "a note"}'
        echo '{"event": "warning", "text": "a warning"}'
        ;;
    results)
        result='{"format": 1, "metrics": [{"key": "loss", "step": 3, "value": 0.25}], "warnings": ["a warning"]}'
        ;;
    strange_stdout)
        echo '{"event": "party"}'
        echo '{"event": '
        echo 'plain text'
        ;;
    huge_stderr) head -c 40000000 /dev/zero | tr '\0' 'x' >&2 ;;
    environment) env | sed 's/=.*//' | sort >outputs/files/environment.txt ;;
    missing_output) rm outputs/beats.parquet ;;
    misnamed_output) mv outputs/beats.parquet outputs/beat.parquet ;;
    extra_output) echo >outputs/debug.txt ;;
    wrong_kind) cp inputs/other.parquet outputs/beats.parquet ;;
    garbage) echo 'PAR1 not at all PAR1' >outputs/beats.parquet ;;
    truncated) head -c 500 inputs/beats.parquet >outputs/beats.parquet ;;
    empty) : >outputs/beats.parquet ;;
    other_version) LC_ALL=C sed 's/beats v1/beats v2/' inputs/beats.parquet >outputs/beats.parquet ;;
    other_record) LC_ALL=C sed 's/"a"/"z"/g' inputs/beats.parquet >outputs/beats.parquet ;;
    other_unit) LC_ALL=C sed 's/samples/seconds/' inputs/beats.parquet >outputs/beats.parquet ;;
    link) ln -sf ../inputs/beats.parquet outputs/beats.parquet ;;
    link_outside) ln -sf /etc/passwd outputs/beats.parquet ;;
    link_in_bundle) ln -s /etc/passwd outputs/files/passwd ;;
    linked_bundle)
        mv outputs/files elsewhere
        ln -s ../elsewhere outputs/files
        ;;
    linked_outputs)
        mv outputs elsewhere
        ln -s elsewhere outputs
        ;;
    no_outputs) rm -r outputs ;;
    pipe_as_output)
        rm outputs/beats.parquet
        mkfifo outputs/beats.parquet
        ;;
    folder_as_output)
        rm outputs/beats.parquet
        mkdir outputs/beats.parquet
        ;;
    hidden_file) echo >outputs/files/.hidden ;;
    folder_in_bundle) mkdir outputs/files/folder ;;
    no_result) exit 0 ;;
    other_format) result='{"format": 2, "surprise": []}' ;;
    no_format) result='{}' ;;
    bad_result) result='{"format": 1, "metric": []}' ;;
    result_no_json) result='done' ;;
    linked_result)
        echo "$result" >elsewhere.json
        ln -s elsewhere.json result.json
        exit 0
        ;;
esac
echo "$result" >result.json
