"""The GPUs as users see them: what is on them, what becomes of runs when one is lost, and what runs are told."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.nvml_double import GIB, LOST, Failure, Gpu, Mig, NvmlDouble, Process
from tests.support import Bench, Gate, Lab
from tinksched.host.owners import Owners

A, B, C = (f"GPU-{letter * 8}-0000" for letter in "abc")
MIGS = Mig("MIG-aaaa-0"), Mig("MIG-bbbb-1")
needs_host_pids = pytest.mark.skipif(
    Owners().look([1]) is None, reason="in a container without the host's pids nobody can tell processes apart"
)


@pytest.fixture
def double(lab: Lab, tmp_path: Path) -> NvmlDouble:
    """The driver of the laboratory's machine."""
    double = NvmlDouble(tmp_path)
    lab.environment.update(double.environment())
    return double


@pytest.fixture
def stranger() -> Iterator[int]:
    """A process of somebody who does not use tinksched."""
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process.pid
        process.kill()


def waiting(bench: Bench, *names: str) -> Gate:
    """Start tasks that wait at a gate."""
    gate = bench.gate()
    for name in names:
        bench.add(f"{name}.yml", gate.config)
    bench.run("start")
    bench.wait_for_starts(*names)
    return gate


def journal(bench: Bench) -> list[str]:
    """What the scheduler said, without the times."""
    path = bench.folder / "logs" / "T_scheduler.log"
    return [line.split(" ", 2)[2] for line in path.read_text().splitlines()] if path.exists() else []


def pid_of(bench: Bench, task: str) -> int:
    return next(line.pid for line in bench.record() if line.what == "start" and line.task == task)


# ---------------------------------------------------------------- gpus


@needs_host_pids
def test_gpus_shows_runs_strangers_and_memory_of_nobody(lab: Lab, double: NvmlDouble, stranger: int) -> None:
    double.write(Gpu(A), Gpu(B))
    bench = lab.workspace(gpu_count="auto", max_jobs_per_gpu=1)
    gate = waiting(bench, "exp1")
    pid = pid_of(bench, "exp1")
    first = Gpu(A, "H200", utilization=87, temperature=61, power=412.0, links=(1,), numa=0,
                processes=(Process(pid, 2 * GIB), Process(stranger, 3 * GIB)))  # fmt: skip
    double.write(first, Gpu(B, memory_used=4 * GIB, links=(0,)))

    shown = bench.run("gpus", cwd=lab.folder).out
    assert A in shown, "a pipe is wide"
    for words in ("5/80 GiB", "87 %", "61 C", "412 W", "1 taken", "exp1", "not tinksched's", "held by unknown"):
        assert words in shown
    narrow = bench.run("gpus", cwd=lab.folder, COLUMNS="100").out
    assert A not in narrow and max(map(len, narrow.splitlines())) <= 100
    assert "GPU  USER" in narrow and "MEMORY  STARTED" in narrow, "commands give way, and no column"
    assert " ago" in narrow or "just now" in narrow

    answer = json.loads(bench.run("gpus", "--json", cwd=lab.folder).out)
    one, two = answer["gpus"]
    assert (answer["version"], answer["driver"], one["uuid"]) == (1, "0.0-double", A)
    assert one["state"]["memory"] == {"total": 80 * GIB, "used": 5 * GIB, "free": 75 * GIB, "unknown": 0}
    assert (one["state"]["links"], one["state"]["numa"]) == ([B], 0)
    (holder,) = one["holders"]
    runs = {process["pid"]: process["run"] for process in one["state"]["processes"]}
    assert runs == {pid: holder["run"], stranger: None}
    assert two["state"]["memory"]["unknown"] == 4 * GIB

    status = bench.status()
    assert [gpu["state"]["memory"]["used"] for gpu in status["gpus"]] == [5 * GIB, 4 * GIB]
    assert "5/80 GiB  87 %" in bench.run("status").out
    gate.open()


@needs_host_pids
def test_a_run_on_a_gpu_that_it_was_not_given_shows(lab: Lab, double: NvmlDouble) -> None:
    double.write(Gpu(A), Gpu(B))
    bench = lab.workspace(gpu_count="auto", max_jobs_per_gpu=1)
    gate = waiting(bench, "exp1")
    double.write(Gpu(A), Gpu(B, processes=(Process(pid_of(bench, "exp1"), GIB),)))
    shown = bench.run("gpus").out
    assert f"exp1 of {bench.folder}, which was not given this GPU" in shown
    gate.open()


def test_mig_instances_stand_below_their_gpu(lab: Lab, double: NvmlDouble) -> None:
    double.write(Gpu(A, mig=True, instances=MIGS), Gpu(B))
    lines = lab.workspace().run("gpus").out.splitlines()
    assert [line.split()[0] for line in lines[1:5]] == ["0", "100", "101", "1"]
    assert "MIG" in lines[1] and lines[2].startswith("  100") and "MIG-aaaa-0" in lines[2]


