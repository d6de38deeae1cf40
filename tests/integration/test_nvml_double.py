"""`discover` with the real pynvml over a double of the driver's library: what a machine answers, and how it fails.

Every question is asked in a child process, because a process keeps the library that it loaded first. The child turns
warnings into errors.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import pytest

from tests.nvml_double import SONAME, Failure, Gpu, Mig, NvmlDouble, compile_into
from tinksched.host.gpus import Device, Inventory

ONE_ANSWER_A_LINE = """
import dataclasses, json, sys
from tinksched.host.nvml import discover
for _ in sys.stdin:
    print(json.dumps(dataclasses.asdict(discover())), flush=True)
"""
GIB = 2**30
LOST, NOT_SUPPORTED, NO_PERMISSION, NOT_LOADED, NO_FUNCTION, MISMATCH = 15, 3, 4, 9, 13, 18


class Ask(Protocol):
    def __call__(self) -> Inventory: ...


@pytest.fixture
def double(tmp_path: Path) -> NvmlDouble:
    return NvmlDouble(tmp_path)


def environment(double: NvmlDouble) -> dict[str, str]:
    return {**os.environ, **double.environment(), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


@contextmanager
def machine(double: NvmlDouble) -> Iterator[Ask]:
    """A process that runs `discover` each time it is asked."""
    command = [sys.executable, "-W", "error", "-c", ONE_ANSWER_A_LINE]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment(double)
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        stdin, stdout = child.stdin, child.stdout

        def ask() -> Inventory:
            stdin.write("\n")
            stdin.flush()
            answer = json.loads(stdout.readline())
            devices = tuple(Device(**device) for device in answer.pop("devices"))
            return Inventory(devices=devices, **answer)

        yield ask
    assert child.returncode == 0


def discovered(double: NvmlDouble) -> Inventory:
    with machine(double) as ask:
        return ask()


def test_every_gpu_is_described(double: NvmlDouble) -> None:
    double.write(Gpu("GPU-a", "NVIDIA H200", 141 * GIB), Gpu("GPU-b", "NVIDIA A100-SXM4-80GB", 80 * GIB, 3 * GIB))
    assert discovered(double) == Inventory(
        (Device(0, "GPU-a", "NVIDIA H200", 141 * GIB), Device(1, "GPU-b", "NVIDIA A100-SXM4-80GB", 80 * GIB)),
        driver=True,
        problem=None,
        version="0.0-double",
    )


def test_a_driver_without_gpus_is_no_problem_of_nvml(double: NvmlDouble) -> None:
    double.write()
    assert discovered(double) == Inventory((), driver=True, problem=None, version="0.0-double")


def test_a_count_that_changes_is_seen_at_the_next_call(double: NvmlDouble) -> None:
    double.write(Gpu("GPU-a"), Gpu("GPU-b"), Gpu("GPU-c"))
    with machine(double) as ask:
        assert [device.uuid for device in ask().devices] == ["GPU-a", "GPU-b", "GPU-c"]
        double.write(Gpu("GPU-a"), Gpu("GPU-c"))
        assert [device.uuid for device in ask().devices] == ["GPU-a", "GPU-c"]
        double.state.unlink()
        assert ask() == Inventory((), driver=True, problem="NVML fails (Driver Not Loaded)")
        double.write(Gpu("GPU-a"))
        assert [device.uuid for device in ask().devices] == ["GPU-a"]


def test_no_library_means_no_driver(tmp_path: Path) -> None:
    # An unreadable library stands in for an absent one: pynvml can't tell them apart, and a real one may be here.
    (tmp_path / SONAME).write_bytes(b"")
    assert discovered(NvmlDouble(tmp_path, library=tmp_path)) == Inventory((), driver=False, problem=None)


def test_a_driver_that_is_not_loaded_is_a_problem(double: NvmlDouble) -> None:
    assert discovered(double) == Inventory((), driver=True, problem="NVML fails (Driver Not Loaded)")


def test_an_updated_library_over_an_old_driver_is_a_problem(double: NvmlDouble) -> None:
    double.write(Gpu("GPU-a"), failures=[Failure("nvmlInitWithFlags", MISMATCH)])
    found = discovered(double)
    assert found == Inventory((), driver=True, problem="NVML fails (RM has detected an NVML/RM version mismatch)")


def test_a_library_that_lacks_a_function_is_a_problem(tmp_path: Path) -> None:
    source = tmp_path / "old.c"
    source.write_text("int nvmlInit(void) { return 0; }\n")  # an NVML from before nvmlInitWithFlags
    old = NvmlDouble(tmp_path, library=compile_into(tmp_path, source))
    assert discovered(old) == Inventory((), driver=True, problem="NVML fails (Function Not Found)")


def test_counting_that_fails_is_a_problem(double: NvmlDouble) -> None:
    double.write(Gpu("GPU-a"), failures=[Failure("nvmlDeviceGetCount_v2", NO_PERMISSION)])
    assert discovered(double) == Inventory((), driver=True, problem="NVML fails (Insufficient Permissions)")


def test_a_lost_gpu_is_counted_but_unknown(double: NvmlDouble) -> None:
    double.write(Gpu("GPU-a"), Gpu("GPU-b"), failures=[Failure("nvmlDeviceGetHandleByIndex_v2", LOST, index=0)])
    found = discovered(double)
    assert found.devices == (Device(0), Device(1, "GPU-b", "NVIDIA Double", 80 * GIB))
    assert found.problem == "NVML fails for GPU 0 (GPU is lost)"


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        ("nvmlDeviceGetUUID", Device(1, None, "NVIDIA Double", 80 * GIB)),
        ("nvmlDeviceGetName", Device(1, "GPU-b", None, 80 * GIB)),
        ("nvmlDeviceGetMemoryInfo_v2", Device(1, "GPU-b", "NVIDIA Double", None)),
    ],
)
def test_a_field_that_fails_is_unknown_and_the_others_are_not(
    double: NvmlDouble, function: str, expected: Device
) -> None:
    double.write(Gpu("GPU-a"), Gpu("GPU-b"), failures=[Failure(function, LOST, index=1)])
    found = discovered(double)
    assert found.devices == (Device(0, "GPU-a", "NVIDIA Double", 80 * GIB), expected)
    assert found.problem == "NVML fails for GPU 1 (GPU is lost)"


def test_each_gpu_that_fails_is_named_once(double: NvmlDouble) -> None:
    failures = [Failure("nvmlDeviceGetUUID", LOST), Failure("nvmlDeviceGetName", LOST)]
    double.write(Gpu("GPU-a"), Gpu("GPU-b"), failures=failures)
    assert discovered(double).problem == "NVML fails for GPU 0 (GPU is lost); NVML fails for GPU 1 (GPU is lost)"


def test_what_a_gpu_does_not_support_is_unknown_without_a_problem(double: NvmlDouble) -> None:
    functions = ("nvmlDeviceGetMemoryInfo_v2", "nvmlDeviceGetMemoryInfo")
    double.write(Gpu("GPU-a"), failures=[Failure(function, NOT_SUPPORTED) for function in functions])
    found = discovered(double)
    assert (found.devices, found.problem) == ((Device(0, "GPU-a", "NVIDIA Double", None),), None)


def test_a_driver_without_the_newer_count_of_memory_is_asked_for_the_older_one(double: NvmlDouble) -> None:
    double.write(Gpu("GPU-a"), failures=[Failure("nvmlDeviceGetMemoryInfo_v2", NO_FUNCTION)])
    assert discovered(double).devices == (Device(0, "GPU-a", "NVIDIA Double", 80 * GIB),)


def test_mig_instances_are_devices_and_the_gpu_that_they_are_of_is_not_to_be_used(double: NvmlDouble) -> None:
    instances = (Mig("MIG-a", "H100 MIG 1g.10gb", 10 * GIB), Mig("MIG-b", "H100 MIG 3g.40gb", 40 * GIB))
    double.write(Gpu("GPU-a", mig=False), Gpu("GPU-b", "H100", mig=True, instances=instances))
    found = discovered(double)
    assert found.problem is None
    assert found.devices == (
        Device(0, "GPU-a", "NVIDIA Double", 80 * GIB),
        Device(1, "GPU-b", "H100", 80 * GIB, divided=True),
        Device(200, "MIG-a", "H100 MIG 1g.10gb", 10 * GIB, parent=1),
        Device(201, "MIG-b", "H100 MIG 3g.40gb", 40 * GIB, parent=1),
    )


@pytest.mark.parametrize("function", ["nvmlInitWithFlags", "nvmlDeviceGetUUID", "nvmlShutdown"])
def test_a_call_that_hangs_is_not_waited_for_and_nobody_calls_beside_it(double: NvmlDouble, function: str) -> None:
    double.write(Gpu("GPU-a"), hanging=[function], alone=True)
    script = """
