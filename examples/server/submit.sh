#!/bin/sh
# Submits solution.py with curl, follows its output, and prints its results.
#
#     TINKSCHED_SERVER=http://localhost:8001 TINKSCHED_TOKEN=... sh examples/server/submit.sh
#
# The token goes to curl on standard input (-H @-), so that it is in no list of processes.
set -eu
cd "$(dirname "$0")"
server=${TINKSCHED_SERVER:?is the URL of the server}
: "${TINKSCHED_TOKEN:?is your token}"

ask() {
    printf 'Authorization: Bearer %s\n' "$TINKSCHED_TOKEN" |
        curl --silent --show-error --fail-with-body -H @- "$@"
}

answer=$(ask -F code=@solution.py -F config_file=@config.yaml "$server/api/submit?wait=false") || {
    echo "refused: $answer" >&2
    exit 1
}
job=$(printf '%s' "$answer" | sed 's/.*"job_id": *"\([^"]*\)".*/\1/')
echo "submitted: $job" >&2

echo 'its output, as it comes (server-sent events):' >&2
ask --no-buffer "$server/api/logs/$job" | sed -n 's/^data: //p' >&2

results=$(ask "$server/api/results/$job")
printf '%s\n' "$results"
case $results in *'"status":"completed"'*) ;; *) exit 1 ;; esac
