"""GPUs shared by what is truly free on them, under the double of NVML: real schedulers, real leases, real processes."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.nvml_double import GIB, Gpu, NvmlDouble, Process
from tests.support import Bench, Lab


@pytest.fixture
def double(lab: Lab, tmp_path: Path) -> NvmlDouble:
    """A machine with one GPU of 80 GiB, which all commands of the laboratory see."""
    found = NvmlDouble(tmp_path)
    found.write(Gpu("GPU-a"))
    lab.environment.update(found.environment())
    return found


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    """A process of somebody who does not use tinksched."""
    process = subprocess.Popen(["sleep", "600"], env={})
    yield process
    process.kill()
    process.wait()


def reason(bench: Bench, task: str) -> tuple[str, str]:
    found = bench.tasks()[task]["reason"]
    return found["code"], found["text"]


def test_two_never_start_on_the_same_memory(lab: Lab, double: NvmlDouble) -> None:
    """Neither has allocated anything when the other one could start."""
    bench = lab.workspace(gpu_count="auto", max_jobs_per_gpu=4, min_free_memory="50GiB")
    gate = bench.gate()
    bench.add("a.yml", gate.config)
    bench.add("b.yml")
    bench.run("start")
    bench.wait_for_starts("a")
    code, text = reason(bench, "b")
    assert code == "needs_memory"
    assert text.startswith("needs 50 GiB free; GPU 0 has: 80 GiB free, of which 50 GiB are reserved for a (started ")
    assert "b" not in bench.starts()
    gate.open()
    bench.wait_for_states(a="completed", b="completed")


def test_reservations_count_across_schedulers(lab: Lab, double: NvmlDouble) -> None:
    one = lab.workspace("one", gpu_count="auto", max_jobs_per_gpu=4, min_free_memory="50GiB")
    gate = one.gate()
    one.add("a.yml", gate.config)
    one.run("start")
    one.wait_for_starts("a")
    two = lab.workspace("two", gpu_count="auto", max_jobs_per_gpu=4, min_free_memory="40GiB")
    two.reconfigure(tasks={"small": {"min_free_memory": "20GiB"}})
    two.add("big.yml")
    two.add("small.yml")
    two.run("start", "big,small")
    assert reason(two, "big")[0] == "needs_memory"
    gate.open()
    two.wait_for_states(big="completed", small="completed")


def test_after_its_warm_up_a_run_counts_by_what_it_holds(lab: Lab, double: NvmlDouble) -> None:
    """It reserved 50 GiB and took 10: when it is not young any more, the rest is free for others."""
    bench = lab.workspace(gpu_count="auto", max_jobs_per_gpu=4, min_free_memory="50GiB", warmup=3)
    gate = bench.gate()
    bench.add("a.yml", gate.config)
    bench.add("b.yml")
    bench.run("start")
    bench.wait_for_starts("a")
    double.write(Gpu("GPU-a", processes=(Process(bench.record()[0].pid, 10 * GIB),)))
    bench.wait_for_states(b="completed")
    assert bench.states()["a"] == "running"
    gate.open()
    bench.wait_for_states(a="completed")


def test_nothing_starts_beside_somebody_else(lab: Lab, double: NvmlDouble, stranger: subprocess.Popen[bytes]) -> None:
    double.write(Gpu("GPU-a", processes=(Process(stranger.pid, GIB),)))
    bench = lab.workspace(gpu_count="auto", tasks={"a.yml": ""})
    bench.run("start")
    code, text = reason(bench, "a")
    assert code == "other_process" and f"runs `sleep 600` on GPU 0 (pid {stranger.pid})" in text
    assert text in bench.run("explain", "a").out.replace("\n", " ")
    double.write(Gpu("GPU-a"))
    bench.wait_for_states(a="completed")  # no event tells of it: the scheduler looks again


def test_whom_the_settings_ignore_stops_nobody(lab: Lab, double: NvmlDouble, stranger: subprocess.Popen[bytes]) -> None:
    double.write(Gpu("GPU-a", processes=(Process(stranger.pid, GIB),)))
    bench = lab.workspace(gpu_count="auto", tasks={"a.yml": ""}, ignore_processes=["sleep"])
    bench.run("start")
    bench.wait_for_states(a="completed")


def test_a_run_is_no_stranger_to_the_next_one(lab: Lab, double: NvmlDouble) -> None:
    bench = lab.workspace(gpu_count="auto", max_jobs_per_gpu=2)
    gate = bench.gate()
    bench.add("a.yml", gate.config)
    bench.run("start")
    bench.wait_for_starts("a")
    double.write(Gpu("GPU-a", processes=(Process(bench.record()[0].pid, 10 * GIB),)))
    bench.add("b.yml")
    bench.run("start")
    bench.wait_for_states(b="completed")
    gate.open()
    bench.wait_for_states(a="completed")
