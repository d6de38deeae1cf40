#!/bin/sh
# For a machine with an NVIDIA GPU: what no double can show. Needs PyTorch, tmux and the package (pip install -e .).
#
#     sh tests/gpu/run.sh                    takes the first GPU
#     GPU=2 PYTHON=.venv/bin/python sh tests/gpu/run.sh
#
# Writes RESULTS.md beside this file. Exit code 0: all as it should be; 1: something is not; 3: there is no GPU here.
set -eu
cd "$(dirname "$0")/../.."
exec "${PYTHON:-python3}" -m tests.gpu
