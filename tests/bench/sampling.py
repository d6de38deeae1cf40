"""What one round of looking costs a scheduler: eight GPUs of the NVML double, eight runs on each."""

from __future__ import annotations

import subprocess
import sys
import time
from types import MappingProxyType

from ..nvml_double import Gpu, NvmlDouble, Process
from .place import BenchError, Corner, Place
from .proc import cpu_seconds
from .results import Results, say
from .systems import LONG, Tinksched, names

GPUS, SLOTS = 8, 8
INTERVAL = 1.0  # seconds between the rounds
WINDOW = 10  # rounds in one sample: the kernel counts processor time in hundredths of a second
PATIENCE = 120.0
DOUBLE = "the double's own answers"
ASK = """
import sys, time
import pynvml
gpus, rounds = map(int, sys.argv[1:])
pynvml.nvmlInit()
handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(gpus)]
begun = time.process_time()
for handle in handles * rounds:
    pynvml.nvmlDeviceGetMemoryInfo(handle, pynvml.nvmlMemory_v2)
    pynvml.nvmlDeviceGetComputeRunningProcesses_v3(handle)
    pynvml.nvmlDeviceGetGraphicsRunningProcesses_v3(handle)
print((time.process_time() - begun) / rounds)
"""
FOREIGN = 1  # a process of nobody's run, which the scheduler looks up each time
# A run says itself that it is on its GPU, then becomes the task.
RUN = 'echo "process $CUDA_VISIBLE_DEVICES compute $$ 1000000" >"$NVML_DOUBLE_PROCESSES/$$"; exec "$@"'


class Sampled(Tinksched):
    """This one, looking as often as every second."""

    settings = MappingProxyType({"gpu_count": GPUS, "check_interval": f"{INTERVAL:g}s", "ignore_processes": ["*"]})


def sampling(place: Place, results: Results, windows: int) -> None:
    """Everything that the scheduler does once every `check_interval`, its children included."""
    with place.corner("sampling") as corner:
        double = NvmlDouble(corner.folder)
        double.write(
            *(Gpu(f"GPU-{index}", utilization=50, processes=(Process(FOREIGN, 2**20),)) for index in range(GPUS))
        )
        record = corner.record()
        command = ["sh", "-c", RUN, "run", *place.task, str(record.path), LONG]
        folder = Sampled().workspace(corner, command, SLOTS, names("t", GPUS * SLOTS))
        say(f"sampling: {GPUS * SLOTS} runs on {GPUS} GPUs")
        corner.call("tinksched", "start", "--workspace", folder, extra=double.environment())
        _await_runs(corner, double)
        scheduler = Sampled().service(corner)
        for _ in range(windows):
            cpu = cpu_seconds(scheduler)
            time.sleep(WINDOW * INTERVAL)
            whole, double_alone = (cpu_seconds(scheduler) - cpu) / WINDOW, _answers(corner, double)
            results.add("sampling", DOUBLE, [double_alone])
            results.add("sampling", "tinksched with them", [whole])
            results.add("sampling", "tinksched", [whole - double_alone])


def _answers(corner: Corner, double: NvmlDouble) -> float:
    """Seconds of processor time that the double takes for the answers of one round, whoever asks."""
    environment = {**corner.environment, **double.environment()}
    asked = subprocess.run(
        [sys.executable, "-c", ASK, str(GPUS), str(WINDOW)], env=environment, capture_output=True, text=True
    )
    if asked.returncode:
        raise BenchError(f"the double does not answer: {asked.stderr}")
    return float(asked.stdout)


def _await_runs(corner: Corner, double: NvmlDouble) -> None:
    """Until NVML lists every run, and one more round has gone by."""
    until = time.monotonic() + PATIENCE
    while len(list(double.processes.iterdir())) < GPUS * SLOTS:
        if time.monotonic() > until:
            raise BenchError(f"not all of {GPUS * SLOTS} runs began within {PATIENCE:.0f} s")
        time.sleep(0.1)  # nothing says when
    time.sleep(5 * INTERVAL)
