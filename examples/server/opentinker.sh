#!/bin/sh
# Gets a training server with curl, trains with it, and gives it back.
#
#     tinksched register ada --output opentinker.key
#     OPENTINKER_KEY=$(cat opentinker.key) sh examples/server/opentinker.sh
#
# The key goes to curl on standard input (-H @-), so that it is in no list of processes.
set -eu
scheduler=${OPENTINKER_SCHEDULER:-http://127.0.0.1:8765}
: "${OPENTINKER_KEY:?is your key}"

ask() {
    printf 'Authorization: Bearer %s\n' "$OPENTINKER_KEY" |
        curl --silent --show-error --fail-with-body -H @- "$@"
}

# A text of a JSON answer; nothing if it is null. (With jq: jq -r .NAME)
field() {
    sed -n "s/.*\"$1\": *\"\([^\"]*\)\".*/\1/p"
}

answer=$(ask -H 'Content-Type: application/json' -d '{"config": {"lr": 0.1}}' "$scheduler/submit_job") || {
    echo "refused: $answer" >&2
    exit 1
}
job=$(printf '%s' "$answer" | field job_id)
printf '%s\n' "$answer" | field message >&2
trap 'ask -X POST "$scheduler/complete_job/$job" | field message >&2' EXIT

url=
while [ -z "$url" ]; do
    known=$(ask "$scheduler/job_status/$job")
    case $known in *'"status":"FAILED"'* | *'"status":"CANCELLED"'*) printf '%s\n' "$known" >&2; exit 1 ;; esac
    url=$(printf '%s' "$known" | field server_url)
    [ -n "$url" ] || sleep 0.5
done

for _ in 1 2 3; do
    curl --silent --show-error --fail -d '{"x": [0, 1, 2, 3], "y": [1, 3, 5, 7]}' "$url/train_step"
    echo
done
