"""Rounds over real processes and logs: what they use is on record, and a stall is told once."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.unit.test_watching import RUN
from tinksched.core.gpu import GpuProcess, GpuState
from tinksched.core.model import Run
from tinksched.core.usage import Usage
from tinksched.host import processes
from tinksched.host.consumption import consumption
from tinksched.host.gpus import Inventory
from tinksched.host.nvml import Sample
from tinksched.host.processes import RUN_ID_VARIABLE
from tinksched.scheduler.sampling import Sampler

HOLDS = 64 * 2**20
PROGRAM = f"""
import sys, time
held = bytearray({HOLDS})
until = time.process_time() + float(sys.argv[1])
while time.process_time() < until:
    pass
print("ready", flush=True)
sys.stdin.read()
"""


class Journal(list[str]):
    """What was said."""

    def say(self, text: str) -> None:
        self.append(text)


class Kept:
    """A store that keeps what is recorded in it."""

    def __init__(self) -> None:
        self.usages: dict[str, Any] = {}
        self.notes: list[Any] = []

    def transaction(self, *_: object, **__: object) -> Any:
        return self

    def __enter__(self) -> Any:
        return SimpleNamespace(record_usage=self.usages.update, note=lambda *note: self.notes.append(note))

    def __exit__(self, *_: object) -> None:
        pass


@pytest.fixture
def program() -> Iterator[subprocess.Popen[str]]:
    """A process of the run, which has used 0.2 s of processor time and waits."""
    child = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "0.2"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, RUN_ID_VARIABLE: RUN.id},
    )  # fmt: skip
    with child:
        assert child.stdout is not None and child.stdout.readline() == "ready\n"
        yield child


def a_run(tmp_path: Path, *, written: float) -> Run:
    log = tmp_path / "log"
    log.touch()
    os.utime(log, (written, written))
    return replace(RUN, log=str(log), created_at=time.time() - 1000)


def sample(states: dict[str, GpuState]) -> Sample:
    return Sample(time.time(), Inventory((), driver=True, problem=None), states)


def settings(stall_after: float | None = None) -> Any:
    return SimpleNamespace(stall_after=stall_after)


def test_processor_time_and_memory_of_a_process(program: subprocess.Popen[str]) -> None:
    found = processes.identify(program.pid)
    assert found is not None
    used = consumption([found])
    assert used is not None and used.memory >= HOLDS and 0.15 <= used.cpu_seconds <= 5
    gone = replace(found, started=found.started + 1)
    assert consumption([gone]) is None and consumption([gone, found, found]).cpu_seconds >= 0.3  # type: ignore[union-attr]


def test_a_round_puts_on_record_what_the_processes_of_a_run_use(tmp_path: Path, program: subprocess.Popen[str]) -> None:
    kept, journal = Kept(), Journal()
    sampler = Sampler(kept, journal)  # type: ignore[arg-type]
    run = a_run(tmp_path, written=time.time())
    asyncio.run(sampler.look({run.id: run}, settings()))
    usage = kept.usages[run.id]
    assert usage.memory >= HOLDS and usage.cpu_seconds >= 0.15 and usage.gpu_memory is None and usage.flags == ()
    assert sampler.usage_of(run.id) == usage and not journal


def test_what_nvml_says_between_the_rounds_counts_and_the_end_keeps_it(tmp_path: Path) -> None:
    kept, journal = Kept(), Journal()
    sampler = Sampler(kept, journal)  # type: ignore[arg-type]
    run = a_run(tmp_path, written=time.time())
    for memory in (5, 9, 3):
        states = {
            name: GpuState(name, index, 0.0, processes=(GpuProcess(7, memory, run=run.id),))
            for index, name in enumerate(run.devices)
        }
        sampler.see([run], sample(states), settings())
    sampler.record([run.id])
    assert (kept.usages[run.id].gpu_memory, kept.usages[run.id].gpu_memory_peak) == (3, 9)
    sampler.forget(run.id)
    assert sampler.usage_of(run.id) is None


def test_a_run_that_is_silent_and_idle_is_stalled_until_it_prints(
    tmp_path: Path, program: subprocess.Popen[str]
) -> None:
    kept, journal = Kept(), Journal()
    sampler = Sampler(kept, journal)  # type: ignore[arg-type]
    run = a_run(tmp_path, written=time.time() - 500)
    states = {
        name: GpuState(name, index, 0.0, processes=(GpuProcess(7, 1, run=run.id),), utilization=0)
        for index, name in enumerate(run.devices)
    }
    sampler.see([run], sample(states), settings(0.001))
    for _ in range(2):
        asyncio.run(sampler.look({run.id: run}, settings(0.001)))
    assert sampler.is_stalled(run.id) and len(journal) == 1 and "exp1: stalled since " in journal[0]
    log = run.log
    assert log is not None
    os.utime(log, (time.time() + 60, time.time() + 60))
    asyncio.run(sampler.look({run.id: run}, settings(0.001)))
    assert not sampler.is_stalled(run.id), "it has printed something"
    busy = {name: replace(state, utilization=99) for name, state in states.items()}
    os.utime(log, (time.time() - 500, time.time() - 500))
    sampler.see([run], sample(busy), settings(0.001))
    asyncio.run(sampler.look({run.id: run}, settings(0.001)))
    assert not sampler.is_stalled(run.id), "its GPU works"


def test_a_run_that_ends_during_a_round_keeps_what_was_known_of_it(tmp_path: Path) -> None:
    kept = Kept()
    sampler = Sampler(kept, Journal())  # type: ignore[arg-type]
    run = a_run(tmp_path, written=time.time())
    known = {run.id: run}

    async def round_and_end() -> None:
        looking = asyncio.create_task(sampler.look(known, settings()))
        await asyncio.sleep(0)  # it looks at the processes now
        known.clear()
        sampler.forget(run.id)
        await looking

    asyncio.run(round_and_end())
    assert kept.usages == {} and sampler.usage_of(run.id) is None


def test_what_was_odd_to_an_earlier_scheduler_is_judged_anew(tmp_path: Path) -> None:
    before = Usage(gpu_memory_peak=9, flags=("stalled since then: no output",))
    store = SimpleNamespace(usage_of=lambda _: {RUN.id: before})
    sampler = Sampler(store, Journal())  # type: ignore[arg-type]
    sampler.adopt([RUN.id])
    assert not sampler.is_stalled(RUN.id) and sampler.were_stalled == {RUN.id}
    usage = sampler.usage_of(RUN.id)
    assert usage is not None and usage.gpu_memory_peak == 9


def test_a_sample_counts_once_and_each_flag_is_noted_once(tmp_path: Path) -> None:
    kept = Kept()
    sampler = Sampler(kept, Journal())  # type: ignore[arg-type]
    run = a_run(tmp_path, written=time.time())
    states = {"GPU-x": GpuState("GPU-x", 7, 0.0, processes=(GpuProcess(7, 1, run=run.id),), utilization=50)}
    states |= {name: GpuState(name, index, 0.0, utilization=50) for index, name in enumerate(run.devices)}
    seen = sample(states)
    for _ in range(3):
        sampler.see([run], seen, settings())
        asyncio.run(sampler.look({run.id: run}, settings()))
    assert kept.usages[run.id].gpu_samples == 1 and kept.usages[run.id].samples == 4
    assert kept.notes == [(run, "Flagged", "it is on GPU 7, which it was not given")]
