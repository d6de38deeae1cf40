"""The server's benchmark in its smallest form: that it runs, not how fast anything is."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from tests.bench import server
from tests.support import Lab

ROOT = Path(__file__).parents[2]


def test_it_prints_a_line_for_each_aim(lab: Lab) -> None:
    with tempfile.TemporaryDirectory(prefix="b-") as short:  # a socket's path has 107 bytes
        done = subprocess.run(
            [sys.executable, "-m", "tests.bench", "--server", "--quick", "--folder", short],
            cwd=ROOT, env=lab.environment, capture_output=True, text=True, timeout=110,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert not list(Path(short).iterdir()), "nothing is left behind"
    lines = [line for line in done.stdout.splitlines() if line.endswith(("| reached |", "| missed |"))]
    assert len(lines) == 15 and f"| all {server.QUICK.clients} | {server.QUICK.clients} | reached |" in done.stdout
    assert "| errors in 50 submissions, 100 a second | 0 | 0 | reached |" in lines
