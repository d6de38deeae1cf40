"""What a sample says of the GPUs, and that the driver may fail and hang without harm: the real pynvml over the double.

The process that asks is a child, because a process keeps the library that it loaded first.
"""

from __future__ import annotations

import getpass
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.nvml_double import GIB, LOST, Failure, Gpu, Mig, NvmlDouble, Process
from tinksched.executors.base import WRAPPER
from tinksched.host.owners import Owners

NO_PERMISSION, NOT_LOADED, UNKNOWN_ERROR = 4, 9, 999
SCRIPT = """
import dataclasses, json, os, sys, threading, time
from pathlib import Path
from tinksched.host import nvml
from tinksched.host.owners import Owners
from tinksched.scheduler.devices import STALE_SECONDS, Watch

woken = threading.Event()
monitor = nvml.Monitor(patience=0.2)
monitor.wake = woken.set

def taken(seconds=60):
    woken.clear()
    monitor.request()
    return told(monitor.latest) if woken.wait(seconds) else None

def told(sample):
    states = {name: dataclasses.asdict(state) for name, state in sample.states.items()}
    for state in states.values():
        state["links"] = sorted(state["links"])
    return {"problem": sample.problem, "states": states}

print("null", flush=True)
for line in sys.stdin:
    print(json.dumps(eval(line)), flush=True)
"""


class Child:
    """A process that has a Monitor, in which an expression is evaluated each time."""

    def __init__(self, double: NvmlDouble) -> None:
        paths = os.pathsep.join(filter(None, sys.path))
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", SCRIPT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, **double.environment(), "PYTHONPATH": paths},
        )  # fmt: skip
        assert self.answer() is None

    def answer(self) -> Any:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def __call__(self, expression: str) -> Any:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{expression}\n")
        self.process.stdin.flush()
        return self.answer()

    def sample(self) -> dict[str, Any]:
        found: dict[str, Any] = self("taken()")
        return found

    def states(self) -> dict[str, dict[str, Any]]:
        """The states of the next sample, which has no problem."""
        found = self.sample()
        assert found["problem"] is None
        states: dict[str, dict[str, Any]] = found["states"]
        return states


@pytest.fixture
def double(tmp_path: Path) -> NvmlDouble:
    return NvmlDouble(tmp_path)


@pytest.fixture
def child(double: NvmlDouble) -> Iterator[Child]:
    found = Child(double)
    yield found
    found.process.communicate(timeout=60)
    assert found.process.returncode == 0


needs_host_pids = pytest.mark.skipif(
    Owners().look([1]) is None, reason="in a container without the host's pids nobody can tell processes apart"
)


# ---------------------------------------------------------------- what is said


def test_everything_about_a_gpu(double: NvmlDouble, child: Child) -> None:
    gpu = Gpu("GPU-b", memory_used=3 * GIB, utilization=87, temperature=61, power=412.5, numa=1, links=(2,))
    double.write(Gpu("GPU-a"), gpu, Gpu("GPU-c", links=(1,)))
    states = child.states()
    said = states["GPU-b"]
    assert said.pop("at") > 1e9
    assert said == {
        "device": "GPU-b", "index": 1, "memory_total": 80 * GIB, "memory_free": 77 * GIB, "memory_used": 3 * GIB,
        "utilization": 87, "temperature": 61, "power": 412.5, "processes": None if Owners().look([]) is None else [],
        "links": ["GPU-c"], "numa": 1, "lost": False, "problem": None,
    }  # fmt: skip
    assert (states["GPU-c"]["links"], states["GPU-a"]["links"]) == (["GPU-b"], [])


def test_what_a_gpu_does_not_know_is_none_and_no_problem(double: NvmlDouble, child: Child) -> None:
    double.write(Gpu("GPU-a"), failures=[Failure("nvmlDeviceGetComputeRunningProcesses_v3", 3),
                                         Failure("nvmlDeviceGetComputeRunningProcesses_v2", 13)])  # fmt: skip
    said = child.states()["GPU-a"]
    unknown = ("utilization", "temperature", "power", "numa", "processes")
    assert {name: said[name] for name in unknown} == dict.fromkeys(unknown)


