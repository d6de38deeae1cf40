"""A small real `libnvidia-ml.so.1`, so that tests need neither a GPU nor a mock. Its limits: nvml_double.c.

    double = NvmlDouble(tmp_path)
    double.write(Gpu("GPU-a"), Gpu("GPU-b"))
    subprocess.run(..., env={**os.environ, **double.environment()})
    double.write(Gpu("GPU-a"))          # the child sees one GPU from its next call on

The library is chosen when a process starts, by LD_LIBRARY_PATH: it works for child processes only.
"""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).with_name("nvml_double.c")
SONAME = "libnvidia-ml.so.1"


@dataclass(frozen=True)
class Gpu:
    """One GPU of the double; memory in bytes, no blanks in the UUID."""

    uuid: str
    name: str = "NVIDIA Double"
    memory_total: int = 80 * 2**30
    memory_used: int = 0


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
        self.library = library or compiled()

    def write(self, *gpus: Gpu, failures: Iterable[Failure] = ()) -> None:
        """Replace all GPUs and failures at once: a reader sees the old or the new ones, never a part."""
        lines = [f"gpu {gpu.uuid} {gpu.memory_total} {gpu.memory_used} {gpu.name}" for gpu in gpus]
        lines += [f"fail {f.function} {f.code} {'' if f.index is None else f.index}" for f in failures]
        aside = self.state.with_suffix(".new")
        aside.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        aside.replace(self.state)

    def environment(self) -> dict[str, str]:
        """What a child process needs in addition to this process's environment."""
        paths = [str(self.library), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
        return {"LD_LIBRARY_PATH": os.pathsep.join(paths), "NVML_DOUBLE_STATE": str(self.state)}


@functools.cache
def compiled() -> Path:
    """The folder with the double, built once a process and removed at its end."""
    folder = Path(tempfile.mkdtemp(prefix="nvml-double-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return compile_into(folder)


def compile_into(folder: Path, source: Path = SOURCE) -> Path:
    """Build a libnvidia-ml.so.1 in `folder` and return the folder. Raises RuntimeError if that can't be done."""
    command = ["gcc", "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", f"-Wl,-soname,{SONAME}"]
    try:
        built = subprocess.run(
            [*command, "-o", folder / SONAME, "-x", "c", source], capture_output=True, text=True, check=False
        )
    except FileNotFoundError as error:
        raise RuntimeError("the double of NVML needs gcc (Debian: apt-get install gcc libc6-dev)") from error
    if built.returncode:
        raise RuntimeError(f"the double of NVML could not be built:\n{built.stderr}")
    return folder
