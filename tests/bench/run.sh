#!/bin/sh
# Installs what the benchmarks need and runs them: sh tests/bench/run.sh [--help | ARGUMENTS]
#
#     PYTHON=python3.12 sh tests/bench/run.sh     with another interpreter
#
# The environment lies in .venv-bench of the checkout, one for each version of Python. A peer that can't be installed
# is left out, and the report names it.
set -eu
cd "$(dirname "$0")/../.."

PYTHON=${PYTHON:-python3}
version=$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
venv=.venv-bench/$version

missing=
command -v tmux >/dev/null || missing="$missing tmux"
command -v flock >/dev/null || missing="$missing util-linux"
command -v tsp >/dev/null || missing="$missing task-spooler"
command -v cc >/dev/null || command -v gcc >/dev/null || missing="$missing gcc libc6-dev"
if [ -n "$missing" ]; then
    if command -v apt-get >/dev/null; then
        as_root=
        [ "$(id -u)" = 0 ] || as_root=sudo
        # shellcheck disable=SC2086 # a list of packages
        { $as_root apt-get update -qq && $as_root env DEBIAN_FRONTEND=noninteractive \
            apt-get install -y -qq --no-install-recommends $missing; } >&2 || true
    else
        echo "tests/bench/run.sh: not found, and apt-get isn't here to install it:$missing" >&2
    fi
fi
for program in tmux flock; do
    command -v "$program" >/dev/null || { echo "tests/bench/run.sh: please install $program" >&2; exit 2; }
done

if [ ! -x "$venv/bin/python" ]; then
    "$PYTHON" -m venv "$venv"
fi
# Installed again whenever the project's description has changed. A peer that can't be installed stops nobody.
stamp=$venv/installed
install() {
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@" >&2
}
if [ ! -e "$stamp" ] || [ pyproject.toml -nt "$stamp" ]; then
    if ! install --editable '.[bench]'; then
        install --editable .
        for peer in matplotlib simple-gpu-scheduler runqd; do
            install "$peer" || echo "tests/bench/run.sh: $peer could not be installed and is left out" >&2
        done
    fi
    touch "$stamp"
fi

PATH=$PWD/$venv/bin:$PATH exec "$venv/bin/python" -m tests.bench "$@"