@needs_host_pids
def test_an_older_driver_lists_processes_in_an_older_way(double: NvmlDouble, child: Child) -> None:
    gpu = Gpu("GPU-a", processes=(Process(os.getpid(), GIB),))
    double.write(gpu, failures=[Failure("nvmlDeviceGetComputeRunningProcesses_v3", 13)])
    assert [one["memory"] for one in child.states()["GPU-a"]["processes"]] == [GIB]


def test_instances_have_states_of_their_own(double: NvmlDouble, child: Child) -> None:
    instances = (Mig("MIG-a", memory_used=GIB), Mig("MIG-b", memory_total=20 * GIB))
    double.write(Gpu("GPU-a", mig=True, temperature=50, instances=instances))
    states = child.states()
    assert {name: (state["index"], state["memory_free"]) for name, state in states.items()} == {
        "GPU-a": (0, 80 * GIB), "MIG-a": (100, 9 * GIB), "MIG-b": (101, 20 * GIB),
    }  # fmt: skip


def test_who_is_on_an_instance_is_not_on_its_gpu_as_well(double: NvmlDouble, child: Child) -> None:
    """NVML lists the processes of all instances there."""
    there = (Process(os.getpid(), GIB),)
    double.write(Gpu("GPU-a", mig=True, processes=there, instances=(Mig("MIG-a", processes=there),)))
    assert child.states()["GPU-a"]["processes"] is None


def test_a_gpu_that_is_divided_while_it_is_used_is_lost_to_who_uses_it(double: NvmlDouble, child: Child) -> None:
    double.write(Gpu("GPU-a", mig=False))
    child.states()
    double.write(Gpu("GPU-a", mig=True, instances=(Mig("MIG-a"),)))
    assert not child.states()["GPU-a"]["lost"], "nothing is wrong with it"
    asked = "[(state := monitor.latest.state_of('GPU-a', 0)).lost, state.problem]"
    assert child(asked) == [True, "GPU 0 is divided by MIG"]
    assert child("monitor.latest.state_of('MIG-a', 100).lost") is False


def test_what_changes_is_seen_and_gpus_keep_their_names_when_indices_change(double: NvmlDouble, child: Child) -> None:
    double.write(Gpu("GPU-a", links=(1,)), Gpu("GPU-b", utilization=10, links=(0,)))
    assert child.states()["GPU-b"]["index"] == 1
    double.write(Gpu("GPU-b", utilization=20))
    states = child.states()
    assert (states["GPU-b"]["index"], states["GPU-b"]["utilization"], states["GPU-b"]["links"]) == (0, 20, [])
    assert list(states) == ["GPU-b"]


# ---------------------------------------------------------------- processes


@needs_host_pids
def test_a_foreign_process_has_a_user_and_a_command(double: NvmlDouble, child: Child) -> None:
    both = (Process(os.getpid(), 2 * GIB, "both"), Process(os.getppid(), None, "graphics"))
    double.write(Gpu("GPU-a", memory_used=GIB, processes=both))
    state = child.states()["GPU-a"]
    mine, other = sorted(state["processes"], key=lambda one: one["pid"] != os.getpid())
    assert state["memory_used"] == 3 * GIB
    assert (mine["memory"], mine["user"], mine["compute"], mine["run"]) == (2 * GIB, getpass.getuser(), True, "")
    assert "pytest" in mine["command"] or "python" in mine["command"]
    assert (other["memory"], other["compute"]) == (None, False)


@needs_host_pids
def test_a_process_is_known_by_its_environment_and_still_when_it_has_ended(double: NvmlDouble, child: Child) -> None:
    environment = {**os.environ, "TINKSCHED_RUN_ID": "0123456789abcdef"}
    with subprocess.Popen(["sleep", "600"], env=environment) as sleeper:
        double.write(Gpu("GPU-a", processes=(Process(sleeper.pid, GIB),)))
        (seen,) = child.states()["GPU-a"]["processes"]
        assert (seen["run"], seen["command"]) == ("0123456789abcdef", "sleep 600")
        sleeper.kill()
    (ended,) = child.states()["GPU-a"]["processes"]  # the driver takes its time to let go of the memory
    assert ended == seen


