#!/bin/sh
# Performs the everyday jobs with each tool that is here, and writes tests/everyday/RESULTS.md:
#
#     sh tests/everyday/run.sh                        (about five minutes)
#     sh tests/everyday/run.sh --tools tinksched --jobs queue    prints it
#
# task-spooler and Slurm are used where they are installed (apt install task-spooler slurm-wlm munge); Slurm's daemons
# want root. gflow comes from PyPI. What isn't there is left out, and the page says so.
set -eu
cd "$(dirname "$0")/../.."

PYTHON=${PYTHON:-python3}
version=$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
venv=.venv-everyday/$version
for program in tmux cc; do
    command -v "$program" >/dev/null || { echo "tests/everyday/run.sh: please install $program" >&2; exit 2; }
done
if [ ! -x "$venv/bin/python" ]; then
    "$PYTHON" -m venv "$venv"
fi
stamp=$venv/installed
if [ ! -e "$stamp" ] || [ pyproject.toml -nt "$stamp" ]; then
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --editable . >&2
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check 'runqd>=0.4.18' >&2 ||
        echo "tests/everyday/run.sh: gflow (runqd) could not be installed and is left out" >&2
    touch "$stamp"
fi
[ $# -gt 0 ] || set -- --output tests/everyday/RESULTS.md
PATH=$PWD/$venv/bin:$PATH exec "$venv/bin/python" -m tests.everyday "$@"
