"""A PyTorch task: takes the memory that its config says, works with it, and keeps it until the test opens a gate."""

from __future__ import annotations

import fcntl
import sys
from pathlib import Path

import torch

config = dict(line.split(": ") for line in Path(sys.argv[2]).read_text().splitlines())
held = torch.ones(int(config["bytes"]), dtype=torch.uint8, device="cuda")
print(f"holds {int(held[:: 2**20].sum())} MiB of {torch.cuda.get_device_name()}", flush=True)
Path(config["ready"]).touch()
with open(config["gate"]) as gate:  # noqa: PTH123
    fcntl.flock(gate, fcntl.LOCK_SH)
