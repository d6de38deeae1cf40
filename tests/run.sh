#!/bin/sh
# Installs what the tests need and runs them: sh tests/run.sh [PYTEST ARGUMENTS]
#
#     PYTHON=python3.12 sh tests/run.sh     with another interpreter
#     sh tests/run.sh -k leases -x          everything after the name goes to pytest; the other checks are left out
#
# The environment lies in .venv-tests of the checkout, one for each version of Python.
set -eu
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-python3}
version=$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
venv=.venv-tests/$version

# What must be there: tmux, flock (util-linux) and a C compiler for the double of NVIDIA's library.
missing=
command -v tmux >/dev/null || missing="$missing tmux"
command -v flock >/dev/null || missing="$missing util-linux"
command -v cc >/dev/null || command -v gcc >/dev/null || missing="$missing gcc libc6-dev"
# On Debian, cron as well: its line is tried with the real one.
! command -v apt-get >/dev/null || [ -x /usr/sbin/cron ] || missing="$missing cron"
# The shells whose completion is tried.
for shell in zsh fish; do
    ! command -v apt-get >/dev/null || command -v "$shell" >/dev/null || missing="$missing $shell"
done
# What the server's jobs are isolated by.
! command -v apt-get >/dev/null || command -v bwrap >/dev/null || missing="$missing bubblewrap"
# The proxy of the server's guide.
! command -v apt-get >/dev/null || command -v nginx >/dev/null || [ -x /usr/sbin/nginx ] || missing="$missing nginx-light"
# The browser that opens the dashboard.
! command -v apt-get >/dev/null || command -v chromium >/dev/null || missing="$missing chromium"
# And a FUSE file system that can call itself a network's.
! command -v apt-get >/dev/null || [ ! -e /dev/fuse ] || command -v bindfs >/dev/null || missing="$missing bindfs"
if [ -n "$missing" ]; then
    if command -v apt-get >/dev/null; then
        as_root=
        [ "$(id -u)" = 0 ] || as_root=sudo
        $as_root apt-get update -qq
        # shellcheck disable=SC2086 # a list of packages
        $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing
    else
        echo "tests/run.sh: please install:$missing" >&2
        exit 2
    fi
fi

if [ ! -x "$venv/bin/python" ]; then
    "$PYTHON" -m venv "$venv"
fi
# Installed again whenever the project's description has changed.
stamp=$venv/installed
if [ ! -e "$stamp" ] || [ pyproject.toml -nt "$stamp" ]; then
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --upgrade pip
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --editable '.[test]'
    touch "$stamp"
fi

if [ $# -gt 0 ]; then
    exec "$venv/bin/python" -m pytest "$@"
fi
"$venv/bin/python" -m ruff check .
"$venv/bin/python" -m ruff format --check .
"$venv/bin/python" -m mypy
"$venv/bin/python" -m pytest -n "${TEST_WORKERS:-4}" --dist worksteal