def test_without_a_driver_gpus_says_so(lab: Lab) -> None:
    assert lab.workspace().run("gpus", cwd=lab.folder).out == "no NVIDIA driver: slots only; nobody holds a slot\n"


def test_gpus_says_what_fails(lab: Lab, double: NvmlDouble) -> None:
    double.write(Gpu(A), Gpu(B), failures=[Failure("nvmlDeviceGetHandleByIndex_v2", LOST, index=1)])
    shown = lab.workspace().run("gpus").out
    assert "lost" in shown and "NVML fails for GPU 1 (GPU is lost)" in shown


# ---------------------------------------------------------------- a driver that fails


def test_a_lost_gpu_and_its_runs_are_said_once_and_shown(lab: Lab, double: NvmlDouble) -> None:
    double.write(Gpu(A), Gpu(B))
    bench = lab.workspace(gpu_count="auto", max_jobs_per_gpu=1, check_interval=0.2)
    gate = waiting(bench, "exp1", "exp2")
    double.write(Gpu(A), Gpu(B), failures=[Failure("nvmlDeviceGetUtilizationRates", LOST, index=1)])
    bench.wait_until(lambda: any("GPU 1 is lost" in line for line in journal(bench)), "what the scheduler says")
    state = bench.status()["gpus"][1]["state"]
    assert (state["lost"], state["problem"]) == (True, "NVML fails for GPU 1 (GPU is lost)")
    assert "lost" in bench.run("status").out
    double.write(Gpu(A), Gpu(B))
    bench.wait_until(lambda: "GPU 1 is back" in journal(bench), "what the scheduler says")
    gate.open()
    bench.wait_for_states(exp1="completed", exp2="completed")
    (said,) = [line for line in journal(bench) if "GPU 1 is lost" in line]
    assert said.endswith("nothing is started there; on it exp2 ran")
    assert not [line for line in journal(bench) if "GPU 0 is" in line]


@pytest.mark.parametrize("broken", ["hangs", "fails"])
def test_tasks_go_on_though_the_driver_does_not_answer(lab: Lab, double: NvmlDouble, broken: str) -> None:
    gpus = Gpu(A), Gpu(B)
    double.write(*gpus)
    bench = lab.workspace(gpu_count="auto", max_jobs_per_gpu=1, check_interval=0.2)
    gate = waiting(bench, "first")
    for number in range(6):
        bench.add(f"next{number}.yml")
    if broken == "hangs":
        double.write(*gpus, hanging=["nvmlDeviceGetUtilizationRates"])
    else:
        double.write(*gpus, failures=[Failure("nvmlDeviceGetUtilizationRates", 999)])
    bench.run("start")
    gate.open()
    done = {"first", *(f"next{number}" for number in range(6))}
    bench.wait_until(lambda: {line.task for line in bench.record() if line.what == "end"} == done, tell=bench.record)
    bench.wait_for_scheduler_end()  # it waits for no thread that hangs
    double.write(*gpus)
    assert set(bench.states().values()) == {"completed"}


def test_start_refuses_what_needs_a_gpu_while_nvml_fails_and_says_so(lab: Lab, double: NvmlDouble) -> None:
    bench = lab.workspace(gpu_count="auto", tasks={"a.yml": ""})  # the double was not written: no kernel module
    answer = bench.run("start", code=2)
    assert "NVML fails (Driver Not Loaded), so the GPUs can't be told apart" in answer.err
    assert "nvidia-smi" in answer.err
    assert bench.status()["gpu_note"] == "NVML fails (Driver Not Loaded), so the GPUs can't be told apart"


# ---------------------------------------------------------------- what runs are told


def told(bench: Bench) -> dict[str, str]:
    return {line.task: line.gpus for line in bench.record() if line.what == "start"}


def test_programs_that_call_int_on_the_variable_work_unless_uuids_are_asked_for(lab: Lab, double: NvmlDouble) -> None:
    double.write(Gpu(A), Gpu(B))
    bench = lab.workspace(gpu_count="auto", use_gpus=[1, 0], max_jobs_per_gpu=1, tasks={"a.yml": ""})
    bench.run("start", "--wait")
    assert [int(entry) for entry in told(bench)["a"].split(",")] == [1]
    bench.reconfigure(gpu_ids="uuid", tasks={"b": {"gpus": 2, "environment": {"SEEN": "{gpus}"}}})
    (bench.folder / "train.sh").write_text('printf "%s %s %s\\n" "$SEEN" "$CUDA_VISIBLE_DEVICES" "$TINKSCHED_GPUS"\n')
    bench.add("b.yml")
    bench.run("start", "--wait")
    assert bench.log("b").split() == [f"{A},{B}"] * 3


def test_runs_count_gpus_as_nvml_does_whatever_the_caller_s_environment_says(lab: Lab, double: NvmlDouble) -> None:
    """CUDA's own order is the fastest first: GPU 0 would be another one than in every listing."""
    double.write(Gpu(A), Gpu(B))
    bench = lab.workspace(gpu_count="auto", tasks={"a.yml": ""})
    (bench.folder / "train.sh").write_text('echo "$CUDA_DEVICE_ORDER"\n')
    bench.run("start", "--wait", CUDA_DEVICE_ORDER="FASTEST_FIRST")
    assert bench.log("a").split() == ["PCI_BUS_ID"]


