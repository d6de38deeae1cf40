"""A driver that fails, hangs or says too late what has changed, while tasks wait: nothing starts on what was once true,
and what needs no GPU waits for nobody.
"""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from tests.nvml_double import GIB, Failure, Gpu, NvmlDouble, Process
from tests.support import Bench, Lab
from tinksched.host.owners import Owners
from tinksched.scheduler.devices import STALE_SECONDS

A, B = (f"GPU-{letter * 8}-0000" for letter in "ab")
UNKNOWN_ERROR = 999
needs_host_pids = pytest.mark.skipif(
    Owners().look([1]) is None, reason="in a container without the host's pids nobody can tell processes apart"
)


@pytest.fixture
def double(lab: Lab, tmp_path: Path) -> NvmlDouble:
    double = NvmlDouble(tmp_path)
    lab.environment.update(double.environment())
    return double


def journal(bench: Bench) -> str:
    return (bench.folder / "logs" / "T_scheduler.log").read_text()


def let_a_tick_pass(bench: Bench, name: str) -> None:
    """When this task, which needs no GPU, has completed, the scheduler has decided about everything."""
    bench.add(f"{name}.yml")
    bench.run("start")
    bench.wait_for_states(**{name: "completed"})


@needs_host_pids
def test_a_stranger_who_came_while_nothing_happened_is_seen_before_the_next_start(lab: Lab, double: NvmlDouble) -> None:
    double.write(Gpu(A))
    bench = lab.workspace(gpu_count="auto", max_jobs_per_gpu=4, check_interval=30)
    bench.reconfigure(tasks={"cpu_*": {"gpus": 0}})
    gate = bench.gate()
    bench.add("one.yml", gate.config)
    bench.run("start")
    bench.wait_for_starts("one")
    with subprocess.Popen(["sleep", "600"]) as stranger:
        double.hold(stranger.pid, 70 * GIB)
        time.sleep(STALE_SECONDS + 0.5)  # so old is the sample that does not know of it
        bench.add("two.yml")
        let_a_tick_pass(bench, "cpu_1")
        task = bench.tasks()["two"]
        assert (task["state"], task["reason"]["code"], bench.starts().get("two")) == ("queued", "other_process", None)
        stranger.kill()
    (double.processes / str(stranger.pid)).unlink()
    bench.wait_for_states(two="completed")
    gate.open()


@needs_host_pids
def test_a_slot_is_free_when_the_driver_says_that_its_run_has_left_the_gpu(lab: Lab, double: NvmlDouble) -> None:
    double.write(Gpu(A))
    bench = lab.workspace(gpu_count="auto", max_jobs_per_gpu=1, check_interval=30)
    bench.reconfigure(tasks={"cpu_*": {"gpus": 0}})
    gate = bench.gate()
    bench.add("one.yml", gate.config)
    bench.add("two.yml")
    bench.run("start")
    bench.wait_for_starts("one")
    double.write(Gpu(A, processes=(Process(bench.record()[0].pid, 10 * GIB),)))  # listed whether it lives or not
    bench.wait_until(lambda: (bench.tasks()["one"]["usage"] or {}).get("gpu_memory_peak"), "a look at the GPU")
    gate.open()
    bench.wait_for_states(one="completed")
    let_a_tick_pass(bench, "cpu_1")
    task = bench.tasks()["two"]
    assert task["state"] == "queued" and "of a run that has ended" in task["reason"]["text"]
    double.write(Gpu(A))
    bench.wait_for_states(two="completed")


def test_gpus_that_fail_at_the_beginning_are_used_when_they_answer(lab: Lab, double: NvmlDouble) -> None:
    double.write(Gpu(A))
    bench = lab.workspace(gpu_count="auto", executor="local", check_interval=0.2)
    bench.reconfigure(tasks={"cpu_*": {"gpus": 0}})
    first = bench.gate("first")
    bench.add("one.yml", first.config)
    bench.add("two.yml", "seconds: 0\n")
    bench.reconfigure(max_jobs_per_gpu=1)
    bench.run("start")
    bench.wait_for_starts("one")
    bench.run("stop")
    bench.wait_for_scheduler_end()
    double.write(Gpu(A), failures=[Failure("nvmlInitWithFlags", UNKNOWN_ERROR)])
    bench.add("cpu_1.yml")
    bench.run("start", "cpu_1")
    bench.wait_for_states(cpu_1="completed")
    first.open()
    bench.wait_for_states(one="completed")
    status = bench.status()
    (two,) = (task for task in status["tasks"] if task["name"] == "two")
    assert (two["state"], two["reason"]["code"]) == ("queued", "no_gpu_seen")
    assert two["reason"]["text"] == f"waits until the GPUs can be seen: {status['gpu_note']}"
    assert "NVML fails (Unknown Error)" in status["gpu_note"]
    assert status["scheduler"]["running"], "it lives while NVML's failure is why a task can't start"
    double.write(Gpu(A))
    bench.wait_for_states(two="completed")
    bench.wait_for_scheduler_end()
    assert "GPU 0 can be used from now on" in journal(bench)


def test_what_needs_no_gpu_hardly_waits_for_a_driver_that_hangs(lab: Lab, double: NvmlDouble) -> None:
    double.write(Gpu(A), hanging=["nvmlInitWithFlags"])
    bench = lab.workspace(gpu_count="auto", check_interval=0.2)
    bench.reconfigure(tasks={"cpu_*": {"gpus": 0}})
    gate = bench.gate()
    bench.add("cpu_1.yml", gate.config)
    began = time.monotonic()
    bench.run("start")
    bench.wait_for_starts("cpu_1")
    assert time.monotonic() - began < 20
    began = time.monotonic()
    shown = bench.status()
    assert time.monotonic() - began < 7
    assert "NVML has not answered" in shown["gpu_note"]
    double.write(Gpu(A))
    bench.add("two.yml")
    bench.run("start")
    bench.wait_for_states(two="completed")
    gate.open()


def test_a_gpu_that_forgets_its_name_keeps_it_and_is_lost_meanwhile(lab: Lab, double: NvmlDouble) -> None:
    """A second name for it in the lease folder would let two schedulers give out the same slot."""
    gpus = Gpu(A), Gpu(B)
    double.write(*gpus)
    bench = lab.workspace(gpu_count=2, max_jobs_per_gpu=1, check_interval=0.2)
    bench.reconfigure(tasks={"cpu_*": {"gpus": 0}})
    first, second = bench.gate("first"), bench.gate("second")
    bench.add("one.yml", first.config)
    bench.add("two.yml", second.config)
    bench.run("start")
    bench.wait_for_starts("one", "two")
    double.write(*gpus, failures=[Failure("nvmlDeviceGetUUID", UNKNOWN_ERROR, index=1)])
    bench.wait_until(lambda: "GPU 1 is lost" in journal(bench), "what the scheduler says")
    bench.reconfigure(stop_grace=5)
    bench.wait_until(lambda: "is used from now on" in journal(bench), "what the scheduler says")
    shown = bench.status()["gpus"]
    assert [(gpu["device"], gpu["state"]["lost"]) for gpu in shown] == [(A, False), (B, True)]
    double.write(*gpus)
    bench.wait_until(lambda: "GPU 1 is back" in journal(bench), "what the scheduler says")
    second.open()
    gate = bench.gate()
    bench.add("three.yml", gate.config)
    bench.run("start")
    bench.wait_for_starts("three")
    leases = {path.name.rpartition(".")[0] for path in lab.leases.iterdir() if not path.name.startswith(".")}
    assert {A, B} <= leases and not [name for name in leases if name.startswith("index-")]
    first.open()
    gate.open()
