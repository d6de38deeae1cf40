"""`python -m tests.bench`: measure, and say what came out. `sh tests/bench/run.sh` installs what it needs first."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from . import machine, plot, report, server
from .cold import cold
from .commands import commands
from .idle import TinkschedUnhurried, idle
from .place import HERE, BenchError, Place
from .queueing import queueing
from .results import Results, say
from .running import handover, launch
from .sampling import sampling
from .scale import scale
from .steps import steps
from .systems import QUEUING, RUNNING, Batch, System

OUT = HERE / "out"


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured."""

    rounds: int = 3
    tasks: int = 200
    seconds: float = 0.3
    slots: int = 4
    launched: int = 100
    launch_slots: tuple[int, ...] = (4, 16)
    queued: tuple[int, ...] = (100, 1_000, 10_000)
    scale_queued: int = 10_000
    scale_finished: int = 100_000
    scale_tasks: int = 60
    step_tasks: int = 60
    idle_seconds: float = 60.0  # two check intervals
    idle_waiting: int = 100
    sampling_windows: int = 5
    cold_rounds: int = 30
    command_tasks: int = 10_000
    command_rounds: int = 5


QUICK = Sizes(
    rounds=1, tasks=40, launched=20, queued=(100,), scale_queued=100, scale_finished=1_000, scale_tasks=20,
    step_tasks=10, idle_seconds=5.0, sampling_windows=1, cold_rounds=5, command_tasks=200, command_rounds=1,
)  # fmt: skip


class Suite:
    """One run of some benchmarks with some systems."""

    def __init__(self, place: Place, sizes: Sizes, systems: Sequence[str]) -> None:
        self.results = Results(machine=machine.describe(place))
        self._place = place
        self._sizes = sizes
        self._systems = systems

    def handover(self) -> None:
        """Hand-over and makespan."""
        sizes, there = self._sizes, self._there(RUNNING)
        batch = Batch(sizes.tasks, sizes.seconds, sizes.slots)
        handover(self._place, self.results, there, batch, sizes.rounds)
        fewer = {one.name: one.most for one in there if one.most}
        self._setup("hand-over", f"{sizes.tasks} tasks of {sizes.seconds:g} s on {sizes.slots} slots", fewer)

    def steps(self) -> None:
        """One hand-over, step by step."""
        steps(self._place, self.results, self._sizes.step_tasks, self._sizes.rounds)
        self.results.setup["steps"] = f"{self._sizes.step_tasks} tasks of 0.1 s, {self._sizes.rounds} rounds"

    def launch(self) -> None:
        """Launch rate."""
        sizes, there = self._sizes, [system for system in self._there(RUNNING) if system.seconds is None]
        for slots in sizes.launch_slots:
            launch(self._place, self.results, there, Batch(sizes.launched, 0, slots), sizes.rounds)
        fewer = {one.name: one.most_at_once for one in there if one.most_at_once}
        self._setup("launch rate", f"{sizes.launched} tasks of 0 s", fewer)

    def queueing(self) -> None:
        """Queueing and listing."""
        sizes, there = self._sizes, self._there(QUEUING)
        for count in sizes.queued:
            queueing(self._place, self.results, there, count, sizes.slots, sizes.rounds)
        self.results.setup["queueing"] = f"{sizes.rounds} rounds"

    def scale(self) -> None:
        """A long queue and a long history."""
        sizes = self._sizes
        batch = Batch(sizes.scale_tasks, sizes.seconds, sizes.slots)
        scale(self._place, self.results, sizes.scale_queued, sizes.scale_finished, batch, sizes.rounds)
        self.results.setup["scale"] = f"{batch.count} tasks of {batch.seconds:g} s, {sizes.rounds} rounds"

    def idle(self) -> None:
        """What nothing costs."""
        sizes = self._sizes
        there = self._there((QUEUING[0], TinkschedUnhurried(), *QUEUING[1:]))
        idle(self._place, self.results, there, sizes.idle_waiting, sizes.slots, sizes.idle_seconds)
        self.results.setup["idle"] = f"{sizes.idle_seconds:g} s"

    def sampling(self) -> None:
        """What one look at everything costs."""
        sampling(self._place, self.results, self._sizes.sampling_windows)
        self.results.setup["sampling"] = f"{self._sizes.sampling_windows} windows of 10 rounds"

    def cold(self) -> None:
        """Cold start."""
        cold(self._place, self.results, self._sizes.cold_rounds)
        self.results.setup["cold start"] = f"{self._sizes.cold_rounds} rounds"

    def commands(self) -> None:
        """Every command, with many tasks."""
        commands(self._place, self.results, self._sizes.command_tasks, self._sizes.command_rounds)
        self.results.setup["commands"] = f"{self._sizes.command_tasks:,} tasks, {self._sizes.command_rounds} rounds"

    def _there(self, systems: Sequence[System]) -> list[System]:
        """Those that were asked for and can be measured; the results name the others."""
        asked = [one for one in systems if not self._systems or one.name.split(",")[0] in self._systems]
        missing = {one.name: why for one in asked if (why := one.missing()) is not None}
        self.results.missing |= missing
        return [one for one in asked if one.name not in missing]

    def _setup(self, what: str, sizes: str, fewer: Mapping[str, int]) -> None:
        """Put the sizes on record, with the number of tasks of those that got fewer."""
        others = [f"{name}: {count}" for name, count in fewer.items()]
        self.results.setup[what] = "; ".join([f"{sizes}, {self._sizes.rounds} rounds", *others])


