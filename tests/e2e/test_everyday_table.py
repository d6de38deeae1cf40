"""The script that performs everyday jobs with several tools, with those that are small."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from tests.bench.place import marked
from tests.support import Lab

ROOT = Path(__file__).parents[2]


def test_the_jobs_are_performed_and_nothing_is_left(lab: Lab) -> None:
    folder = Path("/tmp") / f"t-{lab.id}"  # a socket's path has 107 bytes
    folder.mkdir()
    command = [sys.executable, "-m", "tests.everyday", "--tools", "tinksched", "task-spooler", "pueue",
               "--folder", folder, "--jobs", "Cancel the newest", "mistyped", "kill -9"]  # fmt: skip
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=lab.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=110,
        )
        assert done.returncode == 0, done.stderr
        assert not list(folder.iterdir())
    finally:
        shutil.rmtree(folder)
    assert "<code>tk c @</code><br>**7**, exit code 0: cancelled: sleep" in done.stdout
    assert "did you mean status" in done.stdout and "second completed" in done.stdout
    assert "- pueue: left out: not run here" in done.stdout
    has_it = shutil.which("tsp") is not None
    assert ("- task-spooler: left out: tsp not found" in done.stdout) is not has_it
    assert not [pid for pid in marked("tinkbench-") if str(folder) in Path(f"/proc/{pid}/environ").read_text()]


def test_a_tool_that_is_not_known_is_named(lab: Lab) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.everyday", "--tools", "make"], cwd=ROOT, env=lab.environment, text=True,
        capture_output=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2 and "invalid choice: 'make'" in done.stderr and "Traceback" not in done.stderr
