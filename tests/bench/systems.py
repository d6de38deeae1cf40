"""The systems under comparison: how each is given tasks, and what of it runs.

Each has `run` (a batch from nothing to its last task), and those with a queue have `queue` (tasks that wait).
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from .measure import Span
from .place import BenchError, Corner
from .results import Results, say

LONG = "3600"  # seconds; nobody waits for these tasks
LAUNCH = 2.5  # seconds, more than gflow's longest launch
PORTION = 1000  # jobs in one array: gflow takes no more
STARTING = 20.0  # seconds that a daemon may take to begin


@dataclass(frozen=True, slots=True)
class Batch:
    """So many tasks of so many seconds on so many slots."""

    count: int
    seconds: float
    slots: int


@dataclass(frozen=True, slots=True)
class Ran:
    """What a batch did: when its first command was about to be given, and what the tasks wrote down."""

    begun: float
    spans: list[Span]


@dataclass(slots=True)
class Queue:
    """A system whose slots are all taken, with the command or commands that queue more, and those that list them."""

    enqueue: Sequence[Sequence[str]]
    lists: Mapping[str, Sequence[str]]
    extra: dict[str, str] = field(default_factory=dict)


class System:
    """What all have in common."""

    name = ""
    programs: tuple[str, ...] = ()
    package = ""  # what to install
    most: int | None = None  # tasks in a batch, where a system is too slow for the whole of it
    most_at_once: int | None = None  # the same where they end at once
    seconds: float | None = None  # how long a task takes, where not as long as those of the others
    queues_at_most: int | None = None  # tasks that may wait
    is_peer = True

    @contextlib.contextmanager
    def spared(self, results: Results, what: str) -> Iterator[None]:
        """A peer that fails is named in the report, and the others go on."""
        try:
            yield
        except BenchError as error:
            if not self.is_peer:
                raise
            say(f"{what}: {self.name} failed: {error}")
            results.note(f"**{self.name} failed in {what}: {str(error).splitlines()[0]}.**")

    def missing(self) -> str | None:
        """Why it can't be measured here; None if it can."""
        gone = [program for program in self.programs if not shutil.which(program)]
        return f"not measured: {', '.join(gone)} not found ({self.package})" if gone else None

    def run(self, corner: Corner, batch: Batch) -> Ran:
        """Do a whole batch from nothing."""
        raise NotImplementedError

    @contextlib.contextmanager
    def queue(self, corner: Corner, count: int, slots: int) -> Iterator[Queue]:
        """All slots taken by long tasks, and `count` more about to be queued."""
        raise NotImplementedError

    def service(self, corner: Corner) -> int:
        """The pid of what decides: scheduler, daemon or server."""
        raise NotImplementedError


class Tinksched(System):
    """This one. One GPU with all the slots, so that it runs on every machine."""

    name = "tinksched"
    programs = ("tinksched", "tmux")
    is_peer = False
    executor = "tmux"
    settings: Mapping[str, object] = MappingProxyType({})

    def workspace(self, corner: Corner, command: Sequence[str], slots: int, names: Sequence[str]) -> Path:
        """A workspace with these tasks, which all run one command."""
        folder = corner.folder / "ws"
        (folder / "configs").mkdir(parents=True)
        for name in names:
            (folder / "configs" / f"{name}.yml").touch()
        values: dict[str, object] = {
            "task_name": "b",
            "command": list(command),
            "gpu_count": 1,
            "max_jobs_per_gpu": slots,
            "executor": self.executor,
            **self.settings,
        }
        lines = [f"{key}: {json.dumps(value)}\n" for key, value in values.items()]  # JSON is YAML
        (folder / "scheduler_config.yml").write_text("".join(lines))
        return folder

    def run(self, corner: Corner, batch: Batch) -> Ran:
        record = corner.record()
        command = [*corner.place.task, os.fspath(record.path), str(batch.seconds)]
        folder = self.workspace(corner, command, batch.slots, names("t", batch.count))
        begun = time.monotonic()
        corner.call("tinksched", "start", "--workspace", folder)
        return Ran(begun, record.read(batch.count))

    @contextlib.contextmanager
    def queue(self, corner: Corner, count: int, slots: int) -> Iterator[Queue]:
        command = [*corner.place.task, os.fspath(corner.record().path), LONG]
        folder = self.workspace(corner, command, slots, names("a", slots))
        at = ("--workspace", os.fspath(folder))
        corner.call("tinksched", "start", *at)
        for name in names("t", count):
            (folder / "configs" / f"{name}.yml").touch()
        lists = {
            "tinksched status": ("tinksched", "status", *at),
            "tinksched status --json": ("tinksched", "status", "--json", *at),
        }
        yield Queue([("tinksched", "start", *at)], lists)

    def service(self, corner: Corner) -> int:
        return _one(corner, "serve-workspace")


class TinkschedLocal(Tinksched):
    """This one without tmux."""

    name = "tinksched, executor: local"
    executor = "local"


