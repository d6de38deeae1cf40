"""Draws what status, gpus and explain show on a busy machine: python -m tests.gpu.picture FILE.svg

The machine is the double of NVML, the schedulers, runs and processes are real.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from tests.nvml_double import GIB, Gpu, NvmlDouble
from tests.picture import at_home
from tests.support import Bench, Lab
from tinksched.cli import gputables, render, tables
from tinksched.operations.occupancy import occupancy
from tinksched.operations.status import explain, status
from tinksched.operations.workspace import find

WIDTH = 138
# Holds as many GiB of its GPU as its config says.
TRAIN = """
import os, pathlib, signal, sys
memory = int(pathlib.Path(sys.argv[2]).read_text().split()[1]) << 30
mine = pathlib.Path(os.environ["NVML_DOUBLE_PROCESSES"], str(os.getpid()))
mine.write_text(f"process {os.environ['CUDA_VISIBLE_DEVICES']} compute {os.getpid()} {memory}\\n")
signal.pause()
"""


def draw(picture: Path) -> None:
    """Make the machine, and write what it looks like."""
    with tempfile.TemporaryDirectory() as folder:
        lab = Lab(Path(folder))
        other = Path(folder, "finetune.py")
        other.write_text("import signal\nsignal.pause()\n")
        stranger = subprocess.Popen(["python3", other.name], cwd=folder)
        try:
            bench = _busy(lab, stranger.pid)
            words = [sys.executable, "-m", "tests.gpu.picture", str(bench.folder), str(picture)]
            subprocess.run(words, env={**lab.environment, "PYTHONPATH": "."}, check=True)
            bench.run("kill-all")
        finally:
            stranger.kill()
            stranger.wait()
            lab.close()


def _busy(lab: Lab, stranger: int) -> Bench:
    double = NvmlDouble(lab.folder)
    lab.environment.update(double.environment())
    name = "NVIDIA H100 80GB HBM3"
    double.write(
        Gpu("GPU-5f1c", name, utilization=97, temperature=64, power=612.0, links=(1,)),
        Gpu("GPU-8b20", name, utilization=88, temperature=61, power=540.0, links=(0,)),
    )
    double.hold(stranger, 22 * GIB, index=1)
    settings = {"max_jobs_per_gpu": 3, "min_free_memory": "30GiB", "check_interval": 0.5}
    bench = lab.workspace("llm", gpu_count="auto", script_path="train.py", python_env=sys.executable, **settings)
    bench.reconfigure(task_name="llm", tasks={"probe_*": {"min_free_memory": "8GiB"}})
    (bench.folder / "train.py").write_text(TRAIN)
    for task, memory in (("base", 34), ("probe_1", 6), ("long_context", 30), ("wide", 30)):
        bench.add(f"{task}.yml", f"memory: {memory}")
    bench.run("start")
    bench.wait_until(lambda: all(_has_memory(bench, task) for task in ("base", "probe_1", "long_context")), "memory")
    return bench


def _has_memory(bench: Bench, task: str) -> bool:
    return bool((bench.tasks()[task]["usage"] or {}).get("gpu_memory"))


def _show(workspace: Path, picture: Path) -> None:
    console = Console(
        record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor", highlight=False
    )
    found = find(workspace, None)
    now = status(found)
    waiting = next(task.name for task in now.tasks if task.state == "queued")
    task, sentences = explain(found, waiting)
    for command, parts in (
        ("tinksched status", tables.status(now, signs=True)),
        ("tinksched gpus", gputables.occupancy(occupancy(), width=WIDTH)),
    ):
        console.print(f"[bold]$[/bold] {command}")
        for part in parts:
            console.print(render.rich_part(at_home(part, workspace.parent)))
        console.print()
    console.print(f"[bold]$[/bold] tinksched explain {waiting}")
    console.print(f"{task.name}: {task.state}", *(f"  {line}" for line in sentences[:1]), sep="\n")
    console.save_svg(str(picture), title="tinksched")


if __name__ == "__main__":
    if len(sys.argv) == 2:
        draw(Path(sys.argv[1]).resolve())
    else:
        _show(Path(sys.argv[1]), Path(sys.argv[2]))
