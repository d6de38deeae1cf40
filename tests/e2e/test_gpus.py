"""GPUs: NVML's truth through the double, slots, several GPUs, and other workspaces of the host."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.nvml_double import Gpu, NvmlDouble
from tests.support import Lab


@pytest.fixture
def four_gpus(lab: Lab, tmp_path: Path) -> NvmlDouble:
    """A machine with four GPUs, for everything that the laboratory starts from now on."""
    double = NvmlDouble(tmp_path)
    double.write(*[Gpu(f"GPU-{number:08d}-aaaa-bbbb-cccc-000000000000", name="Test GPU") for number in range(4)])
    lab.environment.update(double.environment())
    return double


def test_auto_is_what_nvml_counts(lab: Lab, four_gpus: NvmlDouble) -> None:
    bench = lab.workspace(gpu_count="auto", max_jobs_per_gpu=1, tasks={f"e{n}.yml": "" for n in range(8)})
    status = bench.status()
    assert [gpu["name"] for gpu in status["gpus"]] == ["Test GPU"] * 4
    assert status["gpu_note"] is None
    bench.run("start", "--wait")
    assert {line.gpus for line in bench.record()} <= {"0", "1", "2", "3"}


def test_use_gpus_by_index_and_uuid_in_order_of_preference(lab: Lab, four_gpus: NvmlDouble) -> None:
    bench = lab.workspace(gpu_count="auto", use_gpus=[3, "GPU-00000001"], max_jobs_per_gpu=1)
    gate = bench.gate()
    for name in ("a", "b", "c"):
        bench.add(f"{name}.yml", gate.config)
    bench.run("start")
    bench.wait_for_starts("a", "b")
    tasks = bench.tasks()
    assert (tasks["a"]["gpus"], tasks["b"]["gpus"], tasks["c"]["state"]) == ([3], [1], "queued")
    gate.open()


def test_more_than_there_are_is_refused_naming_what_exists(lab: Lab, four_gpus: NvmlDouble) -> None:
    bench = lab.workspace(gpu_count=5, tasks={"a.yml": ""})
    assert "4" in bench.run("start", code=2).err
    bench.reconfigure(gpu_count="auto", use_gpus=[7])
    assert "GPU 7 does not exist here" in bench.run("start", code=2).err
    bench.run("status")


def test_the_allowed_set_is_respected(lab: Lab, four_gpus: NvmlDouble) -> None:
    bench = lab.workspace(gpu_count="auto", max_jobs_per_gpu=1, tasks={f"e{n}.yml": "" for n in range(6)})
    bench.run("start", "--wait", CUDA_VISIBLE_DEVICES="2,3")
    assert {line.gpus for line in bench.record()} == {"2", "3"}


def test_no_driver_is_fine_and_said(lab: Lab) -> None:
    bench = lab.workspace(gpu_count="auto", tasks={"a.yml": ""})
    answer = bench.run("start", "--wait")
    assert "no NVIDIA driver: slots only" in answer.out
    assert bench.status()["gpu_note"] == "no NVIDIA driver: slots only"


def test_a_task_of_two_gpus_gets_two_and_one_that_wants_to_be_alone_is(lab: Lab) -> None:
    bench = lab.workspace(
        tasks={f"e{n}.yml": "seconds: 0.1" for n in range(6)} | {"wide.yml": "", "alone.yml": "seconds: 0.1"},
    )
    bench.reconfigure(tasks={"wide": {"gpus": 2, "priority": 1}, "alone": {"exclusive": True}})
    bench.run("start", "--wait")
    tasks = bench.tasks()
    assert tasks["wide"]["gpus"] == [0, 1] and tasks["wide"]["session"] == "T_wide_gpu0-1"
    record = bench.record()
    (alone,) = [line for line in record if line.what == "start" and line.task == "alone"]
    (ended,) = [line for line in record if line.what == "end" and line.task == "alone"]
    others = [line for line in record if line.gpus == alone.gpus and line.task != "alone"]
    assert not [line for line in others if alone.at < line.at < ended.at]


def test_pins_and_what_explain_says_of_them(lab: Lab) -> None:
    bench = lab.workspace(max_jobs_per_gpu=1)
    gate = bench.gate()
    for name in ("a", "b", "c"):
        bench.add(f"{name}.yml", gate.config)
    bench.run("start", "c.yml,a.yml,b.yml", "1,1")
    bench.wait_for_starts("c", "b")
    tasks = bench.tasks()
    assert (tasks["c"]["gpus"], tasks["b"]["gpus"]) == ([1], [0])
    assert tasks["a"]["reason"]["code"] == "pinned_gpu_full"
    text = bench.run("explain", "a").out
    assert "pinned to GPU 1" in text and "GPU 1: c (this workspace)" in text
    gate.open()
    bench.wait_for_states(a="completed")
    assert bench.tasks()["a"]["gpus"] == [1]


def test_two_workspaces_never_put_more_on_a_gpu_than_each_allows_and_wake_each_other(lab: Lab) -> None:
    one = lab.workspace("one", gpu_count=1, max_jobs_per_gpu=1, check_interval=600)
    two = lab.workspace("two", gpu_count=1, max_jobs_per_gpu=1, check_interval=600)
    gate = one.gate()
    one.add("a.yml", gate.config)
    two.add("b.yml", "")
    one.run("start")
    one.wait_for_starts("a")
    two.run("start")
    waits = two.tasks()["b"]
    assert waits["state"] == "queued"
    assert "a of" in waits["reason"]["text"] and str(one.folder) in waits["reason"]["text"]
    assert "one by" in two.run("explain", "b").out
    gate.open()
    two.wait_for_states(b="completed", seconds=30)  # far below check_interval: the lease's end woke it
    record = two.record()
    (end_of_a,) = [line.at for line in record if line.what == "end" and line.task == "a"]
    (start_of_b,) = [line.at for line in record if line.what == "start" and line.task == "b"]
    assert start_of_b > end_of_a