class TaskSpooler(System):
    """https://viric.name/soft/ts/, as Debian has it. A task that waits is a process and a connection."""

    name = "task-spooler"
    programs = ("tsp",)
    package = "apt install task-spooler"
    queues_at_most = 980  # its server serves no more than about 995 connections, whatever TS_MAXCONN says

    def run(self, corner: Corner, batch: Batch) -> Ran:
        record = corner.record()
        extra = {"TS_SLOTS": str(batch.slots)}
        begun = time.monotonic()
        for _ in range(batch.count):
            corner.call("tsp", "-n", *corner.place.task, record.path, str(batch.seconds), extra=extra)
        return Ran(begun, record.read(batch.count))

    @contextlib.contextmanager
    def queue(self, corner: Corner, count: int, slots: int) -> Iterator[Queue]:
        task = ("tsp", "-n", *corner.place.task, os.fspath(corner.record().path), LONG)
        extra = {"TS_SLOTS": str(slots)}
        for _ in range(slots):
            corner.call(*task, extra=extra)
        yield Queue([task] * count, {"tsp": ("tsp",)}, extra)

    def service(self, corner: Corner) -> int:
        return min(pid for pid, line in corner.processes().items() if line.startswith("tsp"))


class SimpleGpuScheduler(System):
    """https://pypi.org/project/simple-gpu-scheduler/: reads commands from its input; it keeps no queue and no state."""

    name = "simple-gpu-scheduler"
    programs = ("simple_gpu_scheduler",)
    package = "pip install simple-gpu-scheduler"

    def run(self, corner: Corner, batch: Batch) -> Ran:
        record = corner.record()
        line = " ".join([*corner.place.task, str(record.path), str(batch.seconds)]) + "\n"  # our own paths: no blanks
        ids = [str(number) for number in range(batch.slots)]
        begun = time.monotonic()
        with subprocess.Popen(
            ["simple_gpu_scheduler", "--gpus", *ids], env=corner.environment, stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL, text=True,
        ) as process:  # fmt: skip
            process.communicate(line * batch.count)
        return Ran(begun, record.read(batch.count))


class Gflow(System):
    """https://pypi.org/project/runqd/. It launches one task a second, so it gets fewer of them."""

    name = "gflow"
    programs = ("gflowd", "gbatch", "gqueue", "gcancel", "tmux")
    package = "pip install runqd"
    most = 24
    most_at_once = 8

    def run(self, corner: Corner, batch: Batch) -> Ran:
        record = corner.record()
        self._start(corner)
        begun = time.monotonic()
        corner.call(*self._array(corner, batch.count, batch.slots, record.path, str(batch.seconds)))
        return Ran(begun, record.read(batch.count))

    @contextlib.contextmanager
    def queue(self, corner: Corner, count: int, slots: int) -> Iterator[Queue]:
        record = corner.record().path
        self._start(corner)
        corner.call("gctl", "quota", "set", "--default-user", "--max-running-jobs", str(slots))
        corner.call(*self._array(corner, slots, slots, record, LONG))
        while sum(os.fspath(record) in line for line in corner.processes().values()) < slots:
            time.sleep(0.2)  # one a second; nothing says when
        time.sleep(LAUNCH)  # it answers nobody while it launches
        portions = [min(PORTION, count - done) for done in range(0, count, PORTION)]
        commands = [self._array(corner, portion, slots, record, LONG) for portion in portions]
        yield Queue(commands, {"gqueue": ("gqueue",)})

    def service(self, corner: Corner) -> int:
        return _one(corner, "gflowd")

    def _start(self, corner: Corner) -> None:
        port = _free_port()
        corner.call("gflowd", "init", "--yes", "--port", str(port))
        corner.call("gflowd", "up")
        deadline = time.monotonic() + STARTING
        while not _listens(port):  # `up` may be back before the daemon listens; nothing says when it does
            if time.monotonic() > deadline:
                raise BenchError(f"gflowd did not listen within {STARTING:g} s")
            time.sleep(0.02)

    def _array(self, corner: Corner, count: int, slots: int, record: Path, seconds: str) -> list[str]:
        limits = ("--array", f"1-{count}", "--max-concurrent", str(slots))
        return ["gbatch", *limits, *corner.place.task, os.fspath(record), seconds]


class GflowLong(Gflow):
    """The same with tasks so long that its launches keep up with their ends: what one launch costs a free slot."""

    name = "gflow, tasks of 5 s"
    most = 12
    seconds = 5.0


RUNNING: tuple[System, ...] = (
    Tinksched(), TinkschedLocal(), TaskSpooler(), SimpleGpuScheduler(), Gflow(), GflowLong(),
)  # fmt: skip
QUEUING: tuple[System, ...] = (Tinksched(), TaskSpooler(), Gflow())


def names(letter: str, count: int) -> list[str]:
    """Names of tasks in their order."""
    return [f"{letter}{number:06d}" for number in range(count)]


def _one(corner: Corner, word: str) -> int:
    """The pid of the one process that was started with this word."""
    found = [pid for pid, line in corner.processes().items() if word in line.split()]
    if not found:
        raise BenchError(f"no process {word} runs")
    return min(found)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return int(probe.getsockname()[1])


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("localhost", port)) == 0
