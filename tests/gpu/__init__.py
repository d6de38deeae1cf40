"""Checks for a machine with an NVIDIA GPU; `run.sh` says how."""
