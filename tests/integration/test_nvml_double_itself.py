"""The double of NVML as the real pynvml sees it: every value that tests rely on, and how it fails and hangs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.nvml_double import GIB, LOST, Failure, Gpu, Mig, NvmlDouble, Process

# Each line is an expression; `gpu(0)` is a handle. An NVML error is its number, None is "not supported".
ASK = """
import json, sys, threading
from pynvml import *
nvmlInit()
print("null", flush=True)
gpu = nvmlDeviceGetHandleByIndex
def mig(index, place): return nvmlDeviceGetMigDeviceHandleByIndex(gpu(index), place)
def listed(processes): return [[one.pid, one.usedGpuMemory] for one in processes]
def thread(question):
    asking = threading.Thread(target=question, daemon=True)
    asking.start()
    return asking
def fields(answer): return [answer.total, answer.free, answer.used]
for line in sys.stdin:
    try:
        answer = eval(line)
    except NVMLError as error:
        answer = f"error {error.value}"
    print(json.dumps(answer), flush=True)
"""


class Pynvml:
    """A process with pynvml, in which an expression is evaluated each time."""

    def __init__(self, double: NvmlDouble) -> None:
        environment = {**os.environ, **double.environment()}
        command = [sys.executable, "-W", "error", "-c", ASK]
        self.child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )

    def begin(self, expression: str) -> None:
        assert self.child.stdin is not None
        self.child.stdin.write(f"{expression}\n")
        self.child.stdin.flush()

    def answer(self) -> Any:
        assert self.child.stdout is not None
        return json.loads(self.child.stdout.readline())

    def __call__(self, expression: str) -> Any:
        self.begin(expression)
        return self.answer()


@pytest.fixture
def double(tmp_path: Path) -> NvmlDouble:
    return NvmlDouble(tmp_path)


@pytest.fixture
def ask(double: NvmlDouble) -> Iterator[Pynvml]:
    double.write(Gpu("GPU-a"))
    asked = Pynvml(double)
    assert asked.answer() is None, "it has begun"
    yield asked
    asked.child.communicate()


def test_what_a_gpu_says_of_itself(double: NvmlDouble, ask: Pynvml) -> None:
    gpu = Gpu("GPU-b", "NVIDIA H200", 141 * GIB, 3 * GIB, utilization=87, temperature=61, power=412.5, numa=1)
    double.write(Gpu("GPU-a"), gpu)
    assert ask("nvmlDeviceGetUUID(gpu(1))") == "GPU-b"
    assert ask("nvmlDeviceGetUtilizationRates(gpu(1)).gpu") == 87
    assert ask("nvmlDeviceGetTemperature(gpu(1), NVML_TEMPERATURE_GPU)") == 61
    assert ask("nvmlDeviceGetTemperatureV(gpu(1), NVML_TEMPERATURE_GPU)") == 61
    assert ask("nvmlDeviceGetPowerUsage(gpu(1))") == 412500
    assert ask("nvmlDeviceGetMemoryAffinity(gpu(1), 2, NVML_AFFINITY_SCOPE_NODE)[0]") == 0b10
    assert ask("fields(nvmlDeviceGetMemoryInfo(gpu(1)))") == [141 * GIB, 138 * GIB, 3 * GIB]
    assert ask("fields(nvmlDeviceGetMemoryInfo(gpu(1), nvmlMemory_v2))") == [141 * GIB, 138 * GIB, 3 * GIB]


@pytest.mark.parametrize(
    "question",
    [
        "nvmlDeviceGetUtilizationRates(gpu(0)).gpu",
        "nvmlDeviceGetTemperature(gpu(0), NVML_TEMPERATURE_GPU)",
        "nvmlDeviceGetPowerUsage(gpu(0))",
        "nvmlDeviceGetMemoryAffinity(gpu(0), 2, NVML_AFFINITY_SCOPE_NODE)[0]",
        "nvmlDeviceGetMigMode(gpu(0))",
    ],
)
def test_what_is_not_given_is_not_supported(ask: Pynvml, question: str) -> None:
    assert ask(question) == "error 3"


@pytest.mark.parametrize("version", ["", "_v2", "_v3"])
def test_processes_are_listed_and_what_they_hold_is_used(double: NvmlDouble, ask: Pynvml, version: str) -> None:
    processes = (Process(11, 5 * GIB), Process(12, GIB, "graphics"), Process(13, None, "both"))
    double.write(Gpu("GPU-a", memory_used=GIB, processes=processes), Gpu("GPU-b"))
    assert ask(f"listed(nvmlDeviceGetComputeRunningProcesses{version}(gpu(0)))") == [[11, 5 * GIB], [13, None]]
    assert ask(f"listed(nvmlDeviceGetGraphicsRunningProcesses{version}(gpu(0)))") == [[12, GIB], [13, None]]
    assert ask(f"listed(nvmlDeviceGetComputeRunningProcesses{version}(gpu(1)))") == []
    assert ask("nvmlDeviceGetMemoryInfo(gpu(0)).used") == 7 * GIB


def test_more_than_there_is_leaves_nothing_free(double: NvmlDouble, ask: Pynvml) -> None:
    double.write(Gpu("GPU-a", memory_total=GIB, processes=(Process(1, 2 * GIB),)))
    assert ask("fields(nvmlDeviceGetMemoryInfo(gpu(0)))") == [GIB, 0, 2 * GIB]


def test_a_program_holds_memory_as_long_as_it_lives(double: NvmlDouble, ask: Pynvml) -> None:
    script = f'echo "process 0 compute $$ {GIB}" >"$NVML_DOUBLE_PROCESSES/$$"; echo; read -r line'
    environment = {**os.environ, **double.environment()}
    with subprocess.Popen(["sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as user:
        assert user.stdout is not None and user.stdout.readline() == b"\n"
        assert ask("listed(nvmlDeviceGetComputeRunningProcesses(gpu(0)))") == [[user.pid, GIB]]
        double.hold(user.pid, 2 * GIB)
        assert ask("nvmlDeviceGetMemoryInfo(gpu(0)).used") == 2 * GIB
        user.communicate()
    assert ask("nvmlDeviceGetMemoryInfo(gpu(0)).used") == 0
    assert ask("listed(nvmlDeviceGetComputeRunningProcesses(gpu(0)))") == []


def test_links_are_seen_as_p2p_over_nvlink(double: NvmlDouble, ask: Pynvml) -> None:
    double.write(Gpu("GPU-a", links=(1,)), Gpu("GPU-b", links=(0,)), Gpu("GPU-c"))
    question = "nvmlDeviceGetP2PStatus(gpu({}), gpu({}), NVML_P2P_CAPS_INDEX_NVLINK)"
    assert [ask(question.format(*pair)) for pair in ((0, 1), (1, 0), (0, 2), (2, 1))] == [0, 0, 5, 5]


def test_mig_instances_are_devices_of_their_own(double: NvmlDouble, ask: Pynvml) -> None:
    first = Mig("MIG-a", memory_total=10 * GIB, processes=(Process(7, GIB),))
    double.write(Gpu("GPU-a", mig=False), Gpu("GPU-b", mig=True, instances=(first, Mig("MIG-b"))))
    assert ask("nvmlDeviceGetCount()") == 2
    assert [ask(f"nvmlDeviceGetMigMode(gpu({index}))[0]") for index in (0, 1)] == [0, 1]
    assert ask("nvmlDeviceGetMaxMigDeviceCount(gpu(1))") == 7
    assert [ask(f"nvmlDeviceGetUUID(mig(1, {place}))") for place in range(3)] == ["MIG-a", "MIG-b", "error 6"]
    assert ask("nvmlDeviceGetMigDeviceHandleByIndex(gpu(0), 0)") == "error 3"
    assert ask("listed(nvmlDeviceGetComputeRunningProcesses(mig(1, 0)))") == [[7, GIB]]
    assert ask("fields(nvmlDeviceGetMemoryInfo(mig(1, 0)))") == [10 * GIB, 9 * GIB, GIB]


def test_a_function_fails_for_one_gpu_and_recovers(double: NvmlDouble, ask: Pynvml) -> None:
    gpus = Gpu("GPU-a", power=1.0), Gpu("GPU-b", power=2.0)
    double.write(*gpus, failures=[Failure("nvmlDeviceGetPowerUsage", LOST, index=0)])
    assert [ask(f"nvmlDeviceGetPowerUsage(gpu({index}))") for index in (0, 1)] == ["error 15", 2000]
    double.write(*gpus)
    assert ask("nvmlDeviceGetPowerUsage(gpu(0))") == 1000


def test_a_call_hangs_until_it_is_let_go(double: NvmlDouble, ask: Pynvml) -> None:
    gpus = Gpu("GPU-a"), Gpu("GPU-b")
    double.write(*gpus, hanging=["nvmlDeviceGetUUID 1"])
    assert ask("nvmlDeviceGetUUID(gpu(0))") == "GPU-a"
    assert ask("(one := thread(lambda: nvmlDeviceGetUUID(gpu(1)))).join(0.1) or one.is_alive()") is True
    double.write(*gpus)
    assert ask("one.join(60) or one.is_alive()") is False
    assert ask("nvmlDeviceGetUUID(gpu(1))") == "GPU-b"


def test_two_calls_at_once_abort_if_that_is_asked_for(double: NvmlDouble, ask: Pynvml) -> None:
    double.write(Gpu("GPU-a"), hanging=["nvmlDeviceGetCount_v2"], alone=True)
    _, err = ask.child.communicate("[thread(nvmlDeviceGetCount) for _ in '12'] and nvmlDeviceGetCount()\n")
    assert ask.child.returncode < 0 and "two calls at once" in err


@pytest.mark.parametrize("line", ["has power lots", "has wings 2", "process 9 compute 1 1", "process 0 kind 1 1", "hm"])
def test_a_line_that_it_does_not_know_is_an_error(double: NvmlDouble, ask: Pynvml, line: str) -> None:
    double.state.write_text(f"gpu GPU-a 1024 0 NVIDIA Double\n{line}\n")
    assert ask("nvmlDeviceGetCount()") == "error 999"
