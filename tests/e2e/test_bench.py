"""The benchmarks in their smallest form: that they run, not how fast anything is."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench.place import marked
from tests.e2e.test_readme import BENCHMARKS, ROOT
from tests.support import Lab

SMALLEST = ["--quick", "--tasks", "8", "--seconds", "0.05", "--systems", "tinksched"]
IGNORED = shutil.ignore_patterns(".git", ".venv*", ".quickstart", "__pycache__", ".*_cache", ".hypothesis", "out")


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder with a short name: a socket's path has 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="b-") as folder:
        yield Path(folder)


@pytest.fixture
def checkout(lab: Lab) -> Path:
    """A copy of the checkout, in which everything counts as installed."""
    checkout = lab.folder / "checkout"
    shutil.copytree(ROOT, checkout, ignore=IGNORED)
    programs = checkout / ".venv-bench" / "{}.{}".format(*sys.version_info[:2]) / "bin"
    programs.mkdir(parents=True)
    for name, line in (("python", f'exec "{sys.executable}" "$@"'), ("apt-get", "exit 1")):
        (programs / name).write_text(f"#!/bin/sh\n{line}\n")
        (programs / name).chmod(0o755)
    (programs.parent / "installed").touch()
    lab.environment |= {"PATH": f"{programs}:{lab.environment['PATH']}", "PYTHON": sys.executable}
    return checkout


def start(checkout: Path, lab: Lab, *arguments: str | Path) -> subprocess.Popen[str]:
    """The command of the README, with arguments."""
    return subprocess.Popen(
        [*BENCHMARKS.split(), *arguments], cwd=checkout, env=lab.environment, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def test_the_benchmarks_print_a_table_of_figures(checkout: Path, lab: Lab, short: Path) -> None:
    arguments = (*SMALLEST, "--folder", short, "--record", "--only", "handover", "scale", "cold")
    with start(checkout, lab, *arguments) as bench:
        out, err = bench.communicate(timeout=110)
    assert bench.returncode == 0, err
    figure = r"\d[\d,.]*"
    for row, samples in (("bare tmux: the client's call", 50), ("tinksched", 4), ("tinksched, executor: local", 4)):
        line = rf"\| {row} \| {figure} \| {figure} – {figure} \| {figure} – {figure} \| {samples} \| {figure} \|"
        assert re.search(line, out), out
    assert re.search(rf"\| 100 queued, 1,000 finished \| {figure} ", out), out
    assert re.search(rf"\| tinksched status \| {figure} ", out), out
    assert (checkout / "tests" / "bench" / "RESULTS.md").read_text().strip() == out.strip()
    assert (checkout / "tests" / "bench" / "out" / "results.json").exists()
    assert not list(short.iterdir())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_benchmark_leaves_nothing(checkout: Path, lab: Lab, short: Path, number: int) -> None:
    arguments = ("--seconds", "100", "--systems", "tinksched", "--folder", short, "--only", "handover")
    with start(checkout, lab, *arguments) as bench:
        assert bench.stderr is not None
        while "round 1 of 3" not in (line := bench.stderr.readline()):
            assert line, "it ended"
        (folder,) = short.iterdir()
        os.killpg(bench.pid, number)
        _, err = bench.communicate(timeout=60)
    assert bench.returncode != 0
    assert "Traceback" not in err
    assert not list(short.iterdir())
    assert not marked(folder.name)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--rounds", "0"], "1 or more"),
        (["--only", "everything"], "invalid choice"),
        (["--systems", "slurm"], "invalid choice"),
        (["--folder", "/nowhere/at/all"], "No such file"),
        (["--report", "/nowhere/results.json"], "No such file"),
        (["--report", "/dev/null"], "no results"),
    ],
)
def test_bad_arguments_get_one_clear_message(checkout: Path, lab: Lab, arguments: list[str], said: str) -> None:
    with start(checkout, lab, *arguments) as bench:
        out, err = bench.communicate(timeout=60)
    assert bench.returncode in (1, 2)
    assert said in err
    assert "Traceback" not in err + out
