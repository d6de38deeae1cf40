"""A small real `libnvidia-ml.so.1`, so that tests need neither a GPU nor a mock. Its limits: nvml_double.c.

    double = NvmlDouble(tmp_path)
    double.write(Gpu("GPU-a", utilization=90, processes=(Process(pid, 2 * GIB),)), Gpu("GPU-b", links=(0,)))
    subprocess.run(..., env={**os.environ, **double.environment()})      # or lab.environment.update(...)
    double.write(Gpu("GPU-a"))                                           # the child sees one GPU from its next call on

A GPU uses `memory_used` and what its processes hold. What is None is "not supported". Failures and hanging calls:

    double.write(*gpus, failures=[Failure("nvmlDeviceGetMemoryInfo_v2", LOST, index=0)])
    double.write(*gpus, hanging=["nvmlDeviceGetUUID"])                   # blocks until it is written without

A program that plays a user of a GPU says so itself, for as long as it lives, by a file in a folder that its environment
names. One line: `process INDEX KIND PID MEMORY`. In sh:

    echo "process 0 compute $$ 1000000" >"$NVML_DOUBLE_PROCESSES/$$"     # written again: it holds something else now

and from a test: `double.hold(pid, memory, index=0)`.

MIG: `Gpu("GPU-a", mig=True, instances=(Mig("MIG-a", ...),))`. Wherever an index is asked for, the instance is number
100 * (index of its GPU + 1) + its place among the instances.

The library is chosen when a process starts, by LD_LIBRARY_PATH: it works for child processes only.
"""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

SOURCE = Path(__file__).with_name("nvml_double.c")
SONAME = "libnvidia-ml.so.1"
GIB = 2**30
LOST = 15  # NVML_ERROR_GPU_IS_LOST


@dataclass(frozen=True)
class Process:
    """A process that is listed on a GPU, whether it lives or not. Memory in bytes; None is "not available"."""

    pid: int
    memory: int | None = 0
    kind: Literal["compute", "graphics", "both"] = "compute"


@dataclass(frozen=True)
class Mig:
    """A MIG instance; memory in bytes."""

    uuid: str
    name: str = "NVIDIA Double MIG 1g.10gb"
    memory_total: int = 10 * GIB
    memory_used: int = 0
    processes: tuple[Process, ...] = ()


@dataclass(frozen=True)
class Gpu:
    """One GPU of the double; memory in bytes, power in watts, no blanks in the UUID. What is None isn't supported."""

    uuid: str
    name: str = "NVIDIA Double"
    memory_total: int = 80 * GIB
    memory_used: int = 0
    processes: tuple[Process, ...] = ()
    utilization: int | None = None
    temperature: int | None = None
    power: float | None = None
    numa: int | None = None
    links: tuple[int, ...] = ()
    """The indices of the GPUs that it is linked to by NVLink; each of them must say so as well."""
    mig: bool | None = None
    persistence: bool | None = None
    instances: tuple[Mig, ...] = ()


@dataclass(frozen=True)
class Failure:
    """The C function (`nvmlDeviceGetUUID`, not pynvml's name) returns this code: always, or for one GPU only."""

    function: str
    code: int
    index: int | None = None


class NvmlDouble:
    """A machine's driver: `folder` keeps its state, which is that of a driver not loaded until `write` is called."""

    def __init__(self, folder: Path, *, library: Path | None = None) -> None:
        """`library` is the folder of another libnvidia-ml.so.1, as `compile_into` returns it."""
        self.state = folder / "nvml.state"
        self.processes = folder / "nvml.processes"
        self.processes.mkdir(exist_ok=True)
        self.library = library or compiled()

    def write(
        self, *gpus: Gpu, failures: Iterable[Failure] = (), hanging: Iterable[str] = (), alone: bool = False
    ) -> None:
        """Replace everything at once: a reader sees the old or the new machine, never a part.

        `hanging` are C functions that do not return until this is called without them, each may be followed by a GPU's
        index (`nvmlDeviceGetUUID 0`). With `alone` two calls at the same time abort the process that makes them.
        """
        lines = [line for index, gpu in enumerate(gpus) for line in _lines(index, gpu)]
        lines += [f"fail {f.function} {f.code} {'' if f.index is None else f.index}" for f in failures]
        lines += [f"hang {function}" for function in hanging]
        lines += ["alone"] if alone else []
        aside = self.state.with_suffix(".new")
        aside.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        now = time.time_ns()  # the file's own clock may stand still between two writes, and readers go by it
        os.utime(aside, ns=(now, now))
        aside.replace(self.state)

    def hold(self, pid: int, memory: int, *, index: int = 0, kind: str = "compute") -> None:
        """The living process `pid` holds this many bytes of a GPU from now on, in place of what it held before."""
        (self.processes / str(pid)).write_text(f"process {index} {kind} {pid} {memory}\n")

    def environment(self) -> dict[str, str]:
        """What a child process needs in addition to this process's environment."""
        paths = [str(self.library), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
        return {
            "LD_LIBRARY_PATH": os.pathsep.join(paths),
            "NVML_DOUBLE_STATE": str(self.state),
            "NVML_DOUBLE_PROCESSES": str(self.processes),
        }


def _lines(index: int, gpu: Gpu) -> Iterator[str]:
    """A GPU as the state file has it."""
    yield f"gpu {gpu.uuid} {gpu.memory_total} {gpu.memory_used} {gpu.name}"
    fields = {
        "utilization": gpu.utilization,
        "temperature": gpu.temperature,
        "power": None if gpu.power is None else round(gpu.power * 1000),
        "numa": gpu.numa,
        "mig": None if gpu.mig is None else int(gpu.mig),
        "persistence": None if gpu.persistence is None else int(gpu.persistence),
    }
    yield from (f"has {name} {value}" for name, value in fields.items() if value is not None)
    yield from (f"has link {other}" for other in gpu.links)
    for place, mig in enumerate(gpu.instances):
        yield f"mig {index} {mig.uuid} {mig.memory_total} {mig.memory_used} {mig.name}"
        yield from (_line(100 * (index + 1) + place, process) for process in mig.processes)
    yield from (_line(index, process) for process in gpu.processes)


def _line(number: int, process: Process) -> str:
    return f"process {number} {process.kind} {process.pid} {-1 if process.memory is None else process.memory}"


@functools.cache
def compiled() -> Path:
    """The folder with the double, built once a process and removed at its end."""
    folder = Path(tempfile.mkdtemp(prefix="nvml-double-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return compile_into(folder)


def compile_into(folder: Path, source: Path = SOURCE) -> Path:
    """Build a libnvidia-ml.so.1 in `folder` and return the folder. Raises RuntimeError if that can't be done."""
    command = ["gcc", "-shared", "-fPIC", "-pthread", "-O1", "-Wall", "-Wextra", f"-Wl,-soname,{SONAME}"]
    try:
        built = subprocess.run(
            [*command, "-o", folder / SONAME, "-x", "c", source], capture_output=True, text=True, check=False
        )
    except FileNotFoundError as error:
        raise RuntimeError("the double of NVML needs gcc (Debian: apt-get install gcc libc6-dev)") from error
    if built.returncode:
        raise RuntimeError(f"the double of NVML could not be built:\n{built.stderr}")
    return folder