def test_uuids_need_a_driver_that_knows_them(lab: Lab) -> None:
    bench = lab.workspace(gpu_ids="uuid", tasks={"a.yml": ""})
    assert "gpu_ids is uuid, and the UUID of GPU 0, 1 is not known (no NVIDIA driver" in bench.run("start", code=2).err


def test_a_mig_instance_is_told_by_uuid_and_what_it_is_part_of_is_refused(lab: Lab, double: NvmlDouble) -> None:
    double.write(Gpu(A, mig=True, instances=MIGS), Gpu(B))
    bench = lab.workspace(gpu_count="auto", max_jobs_per_gpu=1)
    for name in ("a", "b", "c"):
        bench.add(f"{name}.yml")
    named = "GPU 0 is divided by MIG, and can't be used itself; its instances are 100 (MIG-aaaa-0), 101 (MIG-bbbb-1)"
    assert named in bench.run("start", "a.yml", "0", code=2).err
    bench.reconfigure(use_gpus=[0])
    assert named in bench.run("start", code=2).err
    bench.reconfigure(use_gpus=None)
    bench.run("start", "--wait", "a.yml,b.yml,c.yml", "MIG-bbbb-1,1,100")
    assert told(bench) == {"a": "MIG-bbbb-1", "b": "1", "c": "MIG-aaaa-0"}
    assert bench.tasks()["a"]["gpus"] == [101]


@pytest.mark.parametrize(
    ("visible", "words"),
    [
        ("", "CUDA_VISIBLE_DEVICES is empty"),
        ("0,7,1", "GPU 7 does not exist here"),
        ("1,1", "GPU 1 is named twice"),
        (f"{A},0", "GPU 0 is named twice"),
    ],
)
def test_an_allowed_set_that_cuda_would_misread_is_refused(
    lab: Lab, double: NvmlDouble, visible: str, words: str
) -> None:
    double.write(Gpu(A), Gpu(B))
    bench = lab.workspace(gpu_count="auto", tasks={"a.yml": ""})
    assert words in bench.run("start", code=2, CUDA_VISIBLE_DEVICES=visible).err


def test_the_allowed_set_may_name_uuids_and_is_not_mapped_twice(lab: Lab, double: NvmlDouble) -> None:
    double.write(Gpu(A), Gpu(B), Gpu(C, mig=True, instances=MIGS))
    bench = lab.workspace(gpu_count="auto", max_jobs_per_gpu=1, tasks={f"e{number}.yml": "" for number in range(4)})
    bench.run("start", "--wait", CUDA_VISIBLE_DEVICES=f"{B},MIG-bbbb-1")
    assert set(told(bench).values()) == {"1", "MIG-bbbb-1"}


# ---------------------------------------------------------------- indices change


def test_a_run_and_a_pin_keep_their_gpu_when_indices_change(lab: Lab, double: NvmlDouble) -> None:
    double.write(Gpu(A), Gpu(B))
    bench = lab.workspace(gpu_count="auto", max_jobs_per_gpu=1)
    gate = bench.gate()
    for name in ("going", "pinned", "free"):
        bench.add(f"{name}.yml", gate.config if name == "going" else "")
    bench.run("start", "going.yml,pinned.yml", "1,1")
    bench.wait_for_starts("going")
    bench.run("stop")
    bench.wait_for_scheduler_end()
    double.write(Gpu(B), Gpu(A))
    bench.run("start")
    bench.wait_for_states(free="completed")
    assert told(bench)["free"] == "1", "where nobody is now"
    waits = bench.tasks()["pinned"]
    assert (waits["state"], waits["reason"]["code"]) == ("queued", "pinned_gpu_full")
    assert "pinned to GPU 0" in waits["reason"]["text"], "which was 1 when it was pinned"
    assert [gpu["tasks"] for gpu in bench.status()["gpus"]] == [["going"], []]
    gate.open()
    bench.wait_for_states(pinned="completed")
    assert told(bench)["pinned"] == "0"


def test_a_pin_to_a_gpu_that_is_gone_says_which_it_was(lab: Lab, double: NvmlDouble) -> None:
    double.write(Gpu(A), Gpu(B))
    bench = lab.workspace(gpu_count="auto", max_jobs_per_gpu=1)
    gate = bench.gate()
    bench.add("going.yml", gate.config)
    bench.add("pinned.yml")
    bench.run("start", "going.yml,pinned.yml", "1,1")
    bench.wait_for_starts("going")
    bench.run("stop")
    bench.wait_for_scheduler_end()
    gate.open()
    double.write(Gpu(A), Gpu(C))
    bench.run("start")
    bench.wait_for_scheduler_end()
    assert f"asks for GPU {B}" in bench.tasks()["pinned"]["reason"]["text"]