from tinksched.host.nvml import discover
print([discover(0.2).problem for _ in '12'], flush=True)
input()
found = discover(60)
print(found.problem, [device.uuid for device in found.devices])
"""
    command = [sys.executable, "-W", "error", "-c", script]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment(double)
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == f"{['NVML has not answered for 0.2 s'] * 2}\n"
        double.write(Gpu("GPU-a"), alone=True)
        out, _ = child.communicate("\n", timeout=60)
    assert out == "None ['GPU-a']\n"


def test_a_process_ends_though_its_call_hangs(double: NvmlDouble) -> None:
    double.write(Gpu("GPU-a"), hanging=["nvmlDeviceGetCount_v2"])
    script = "from tinksched.host.nvml import discover; print(discover(0.1).driver)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, env=environment(double)
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "")


def test_a_name_that_is_no_text_is_unknown(double: NvmlDouble) -> None:
    double.state.write_bytes(b"gpu GPU-a 1024 0 \xff\xfe\n")
    found = discovered(double)
    assert found.devices == (Device(0, "GPU-a", None, 1024),)
    assert (found.problem or "").startswith("NVML fails for GPU 0 (")


def test_an_error_that_pynvml_does_not_know_is_a_problem(double: NvmlDouble) -> None:
    double.write(failures=[Failure("nvmlInitWithFlags", 77)])
    assert discovered(double) == Inventory((), driver=True, problem="NVML fails (An error of the double)")


@pytest.mark.parametrize("failures", [[], [Failure("nvmlDeviceGetCount_v2", LOST)]], ids=["works", "fails"])
def test_nvml_is_shut_down_after_each_call(double: NvmlDouble, failures: list[Failure]) -> None:
    double.write(Gpu("GPU-a"), failures=failures)
    script = """
