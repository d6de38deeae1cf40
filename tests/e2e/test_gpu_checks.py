"""The checks for a real GPU say clearly where there is none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "tests" / "gpu" / "RESULTS.md"


@pytest.mark.skipif(Path("/proc/driver/nvidia").exists(), reason="there is a driver here: tests/gpu/run.sh uses it")
def test_without_a_gpu_nothing_is_checked_and_that_is_said() -> None:
    before = RESULTS.read_text()
    done = subprocess.run(
        ["sh", ROOT / "tests" / "gpu" / "run.sh"], env={**os.environ, "PYTHON": sys.executable}, capture_output=True,
        text=True, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (3, "")
    assert "there is no NVIDIA GPU here" in done.stderr
    assert RESULTS.read_text() == before