@needs_host_pids
def test_a_process_whose_environment_says_nothing_is_known_by_its_wrapper(
    double: NvmlDouble, child: Child, tmp_path: Path
) -> None:
    """As for another user's run, whose environment can't be read: its ancestors' arguments can."""
    wrapper = tmp_path / "executors" / "wrapper.sh"
    wrapper.parent.mkdir()
    wrapper.write_text('env -u TINKSCHED_RUN_ID sleep 600 & echo "$!"; wait\n')
    assert WRAPPER.match("*/executors/wrapper.sh"), "the name by which wrappers are known"
    run_dir = tmp_path / "runs" / "fedcba9876543210"
    command = ["/bin/sh", str(wrapper), str(run_dir), "lease", "/", "flock"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as shell:
        assert shell.stdout is not None
        pid = int(shell.stdout.readline())
        double.write(Gpu("GPU-a", processes=(Process(pid, GIB),)))
        (seen,) = child.states()["GPU-a"]["processes"]
        os.kill(pid, 9)
    assert seen["run"] == "fedcba9876543210"


def test_memory_that_a_process_holds_which_is_nowhere_is_nobody_s(double: NvmlDouble, child: Child) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    double.write(Gpu("GPU-a", processes=(Process(gone.pid, GIB),)))
    state = child.states()["GPU-a"]
    assert state["memory_used"] == GIB
    for process in state["processes"] or []:  # None where pids mean nothing
        assert (process["user"], process["command"], process["run"]) == (None, None, "")


def test_where_processes_can_not_be_told_apart_an_empty_list_is_not_known_to_be_empty(
    double: NvmlDouble, child: Child, tmp_path: Path
) -> None:
    double.write(Gpu("GPU-a"))
    (tmp_path / "pid").touch()
    child(f"setattr(monitor, '_owners', Owners(Path({str(tmp_path / 'pid')!r})))")
    assert child.states()["GPU-a"]["processes"] is None


def test_in_a_container_without_the_host_s_pids_processes_are_unknown(tmp_path: Path) -> None:
    own = tmp_path / "pid"  # a namespace with another inode
    own.touch()
    owners = Owners(own)
    assert owners.look([os.getpid()]) is None
    assert owners.look([]) is None, "drivers list nobody there, whoever is on the GPU"


# ---------------------------------------------------------------- failures


def test_a_lost_gpu_is_told_apart_from_the_others_and_comes_back(double: NvmlDouble, child: Child) -> None:
    gpus = Gpu("GPU-a", power=5.0), Gpu("GPU-b", power=6.0)
    functions = ("nvmlDeviceGetMemoryInfo_v2", "nvmlDeviceGetPowerUsage", "nvmlDeviceGetUtilizationRates")
    double.write(*gpus, failures=[Failure(function, LOST, index=1) for function in functions])
    said = child.sample()
    assert said["problem"] == "NVML fails for GPU 1 (GPU is lost)"
    lost, fine = said["states"]["GPU-b"], said["states"]["GPU-a"]
    assert (lost["lost"], lost["problem"], lost["memory_free"], lost["power"]) == (True, said["problem"], None, None)
    assert (fine["lost"], fine["problem"], fine["power"]) == (False, None, 5.0)
    double.write(*gpus)
    assert not child.states()["GPU-b"]["lost"]


@pytest.mark.parametrize("how", ["handle", "count"])
def test_a_gpu_that_is_not_even_counted_is_lost_to_who_uses_it(double: NvmlDouble, child: Child, how: str) -> None:
    double.write(Gpu("GPU-a"), Gpu("GPU-b"))
    child.states()
    if how == "count":
        double.write(Gpu("GPU-a"))
    else:
        double.write(Gpu("GPU-a"), Gpu("GPU-b"), failures=[Failure("nvmlDeviceGetHandleByIndex_v2", LOST, index=1)])
    child.sample()
    assert child("[monitor.latest.state_of(name, 1).lost for name in ('GPU-a', 'GPU-b')]") == [False, True]


@pytest.mark.parametrize(
    ("function", "code", "words"),
    [
        ("nvmlDeviceGetHandleByIndex_v2", NO_PERMISSION, "Insufficient Permissions"),
        ("nvmlDeviceGetHandleByIndex_v2", UNKNOWN_ERROR, "Unknown Error"),
        ("nvmlDeviceGetUUID", UNKNOWN_ERROR, "Unknown Error"),
    ],
)
def test_a_gpu_that_can_not_say_who_it_is_is_lost_whatever_the_reason(
    double: NvmlDouble, child: Child, function: str, code: int, words: str
) -> None:
    double.write(Gpu("GPU-a"), Gpu("GPU-b"), failures=[Failure(function, code, index=0)])
    problem = f"NVML fails for GPU 0 ({words})"
    assert child.sample()["problem"] == problem
    asked = "[[(state := monitor.latest.state_of(name, 0)).lost, state.problem] for name in ('GPU-a', 'GPU-b')]"
    assert child(asked) == [[True, problem], [False, None]]


def test_nvml_that_fails_as_a_whole_is_said_and_asked_again(double: NvmlDouble, child: Child) -> None:
    double.write(Gpu("GPU-a"))
    child.states()
    double.state.unlink()
    assert child.sample() == {"problem": "NVML fails (Driver Not Loaded)", "states": {}}
    said = child("[(state := monitor.latest.state_of('GPU-a', 0)).problem, state.lost]")
    assert said == ["NVML fails (Driver Not Loaded)", False], "nobody knows whether it is lost"
    double.write(Gpu("GPU-a"))
    assert list(child.states()) == ["GPU-a"]


@pytest.mark.parametrize("function", ["nvmlInitWithFlags", "nvmlDeviceGetMemoryInfo_v2", "nvmlDeviceGetCount_v2"])
def test_a_driver_that_hangs_is_left_alone_and_taken_up_again(double: NvmlDouble, child: Child, function: str) -> None:
    first = function != "nvmlInitWithFlags"
    double.write(Gpu("GPU-a"), alone=True)
    if first:
        child.states()
    double.write(Gpu("GPU-a", utilization=7), hanging=[function], alone=True)
    assert child("woken.clear() or (monitor.request(), monitor.late)[1]") is None
    assert 0 < child("monitor.due - time.monotonic()") <= 0.2
    assert child("woken.wait(0.3)") is False
    assert child("[monitor.late, monitor.due]") == ["NVML has not answered for 0 s", None]
    assert child("[monitor.request() for _ in '1234567'] and threading.active_count() <= 2"), "one hangs, no more"
    known = child("told(monitor.latest)")
    numbers = ("memory_free", "memory_used", "utilization", "processes")
    assert all(state[number] is None for state in known["states"].values() for number in numbers), "they are old"
    assert all(state["memory_total"] == 80 * GIB for state in known["states"].values())
    assert known["problem"] == "NVML has not answered for 0 s"
    assert list(known["states"]) == (["GPU-a"] if first else [])
    assert all(state["problem"] == known["problem"] for state in known["states"].values())
    assert child("nvml.look(0.1).problem") == "NVML has not answered for 0.1 s"
    double.write(Gpu("GPU-a", utilization=7), alone=True)
    assert child("woken.wait(60)") is True
    assert child("told(monitor.latest)")["states"]["GPU-a"]["utilization"] == 7
    assert child("monitor.late") is None
    assert child.states()["GPU-a"]["utilization"] == 7


def test_a_session_that_lives_long_is_started_anew_after_errors_but_not_all_the_time(
    double: NvmlDouble, child: Child
) -> None:
    double.write(Gpu("GPU-a"), failures=[Failure("nvmlDeviceGetPowerUsage", 999)])
    assert child("taken() and monitor._session is not None"), "not at once"
    assert child("setattr(monitor, '_opened', monitor._opened - 11) or (taken() and monitor._session is None)")
    double.write(Gpu("GPU-a", power=1.0))
    assert child.states()["GPU-a"]["power"] == 1.0


def test_no_library_costs_nothing(tmp_path: Path) -> None:
    script = """
import sys
from tinksched.host import nvml
sample = nvml.look()
print(nvml.has_library(), sample.inventory.driver, sample.problem, dict(sample.states), "pynvml" in sys.modules)
"""
    (tmp_path / "libnvidia-ml.so.1").write_bytes(b"")
    double = NvmlDouble(tmp_path, library=tmp_path)
    environment = {**os.environ, **double.environment(), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout == "False False None {} False\n"


# ---------------------------------------------------------------- what a scheduler makes of it


@pytest.fixture
def watcher(double: NvmlDouble, child: Child) -> Child:
    """The child, with a scheduler's `watch`; `come()` waits for its next sample."""
    double.write(Gpu("GPU-a"))
    child("globals().update(watch=Watch(), come=lambda: woken.wait(60) and (woken.clear() or True))")
    child("watch.listen(woken.set)")
    return child


def test_nothing_starts_by_an_old_sample_and_nobody_waits_for_a_fresh_one(watcher: Child) -> None:
    assert watcher("watch.must_wait()") is False
    watcher("setattr(watch._monitor, '_answered', time.monotonic() - STALE_SECONDS)")
    assert watcher("[watch.must_wait(), come(), watch.must_wait()]") == [True, True, False]


def test_a_silent_driver_is_waited_for_a_second_and_no_longer(double: NvmlDouble, watcher: Child) -> None:
    double.write(Gpu("GPU-a"), hanging=["nvmlDeviceGetCount_v2"])
    watcher("setattr(watch._monitor, '_answered', time.monotonic() - STALE_SECONDS)")
    assert watcher("watch.must_wait()") is True
    assert 0 < watcher("watch.due - time.monotonic()") <= 1, "the scheduler looks again then"
    watcher("setattr(watch._monitor, '_asked', time.monotonic() - 1)")
    assert watcher("watch.must_wait()") is False
    assert 8 < watcher("watch.due - time.monotonic()") <= 9
    double.write(Gpu("GPU-a"))
    assert watcher("come()") is True


def test_an_end_while_a_sample_is_taken_has_another_one_taken(double: NvmlDouble, watcher: Child) -> None:
    """What the ended run had, the sample that was being taken may show as used still."""
    double.write(Gpu("GPU-a"), hanging=["nvmlDeviceGetCount_v2"])
    watcher("watch.look(60, waiting=True, ended=True)")
    watcher("watch.look(60, waiting=True, ended=True)")
    double.write(Gpu("GPU-a"))
    assert watcher("[come(), watch.look(60, waiting=True), come()]") == [True, None, True]
    assert watcher("[watch.look(60, waiting=True), watch._monitor.asked]") == [None, None], "and no third one"


def test_a_scheduler_that_can_do_without_the_driver_begins_without_an_answer(double: NvmlDouble, child: Child) -> None:
    double.write(Gpu("GPU-a"), hanging=["nvmlInitWithFlags"])
    child("globals().update(watch=Watch(patience=0.1)) or watch.listen(woken.set)")
    said = child("dataclasses.asdict(watch.inventory)")
    assert (said["driver"], said["devices"], said["problem"]) == (True, [], "NVML has not answered yet")
    double.write(Gpu("GPU-a"), Gpu("GPU-b"))
    assert child("woken.wait(60)") is True
    assert [device["uuid"] for device in child("dataclasses.asdict(watch.inventory)")["devices"]] == ["GPU-a", "GPU-b"]


# ---------------------------------------------------------------- what it costs


@needs_host_pids
def test_a_sample_of_eight_gpus_with_thirty_processes_takes_little_time(double: NvmlDouble, child: Child) -> None:
    sleepers = [subprocess.Popen(["sleep", "600"]) for _ in range(30)]
    try:
        gpus = [
            Gpu(f"GPU-{index}", utilization=50, temperature=50, power=300.0, numa=index // 4,
                links=tuple(other for other in range(8) if other != index),
                processes=tuple(Process(one.pid, GIB) for one in sleepers[index::8]))
            for index in range(8)
        ]  # fmt: skip
        double.write(*gpus)
        assert sum(len(state["processes"]) for state in child.states().values()) == 30
        ten = "(lambda began: [taken() for _ in range(10)] and time.process_time() - began)(time.process_time())"
        seconds = min(child(ten) for _ in range(3)) / 10
    finally:
        for one in sleepers:
            one.kill()
            one.wait()
    print(f"a sample: {1000 * seconds:.1f} ms of CPU")
    assert seconds < 0.02, "what the double takes for itself included"
