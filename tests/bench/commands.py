"""Every command of the command line, one after another, in a workspace of many tasks."""

from __future__ import annotations

import os
import resource
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tinksched.core.model import Outcome
from tinksched.operations import workspace as workspaces

from . import history
from .cold import PYTHON
from .measure import spread
from .place import Corner, Place
from .results import Results, say
from .systems import LONG, Tinksched

FILES = "1,000 files written, linked and removed, by Python"
LIMIT = 0.3  # seconds that any command may take
SLOTS = 4
COMPLETED, FAILED, HELD = 0.5, 0.05, 0.05  # of the tasks; the others are queued
_GRID = ("seed=1..10", "lr=1,2,3,4,5,6,7,8,9,10", "depth=1,2,3,4,5,6,7,8,9,10")  # 1,000 points
_TEMPLATE = "seed: 0\nlr: 0.1  # a comment stays\ndepth: 2\n"
_FILES = """
import os, shutil, sys
folder, content = sys.argv[1], sys.argv[2].encode()
os.makedirs(f"{folder}/aside")
for number in range(1000):
    with open(f"{folder}/aside/{number}", "xb") as file:
        file.write(content)
for number in range(1000):
    os.link(f"{folder}/aside/{number}", f"{folder}/{number}")
shutil.rmtree(f"{folder}/aside")
"""


@dataclass(frozen=True, slots=True)
class Call:
    """A command, and whether it is given to the workspace as it was at first."""

    line: str
    name: str = ""
    anew: bool = False
    anywhere: bool = False  # it needs no workspace

    def words(self, workspace: Path) -> list[str]:
        """What is called."""
        command, *rest = self.line.format(folder=workspace).split()
        where = [] if self.anywhere else ["--workspace", str(workspace)]
        if command == "complete-words":
            return ["tinksched", command, *rest, *where, ""]
        return ["tinksched", command, *where, *rest]


def commands(place: Place, results: Results, tasks: int, rounds: int) -> None:
    """Each command once in each round, with a scheduler at work and all slots taken."""
    metric = f"commands {tasks}"
    with place.corner("commands") as corner:
        say(f"commands: making {tasks:,} tasks")
        crowd = _Crowd(corner, tasks)
        for number in range(rounds):
            say(f"commands, round {number + 1} of {rounds}")
            crowd.restore()
            for name, command in _round(corner, crowd):
                before = _processor_seconds()
                results.add(metric, name, [command()])
                results.add(f"{metric} processor", name, [_processor_seconds() - before])
                crowd.tidy()
    slow = [name for name, found in results.samples[metric].items() if spread(found).median > LIMIT and name != FILES]
    results.note(f"Above {LIMIT * 1e3:.0f} ms with {tasks:,} tasks: {', '.join(slow) or 'no command'}.")


def _processor_seconds() -> float:
    """Of the commands that have ended so far; a scheduler that they started is no part of it."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _round(corner: Corner, crowd: _Crowd) -> Iterator[tuple[str, Callable[[], float]]]:
    """Each command by its name, and what a sweep can't be faster than; each returns its seconds."""
    yield PYTHON, partial(corner.call, sys.executable, "-c", "pass")
    for call in _CALLS:
        if call.anew:
            crowd.restore()
        yield call.name or call.line, partial(crowd.call, call)
    aside = corner.folder / "files"
    yield FILES, partial(corner.call, sys.executable, "-c", _FILES, aside, _TEMPLATE)
    shutil.rmtree(aside)


_CALLS = (
    Call("--version", anywhere=True),
    Call("help", anywhere=True),
    Call("completion bash", anywhere=True),
    Call("complete-words explain"),
    Call("status"),
    Call("status --all"),
    Call("status --json"),
    Call("explain w000050"),
    Call("show f000001"),
    Call("logs f000001"),
    Call("wait f000001 f000002"),
    Call("report"),
    Call("report --json"),
    Call("report --html {folder}/report.html", "report --html"),
    Call("gpus", anywhere=True),
    Call("config"),
    Call("doctor"),
    Call("start"),
    Call("start --dry-run"),
    Call("pause"),
    Call("resume"),
    Call("hold w000050"),
    Call("release w000050"),
    Call("priority w000050 +5"),
    Call("cancel w000050"),
    Call("retry w000050"),
    Call("run --name one -- true"),
    Call("clean f000001 --yes"),
    Call(f"sweep _base.yml {_GRID[0]}", "sweep, 10 points"),
    Call(f"sweep _base.yml {' '.join(_GRID)}", "sweep, 1,000 points"),
    Call("hold --all"),
    Call("release --all"),
    Call("priority --all 7"),
    Call("clean --all --dry-run"),
    Call("clean --all --yes"),
    Call("retry --all", anew=True),
    Call("cancel --all", anew=True),
    Call("stop", anew=True),
    Call("start", name="start, the scheduler as well"),
    Call("kill-all"),
)


class _Crowd:
    """A workspace of many tasks that can be had again as it was."""

    def __init__(self, corner: Corner, tasks: int) -> None:
        self._corner = corner
        command = [*corner.place.task, os.fspath(corner.record().path), LONG]
        self._folder = Tinksched().workspace(corner, command, SLOTS, ["seed"])
        self.call(Call("start"))
        self.call(Call("kill-all"))
        completed, failed, held = (int(tasks * share) for share in (COMPLETED, FAILED, HELD))
        history.finish(self._folder, completed)
        history.finish(self._folder, failed, letter="x", outcome=Outcome.FAILED)
        history.wait(self._folder, tasks - completed - failed - held)
        history.wait(self._folder, held, letter="h")
        self.call(Call("hold h*"))
        (self._configs / "_base.yml").write_text(_TEMPLATE)
        self._logs = [*(self._folder / "logs" / "train_logs").iterdir()]
        self._state = workspaces.find(self._folder, None).state
        shutil.copyfile(self._state.database, self._kept)

    @property
    def _configs(self) -> Path:
        return self._folder / "configs"

    @property
    def _kept(self) -> Path:
        return self._corner.folder / "kept.db"

    def call(self, call: Call) -> float:
        """Seconds that a command takes."""
        return self._corner.call(*call.words(self._folder))

    def restore(self) -> None:
        """Everything as it was, with a scheduler at work."""
        self.call(Call("kill-all"))
        for path in (self._state.database, *self._state.path.glob(f"{self._state.database.name}-*")):
            path.unlink()
        shutil.copyfile(self._kept, self._state.database)
        self._state.database.chmod(0o600)
        for run in self._state.runs.iterdir():
            shutil.rmtree(run)
        for log in self._logs:
            log.touch()
        self.call(Call("start"))

    def tidy(self) -> None:
        """Remove what a sweep has written."""
        for path in (*self._configs.glob("base_*"), *self._configs.glob("_sweep_*")):
            path.unlink()
