"""Tasks that need no GPU: they run beside the others, on slots of their own, also where there is no GPU."""

from __future__ import annotations

import json
import os
from pathlib import Path

from tests.nvml_double import Failure, Gpu, NvmlDouble
from tests.support import Lab

UNKNOWN_ERROR = 999


def test_they_run_beside_the_others_and_see_no_gpu(lab: Lab) -> None:
    bench = lab.workspace(gpu_count=1, max_jobs_per_gpu=1, cpu_slots=2)
    gate = bench.gate()
    bench.reconfigure(tasks={"prep_*": {"gpus": 0}})
    for name in ("a", "b", "prep_1", "prep_2", "prep_3"):
        bench.add(f"{name}.yml", gate.config)
    bench.run("start")
    bench.wait_for_starts("a", "prep_1", "prep_2")
    assert {"T_a_gpu0", "T_prep_1_cpu", "T_prep_2_cpu"} <= set(lab.sessions())
    tasks = bench.tasks()
    assert tasks["prep_1"]["gpus"] == [] and tasks["prep_1"]["state"] == "running"
    assert tasks["prep_3"]["reason"]["code"] == "cpu_full" and tasks["b"]["reason"]["code"] == "gpus_full"
    assert tasks["prep_3"]["reason"]["text"] == "all CPU slots are taken (2 of 2)"
    shown = bench.run("status").out
    assert any("prep_1" in line and " cpu " in line for line in shown.splitlines())
    assert "running on the CPU, attempt 1" in bench.run("explain", "prep_1").out
    assert "prep_1" in bench.run("gpus").out
    gate.open()
    bench.wait_for_states(a="completed", b="completed", prep_1="completed", prep_2="completed", prep_3="completed")
    gpus = {line.task: line.gpus for line in bench.record() if line.what == "start"}
    assert gpus == {"a": "0", "b": "0", "prep_1": "", "prep_2": "", "prep_3": ""}
    assert "CPU of" in bench.run("show", "prep_1").out
    assert not [name for name in lab.leases.iterdir() if name.name.startswith("cpu.") and "admission" not in name.name]


def test_the_slots_of_one_keep_nobody_else_from_starting(lab: Lab) -> None:
    """They are for the own runs; all together may have no more than the machine has cores."""
    one = lab.workspace("one", cpu_slots=1)
    gate = one.gate()
    one.add("a.yml", gate.config)
    one.add("b.yml")
    one.reconfigure(tasks={"*": {"gpus": 0}})
    many = os.cpu_count() or 1
    two = lab.workspace("two", cpu_slots=many)
    two.reconfigure(tasks={"*": {"gpus": 0}})
    other = two.gate()
    for number in range(many):
        two.add(f"z{number}.yml", other.config)
    one.run("start")
    one.wait_for_starts("a")
    two.run("start")
    two.wait_for_starts(*(f"z{number}" for number in range(many - 1)))
    two.wait_until(lambda: (two.tasks()[f"z{many - 1}"]["reason"] or {}).get("code") == "cpu_full", "the last waits")
    assert one.tasks()["b"]["reason"]["code"] == "cpu_full"
    gate.open()
    two.wait_for_starts(f"z{many - 1}")
    other.open()
    one.wait_for_states(b="completed")
    two.wait_for_states(**{f"z{number}": "completed" for number in range(many)})


def test_they_run_where_nvml_fails_as_a_whole(lab: Lab, tmp_path: Path) -> None:
    double = NvmlDouble(tmp_path)
    double.write(Gpu("GPU-a"), failures=[Failure("nvmlInitWithFlags", UNKNOWN_ERROR)])
    lab.environment.update(double.environment())
    bench = lab.workspace(gpu_count="auto", executor="local")
    bench.reconfigure(tasks={"*": {"gpus": 0}})
    bench.add("prep.yml")
    told = bench.run("start")
    assert "NVML fails" in told.text
    bench.wait_for_states(prep="completed")
    bench.wait_for_scheduler_end()
    bench.add("train.yml")
    bench.reconfigure(tasks={})
    refused = bench.run("start", code=None)
    assert refused.code != 0 and "NVML fails" in refused.text


def test_a_gpu_task_waits_and_keeps_nobody_from_working_where_nvml_fails(lab: Lab, tmp_path: Path) -> None:
    """It was queued while all was well."""
    double = NvmlDouble(tmp_path)
    double.write(Gpu("GPU-a"))
    lab.environment.update(double.environment())
    bench = lab.workspace(gpu_count="auto", executor="local", max_jobs_per_gpu=1)
    gate = bench.gate()
    bench.add("a.yml", gate.config)
    bench.add("b.yml")
    bench.run("start")
    bench.wait_for_starts("a")
    bench.run("stop")
    bench.wait_for_scheduler_end()
    double.write(Gpu("GPU-a"), failures=[Failure("nvmlInitWithFlags", UNKNOWN_ERROR)])
    bench.reconfigure(tasks={"prep": {"gpus": 0}})
    bench.add("prep.yml")
    bench.run("start", "prep")
    gate.open()
    bench.wait_for_states(prep="completed", a="completed", b="queued")


def test_what_can_not_be_is_refused(lab: Lab, tmp_path: Path) -> None:
    double = NvmlDouble(tmp_path)
    double.write(Gpu("GPU-a"), Gpu("GPU-b", memory_total=40 * 2**30))
    lab.environment.update(double.environment())
    bench = lab.workspace(gpu_count="auto", tasks={"a.yml": ""})
    bench.reconfigure(tasks={"a": {"gpus": 0}}, cpu_slots=0)
    assert "cpu_slots is 0" in bench.run("start", code=None).text
    bench.reconfigure(cpu_slots=2)
    assert "needs no GPU (gpus: 0), and the GPU list pins it to one" in bench.run("start", "a", "0", code=None).text
    bench.reconfigure(tasks={"a": {"min_free_memory": "100GiB"}})
    assert "a needs 100 GiB free (min_free_memory), and there is: GPU 0 80 GiB, GPU 1 40 GiB" in (
        bench.run("start", code=None).text
    )
    bench.reconfigure(tasks={"a": {"min_free_memory": "60GiB", "gpus": 2}})
    assert "needs 60 GiB free on each of 2 GPUs" in bench.run("start", code=None).text
    assert bench.run("status", "--json").code == 0
    assert json.loads(bench.run("status", "--json").out)["counts"] == {"new": 1}