import pynvml
from tinksched.host.nvml import discover
pynvml.nvmlInit()  # another user in this process keeps his
discover()
pynvml.nvmlSystemGetDriverVersion()
pynvml.nvmlShutdown()
try:
    pynvml.nvmlSystemGetDriverVersion()
except pynvml.NVMLError_Uninitialized:
    print("balanced")
"""
    child = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment(double)
    )
    assert child.stdout == "balanced\n"


def test_a_shutdown_that_fails_costs_nothing(double: NvmlDouble) -> None:
    double.write(Gpu("GPU-a"), failures=[Failure("nvmlShutdown", LOST)])
    found = discovered(double)
    assert [device.uuid for device in found.devices] == ["GPU-a"]
    assert found.problem is None


def test_the_double_refuses_a_line_that_it_does_not_know(double: NvmlDouble) -> None:
    double.state.write_text("gpu GPU-a lots 0 NVIDIA Double\n")
    assert discovered(double) == Inventory((), driver=True, problem="NVML fails (Unknown Error)")


def test_without_gcc_the_double_fails_loudly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeError, match="needs gcc"):
        compile_into(tmp_path)


def test_a_double_that_can_not_be_built_shows_the_compiler_s_words(tmp_path: Path) -> None:
    source = tmp_path / "broken.c"
    source.write_text("int nvmlInit(\n")
    with pytest.raises(RuntimeError, match=r"broken\.c"):
        compile_into(tmp_path, source)
