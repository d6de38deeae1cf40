#!/bin/sh
# Trains the models of examples/digits through GPU slots in tmux, from nothing: sh examples/quickstart.sh
#
# Makes a virtual environment, installs tinksched, makes a workspace, runs all configs and waits for them. It is safe to
# run again: what has completed stays completed. Everything lies in .quickstart of the checkout (or in $QUICKSTART_DIR);
# remove that folder to begin anew.
set -eu
checkout=$(cd "$(dirname "$0")/.." && pwd)
place=${QUICKSTART_DIR:-$checkout/.quickstart}
workspace=$place/digits

say() { printf '\n==> %s\n' "$1"; }

if ! command -v tmux >/dev/null; then
    say 'tmux is missing: installing it with the package manager of the system'
    as_root=
    [ "$(id -u)" = 0 ] || as_root=sudo
    if command -v apt-get >/dev/null; then
        $as_root apt-get update -qq && $as_root apt-get install -y -qq --no-install-recommends tmux
    elif command -v dnf >/dev/null; then
        $as_root dnf install -y -q tmux
    elif command -v pacman >/dev/null; then
        $as_root pacman -S --noconfirm tmux
    elif command -v zypper >/dev/null; then
        $as_root zypper --non-interactive install tmux
    elif command -v apk >/dev/null; then
        $as_root apk add tmux
    else
        echo 'No package manager that this script knows. Install tmux 3.2a or newer (for example' >&2
        echo '"conda install -c conda-forge tmux"), and run this again.' >&2
        exit 2
    fi
fi

if [ ! -x "$place/venv/bin/tinksched" ]; then
    say "installing tinksched and scikit-learn into $place/venv"
    mkdir -p "$place"
    "${PYTHON:-python3}" -m venv "$place/venv"
    "$place/venv/bin/python" -m pip install --quiet --disable-pip-version-check --editable "$checkout[examples]"
fi
tinksched=$place/venv/bin/tinksched

if [ ! -e "$workspace/scheduler_config.yml" ]; then
    say "making the workspace $workspace"
    mkdir -p "$workspace"
    cp -R "$checkout/examples/digits/configs" "$checkout/examples/digits/train.py" \
        "$checkout/examples/digits/scheduler_config.yml" "$workspace/"
    # The virtual environment runs the tasks, too. Real GPUs are used if there are any.
    gpus=$(nvidia-smi -L 2>/dev/null | grep -c '^GPU ' || true)
    if [ "${gpus:-0}" -gt 0 ]; then
        sed -i.orig 's/^gpu_count:.*/gpu_count: auto/' "$workspace/scheduler_config.yml"
        [ "$gpus" -gt 1 ] || sed -i.orig '/mlp_two_gpus/,+1s/gpus: 2/gpus: 1/' "$workspace/scheduler_config.yml"
        rm -f "$workspace/scheduler_config.yml.orig"
    fi
    printf '\n# Written by quickstart.sh: the interpreter that runs the tasks.\npython_env: "%s"\n' "$place/venv" \
        >>"$workspace/scheduler_config.yml"
fi

cd "$workspace"
say "training ${workspace}/configs/*.yml; watch one live from another terminal: tmux attach"
status=0
"$tinksched" start --wait || status=$?
[ "$status" -le 1 ] || exit "$status"

# One config fails on purpose (a negative learning rate), so that you see what that looks like. Anything else that
# did not complete is a failure of this script.
"$tinksched" status --json >status.json
"$place/venv/bin/python" - <<'PYTHON'
import json
import pathlib
import sys

status = json.loads(pathlib.Path("status.json").read_text())
states = {task["name"]: task["state"] for task in status["tasks"]}
print("\n==> test accuracies, from the metrics files")
for path in sorted(pathlib.Path("out").glob("*_metrics.json")):
    metrics = json.loads(path.read_text())
    print(f"    {path.name.removesuffix('_metrics.json'):24} {metrics['test_accuracy']:.3f}")
wrong = {n: s for n, s in states.items() if s != ("failed" if n == "broken_learning_rate" else "completed")}
if wrong:
    sys.exit(f"quickstart: not as expected: {wrong}")
PYTHON

say 'done'
cat <<EOT
    logs      $workspace/logs/train_logs/TASK.log      (tinksched logs TASK)
    markers   $workspace/out/TASK_completed.txt
    metrics   $workspace/out/TASK_metrics.json
    sessions  tmux attach                              (the last screens of the runs are kept)

One of the configs, broken_learning_rate, failed on purpose: that is what a failure looks like. Go on with:

    export PATH="$place/venv/bin:\$PATH"
    cd $workspace
    tinksched status
    tinksched explain broken_learning_rate
EOT
