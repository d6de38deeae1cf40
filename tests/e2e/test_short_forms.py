"""Short forms: of the program, of commands and options, and what a command means if nothing is named."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import Bench, Lab


@pytest.fixture
def waiting(lab: Lab) -> Bench:
    """One slot, held by `first`; `a`, `b` and `c` wait."""
    bench = lab.workspace(gpu_count=1, max_jobs_per_gpu=1)
    bench.add("first.yml", bench.gate().config)
    bench.run("start")
    bench.wait_for_starts("first")
    for name in "abc":
        bench.run("r", "-n", name, "echo", name)
    yield bench  # type: ignore[misc]
    bench.run("kill-all")


def test_the_short_program_is_the_same(lab: Lab) -> None:
    short = Path(sys.executable).with_name("tk")
    done = subprocess.run([short, "--version"], env=lab.environment, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("tinksched ")


def test_letters_stand_for_commands(waiting: Bench) -> None:
    bench = waiting
    assert "f logs -f" in bench.run("--help").out and "r run, w wait" in bench.run("--help").out
    assert "tinksched wait" in bench.run("help", "w").out
    assert bench.run("h", "a", "b").out == "held: a, b\n"
    assert bench.run("u", "a").out == "released: a\n"
    assert bench.run("p", "a", "3").out == "priority 3: a\n"
    assert bench.run("c", "b").out == "cancelled: b\n"
    assert bench.run("g", "-j").out.startswith("{")
    assert bench.run("complete-words", "c", "fir").out == "first\n"
    assert "--follow" in bench.run("complete-words", "f", "--").out


def test_nothing_that_ends_everything_has_a_letter(waiting: Bench) -> None:
    for letter in "kqxd":
        assert "there is no command" in waiting.run(letter, code=2).err


def test_without_a_name_the_newest_is_meant(waiting: Bench) -> None:
    bench = waiting
    assert bench.run("e").out.startswith("c: queued")
    assert bench.run("s").out.startswith("c: queued")
    assert "c has not run yet" in bench.run("l", code=3).err
    bench.run("c", "-a")
    bench.run("r", "-w", "-n", "d", "echo", "hello")
    assert bench.run("l").out == "hello\n" and bench.run("f").out == "hello\n"
    assert bench.run("e").out.startswith("d: completed\n  It completed.")


def test_short_options(waiting: Bench) -> None:
    bench = waiting
    assert "needs 1 GiB free" in bench.run("r", "-m1GiB", "true", code=2).err
    assert bench.run("r", "-n", "d", "-a", "a", "-a", "b", "true").out == "queued d (number 5)\n"
    assert "a, b" in bench.run("e").out
    assert "needs 9 GPUs" in bench.run("r", "-g9", "true", code=2).err
    assert bench.run("status", "-j").out.startswith("{") and bench.run("status", "-a").out.startswith("T  ")
    assert bench.run("c", "-a").out.startswith("cancelled: ")
    assert "no task has failed" in bench.run("retry", "-f", code=3).err
    assert bench.run("clean", "-y").out.startswith("removed 5 records")


def test_a_word_alone_goes_first(waiting: Bench) -> None:
    bench = waiting
    for _ in range(2):  # it is first already
        assert bench.run("priority", "c").out == "first, with priority 1: c\n"
    assert bench.run("priority", "[ab]").out == "first, with priority 2: a, b\n"
    assert {name: bench.tasks()[name]["priority"] for name in "abc"} == {"a": 2, "b": 2, "c": 1}
    assert "did you mean" in bench.run("priority", "firts", code=3).err
    assert "must be the priority" in bench.run("priority", "a", "high", code=2).err


def test_a_sweep_that_starts_does_not_advise_to_start(lab: Lab) -> None:
    bench = lab.workspace(tasks={"_t.yml": "seed: 1\n"})
    assert "tinksched start queues" in bench.run("sweep", "_t.yml", "seed=1,2").err
    assert "tinksched start queues" not in bench.run("sweep", "_t.yml", "seed=3,4", "--start").err
    bench.run("wait", "*")
