"""Draws what watch shows on a busy machine: python -m tests.gpu.watch FILE.svg

The machine is the double of NVML, the scheduler, the runs and the processes are real. Only the minutes are short: a
mark of the curves stands for half a second.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.nvml_double import GIB, Gpu, NvmlDouble
from tests.support import Bench, Lab
from tinksched.cli.watchapp import Watch
from tinksched.operations import live
from tinksched.operations.workspace import find

SIZE = (100, 28)
SECONDS = 25.0
NAME = "NVIDIA H100 80GB HBM3"
# Holds as many GiB of its GPU as its config says, and says how it gets on; or fails.
TRAIN = """
import math, os, pathlib, signal, sys, time
words = dict(line.split(": ") for line in pathlib.Path(sys.argv[2]).read_text().splitlines())
if "epochs" in words:
    raise SystemExit(int(words["epochs"]))
mine = pathlib.Path(os.environ["NVML_DOUBLE_PROCESSES"], str(os.getpid()))
memory = int(words["memory"]) << 30
mine.write_text(f"process {os.environ['CUDA_VISIBLE_DEVICES']} compute {os.getpid()} {memory}\\n")
print(f"model: 7 B parameters, {memory >> 30} GiB on GPU {os.environ['CUDA_VISIBLE_DEVICES']}")
for step in range(10, 100_000, 10):
    print(f"step {step:6}  loss {2.1 + 6 * math.exp(-step / 300):.4f}  lr 3.0e-04  {51_200 + step % 70} tokens/s")
    time.sleep(0.4)
"""


def draw(picture: Path) -> None:
    """Make the machine, let it work for a while, and write what it looks like."""
    with tempfile.TemporaryDirectory() as folder:
        lab = Lab(Path(folder))
        other = Path(folder, "finetune.py")
        other.write_text("import signal\nsignal.pause()\n")
        stranger = subprocess.Popen(["python3", other.name], cwd=folder)
        try:
            double = NvmlDouble(lab.folder)
            lab.environment.update(double.environment())
            _work(double, 0)
            double.hold(stranger.pid, 22 * GIB, index=1)
            bench = _begin(lab)
            words = [sys.executable, "-m", "tests.gpu.watch", str(bench.folder), str(picture)]
            with subprocess.Popen(words, env={**lab.environment, "PYTHONPATH": "."}) as artist:
                for step in itertools.count():
                    if artist.poll() is not None:
                        break
                    _work(double, step)
                    time.sleep(0.25)
            bench.run("kill-all")
        finally:
            stranger.kill()
            stranger.wait()
            lab.close()


def _work(double: NvmlDouble, step: int) -> None:
    """The GPUs are used now more, now less."""
    first = 88 + 10 * math.sin(step / 9) - (70 if step % 40 > 35 else 0)
    second = 45 + 40 * math.sin(step / 6)
    double.write(
        Gpu("GPU-5f1c", NAME, utilization=round(max(0, min(100, first)))),
        Gpu("GPU-8b20", NAME, utilization=round(max(0, second))),
    )


def _begin(lab: Lab) -> Bench:
    settings = {"max_jobs_per_gpu": 3, "min_free_memory": "30GiB", "check_interval": 0.5}
    bench = lab.workspace("llm", gpu_count="auto", script_path="train.py", python_env=sys.executable, **settings)
    bench.reconfigure(task_name="llm", tasks={"probe_*": {"min_free_memory": "2GiB"}})
    (bench.folder / "train.py").write_text(TRAIN)
    for task, words in {
        "probe_0": "epochs: 0", "probe_1": "epochs: 3", "base": "memory: 34", "long_context": "memory: 30",
        "probe_2": "memory: 6", "wide": "memory: 30", "wide_lr3e-4": "memory: 30", "wide_lr1e-4": "memory: 30",
    }.items():  # fmt: skip
        bench.add(f"{task}.yml", words)
    bench.run("start", "probe_0.yml,probe_1.yml")
    bench.wait_for_states(probe_0="completed", probe_1="failed")
    bench.run("start", "base.yml,long_context.yml,probe_2.yml,wide.yml,wide_lr3e-4.yml,wide_lr1e-4.yml")
    bench.wait_for_states(base="running", long_context="running", probe_2="running")
    return bench


async def _show(workspace: Path, picture: Path) -> None:
    live.BUCKET_SECONDS = live.SAMPLE_SECONDS = 0.5
    app = Watch(find(workspace, None))
    async with app.run_test(size=SIZE) as pilot:
        await pilot.pause(SECONDS)
        picture.write_text(app.export_screenshot(title="tinksched watch"))
    if app.failure is not None:
        raise app.failure


if __name__ == "__main__":
    if len(sys.argv) == 2:
        draw(Path(sys.argv[1]).resolve())
    else:
        asyncio.run(_show(Path(sys.argv[1]), Path(sys.argv[2])))