BENCHMARKS = {
    "handover": Suite.handover,
    "steps": Suite.steps,
    "launch": Suite.launch,
    "queueing": Suite.queueing,
    "scale": Suite.scale,
    "idle": Suite.idle,
    "sampling": Suite.sampling,
    "cold": Suite.cold,
    "commands": Suite.commands,
}


def main() -> int:
    """Run the benchmarks that were asked for."""
    wanted = _arguments()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(1))
    try:
        if wanted.server:
            return server.main(wanted.quick, wanted.record, wanted.folder)
        if wanted.report is not None:
            results = Results.load(wanted.report)
        else:
            with Place(wanted.folder) as place:
                results = _measure(Suite(place, _sizes(wanted), wanted.systems), wanted.only or list(BENCHMARKS))
    except (BenchError, OSError) as error:
        say(f"failed: {error}")
        return 1
    except KeyboardInterrupt:
        say("interrupted; what it had started is gone")
        return 130
    _write(results, wanted.record)
    return 1 if results.failed else 0


def _measure(suite: Suite, names: Sequence[str]) -> Results:
    """Every benchmark of these names; one that fails is named in the report and stops no other."""
    for name in names:
        suite.results.setup[f"load before {name}"] = f"{os.getloadavg()[0]:.2f}"
        try:
            BENCHMARKS[name](suite)
        except BenchError as error:
            say(f"{name} failed: {error}")
            suite.results.failed[name] = str(error).splitlines()[0]
    return suite.results


def _sizes(wanted: argparse.Namespace) -> Sizes:
    sizes = QUICK if wanted.quick else Sizes()
    given = {name: getattr(wanted, name) for name in ("rounds", "tasks", "seconds")}
    return replace(sizes, **{name: value for name, value in given.items() if value is not None})


def _write(results: Results, record: bool) -> None:
    """The report to the output folder and the screen; with `record` also to the files that are committed."""
    OUT.mkdir(exist_ok=True)
    results.save(OUT / "results.json")
    drawn = plot.draw(results, OUT / "results.svg")
    notes = HERE / "NOTES.md"
    text = report.markdown(results, notes.read_text() if notes.exists() else "", "results.svg" if drawn else None)
    (OUT / "RESULTS.md").write_text(text)
    print(text)
    if record:
        for name in ("RESULTS.md", *(["results.svg"] if drawn else [])):
            shutil.copyfile(OUT / name, HERE / name)
    say(f"written to {HERE if record else OUT}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests/bench/run.sh", description=__doc__)
    add = parser.add_argument
    add("--only", nargs="+", choices=BENCHMARKS, help="these benchmarks")
    add(
        "--systems",
        nargs="+",
        default=[],
        choices=sorted({one.name.split(",")[0] for one in RUNNING}),
        help="these systems",
    )
    add("--quick", action="store_true", help="small sizes and one round: to see that it works")
    add("--rounds", type=_positive, metavar="N", help="rounds of each benchmark but the cold start")
    add("--tasks", type=_positive, metavar="N", help="tasks of the hand-over benchmark")
    add("--seconds", type=_seconds, metavar="S", help="how long each of them takes")
    add("--folder", type=Path, default=Path("/var/tmp"), help="where the temporary folder is made (default: /var/tmp)")
    add("--record", action="store_true", help="write tests/bench/RESULTS.md and results.svg, which are committed")
    add("--server", action="store_true", help="only the server for a team, under load; --record writes SERVER.md")
    add("--report", type=Path, metavar="FILE", help="measure nothing; make the report of this results.json again")
    return parser.parse_args()


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("1 or more")
    return value


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value < 3600:
        raise argparse.ArgumentTypeError("more than 0 and less than an hour")
    return value


if __name__ == "__main__":
    sys.exit(main())
