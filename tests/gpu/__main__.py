"""The checks. Each works in a laboratory of its own, on the GPU that the variable GPU names (an index; default 0)."""

from __future__ import annotations

import datetime
import getpass
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support import Bench, Gate, Lab
from tinksched.host import nvml

RESULTS = Path(__file__).with_name("RESULTS.md")
TRAIN = Path(__file__).with_name("train.py")
GPU = int(os.environ.get("GPU", "0"))
GIB = 2**30
CONTEXT = GIB  # what CUDA itself takes in each process, at most
SECONDS = 120.0
PASSED_ON = ("LD_LIBRARY_PATH", "CUDA_HOME", "NVML_DOUBLE_STATE", "NVML_DOUBLE_PROCESSES")


class Wrong(Exception):
    """Something is not as it should be."""


def expect(true: object, what: str) -> None:
    if not true:
        raise Wrong(what)


class Place:
    """A workspace for the GPU, and what tasks wait on there."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.lab = Lab(folder)
        self.lab.environment.update({name: os.environ[name] for name in PASSED_ON if name in os.environ})
        self.bench = self.lab.workspace(
            gpu_count="auto", use_gpus=[GPU], python_env=sys.executable, script_path=str(TRAIN), check_interval=1,
            **settings,
        )  # fmt: skip

    def add(self, task: str, size: int) -> Gate:
        """A task that holds so many bytes until its gate is opened."""
        gate = self.bench.gate(f"{task}.gate")
        self.bench.add(f"{task}.yml", config(self.bench.folder, task, size, gate.path))
        return gate

    def wait_for(self, *tasks: str) -> None:
        """Until these hold their memory."""
        paths = [self.bench.folder / f"{task}.ready" for task in tasks]
        self.bench.wait_until(lambda: all(path.exists() for path in paths), f"the start of {tasks}", SECONDS)

    def gpu(self) -> dict[str, Any]:
        """What `tinksched gpus` says of the GPU."""
        found = json.loads(self.bench.run("gpus", "--json").out)["gpus"]
        gpu: dict[str, Any] = next(gpu for gpu in found if gpu["index"] == GPU)
        return gpu


def config(folder: Path, task: str, size: int, gate: Path) -> str:
    return f"bytes: {size}\nready: {folder / f'{task}.ready'}\ngate: {gate}\n"


@contextmanager
def place(**settings: Any) -> Iterator[Place]:
    with tempfile.TemporaryDirectory(prefix="tinksched-gpu-") as folder:
        found = Place(Path(folder), **settings)
        try:
            yield found
        finally:
            found.lab.close()


def smi(*query: str) -> list[list[str]]:
    """The rows of an `nvidia-smi` query."""
    command = ["nvidia-smi", f"--id={GPU}", *query, "--format=csv,noheader,nounits"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return [[cell.strip() for cell in line.split(",")] for line in done.stdout.splitlines() if line.strip()]


# ---------------------------------------------------------------- the checks


def two_tasks_share_the_gpu() -> str:
    with place(max_jobs_per_gpu=2, min_free_memory="1GiB") as here:
        gates = [here.add("small", GIB), here.add("large", 2 * GIB)]
        here.bench.run("start")
        here.wait_for("small", "large")
        gpu = here.gpu()
        processes = gpu["state"]["processes"]
        expect(processes is not None, "in a container without the host's pids the processes can't be told apart")
        tasks = {holder["run"]: holder["task"] for holder in gpu["holders"]}
        memory = {tasks.get(one["run"]): one["memory"] for one in processes if one["run"]}
        expect(set(memory) == {"small", "large"}, f"the memory of both runs is seen: {memory}")
        for task, size in (("small", GIB), ("large", 2 * GIB)):
            expect(size <= memory[task] <= size + CONTEXT, f"{task} holds {size} bytes, and {memory[task]} are seen")
        shown = here.bench.run("gpus").out
        for gate in gates:
            gate.open()
        here.bench.wait_for_states(SECONDS, small="completed", large="completed")
        return shown


def nvidia_smi_agrees() -> str:
    with place() as here:
        gate = here.add("task", 2 * GIB)
        here.bench.run("start")
        here.wait_for("task")
        gpu, ((uuid, name, total, used),) = here.gpu(), smi("--query-gpu=uuid,name,memory.total,memory.used")
        state = gpu["state"]
        expect((gpu["uuid"], gpu["name"]) == (uuid, name), f"the same GPU: {gpu['uuid']} {gpu['name']}, {uuid} {name}")
        for what, mine, theirs in (("total", state["memory"]["total"], total), ("used", state["memory"]["used"], used)):
            expect(abs(mine / 2**20 - int(theirs)) <= 32, f"memory {what}: {mine / 2**20:.0f} MiB, nvidia-smi {theirs}")
        listed = {int(pid): int(size) for pid, size in smi("--query-compute-apps=pid,used_memory") if size.isdecimal()}
        mine = {one["pid"]: one["memory"] / 2**20 for one in state["processes"] or [] if one["compute"]}
        expect(set(mine) == set(listed), f"the same processes: {sorted(mine)}, nvidia-smi {sorted(listed)}")
        expect(all(abs(mine[pid] - size) <= 32 for pid, size in listed.items()), f"their memory: {mine}, {listed}")
        gate.open()
        here.bench.wait_for_states(SECONDS, task="completed")
        return f"nvidia-smi: {uuid}, {name}, {used} of {total} MiB, processes {listed}"


def a_foreign_process_is_respected() -> str:
    with place() as here:
        folder = here.bench.folder
        text = folder / "stranger.yml"
        text.write_text(config(folder, "stranger", GIB, here.bench.gate("stranger").path))
        stranger = subprocess.Popen([sys.executable, TRAIN, "--config_path", text], stdout=subprocess.DEVNULL)
        try:
            here.wait_for("stranger")
            here.add("task", GIB).open()
            here.bench.run("start")
            waits = here.bench.tasks()["task"]
            said = waits["reason"]["text"] if waits["reason"] else ""
            expect(waits["state"] == "queued", f"the task waits, and is {waits['state']}")
            expect(getpass.getuser() in said and str(stranger.pid) in said, f"the reason names the process: {said}")
        finally:
            stranger.kill()
            stranger.wait()
        here.bench.wait_for_states(SECONDS, task="completed")
        return f"while it waited: {said}"


def out_of_memory_is_tried_again() -> str:
    total = here_total()
    settings: dict[str, Any] = {
        "auto_restart_failed": True,
        "retry_on": ["oom"],
        "retry_delay": 1,
        "max_jobs_per_gpu": 2,
    }
    with place(**settings) as here:
        gate = here.add("first", total * 6 // 10)
        here.bench.run("start", "first.yml")
        here.wait_for("first")
        here.add("second", total * 6 // 10).open()
        here.bench.run("start")
        here.bench.wait_until(lambda: failed_once(here.bench), "the first attempt of second", SECONDS)
        waits = here.bench.run("explain", "second").out
        gate.open()
        here.bench.wait_for_states(SECONDS, first="completed", second="completed")
        attempt = here.bench.tasks()["second"]["attempt"]
        expect(attempt == 2, f"the second attempt waited for the memory, but there were {attempt}")
        return f"after the first attempt: {waits}"


def here_total() -> int:
    ((total,),) = smi("--query-gpu=memory.total")
    return int(total) * 2**20


def failed_once(bench: Bench) -> bool:
    task = bench.tasks()["second"]
    return bool(task["state"] == "queued" and task["attempt"] == 1)


CHECKS: tuple[Callable[[], str], ...] = (
    two_tasks_share_the_gpu,
    nvidia_smi_agrees,
    a_foreign_process_is_respected,
    out_of_memory_is_tried_again,
)


# ---------------------------------------------------------------- the report


def missing() -> str | None:
    """What this machine lacks; None if the checks can be made."""
    found = nvml.discover()
    if not found.driver or not found.devices:
        return f"there is no NVIDIA GPU here ({found.problem or 'no driver'})"
    if GPU not in [device.index for device in found.devices if not device.divided]:
        return f"there is no GPU {GPU} that could be used"
    lacks = [program for program in ("nvidia-smi", "tmux", "flock") if shutil.which(program) is None]
    lacks += ["PyTorch"] if importlib.util.find_spec("torch") is None else []
    return f"there is no {', '.join(lacks)} here" if lacks else None


def main() -> int:
    why = missing()
    if why is not None:
        print(f"tests/gpu: {why}; nothing was checked, and RESULTS.md stays as it is", file=sys.stderr)
        return 3
    parts, failed = [_heading()], 0
    for check in CHECKS:
        began, name = time.monotonic(), check.__name__.replace("_", " ")
        try:
            output, verdict = check(), "as it should be"
        except (Wrong, AssertionError, subprocess.SubprocessError, KeyError, ValueError) as error:
            output, verdict, failed = str(error) or type(error).__name__, "WRONG", failed + 1
        took = time.monotonic() - began
        print(f"{name}: {verdict} ({took:.0f} s)", flush=True)
        parts.append(f"## {name.capitalize()}: {verdict} ({took:.0f} s)\n\n```\n{output.strip()}\n```\n")
    RESULTS.write_text("\n".join(parts))
    return 1 if failed else 0


def _heading() -> str:
    found = nvml.discover()
    device = next(device for device in found.devices if device.index == GPU)
    torch = subprocess.run(
        [sys.executable, "-c", "import torch; print(torch.__version__, 'CUDA', torch.version.cuda)"],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    when = datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    return f"# Checks on a real GPU\n\n{when}: {device.name}, driver {found.version}, PyTorch {torch}.\n"


if __name__ == "__main__":
    sys.exit(main())
