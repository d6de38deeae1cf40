"""`report`: what ran on which GPU when, how long GPUs and tasks waited, what failed, and what the tasks measured."""

from __future__ import annotations

import math
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from ..config.units import duration
from ..core.model import Outcome
from ..errors import UsageError
from ..store import Ran
from . import metrics
from .workspace import Workspace

JSON_VERSION = 1
MOST_MEASURED = 1_000  # tasks whose metrics are read, the newest
GAPS = 3  # idle gaps that are named for each GPU, the longest

Span = tuple[float, float]


@dataclass(frozen=True, slots=True)
class GpuUse:
    """A GPU in the time of the report. Busy is the time in which at least one run was on it."""

    index: int
    runs: int
    busy: Sequence[Span]
    gaps: Sequence[Span]  # between the beginning and the end of the report, the longest first

    @property
    def busy_seconds(self) -> float:
        """How long something ran on it."""
        return sum(end - begin for begin, end in self.busy)


@dataclass(frozen=True, slots=True)
class Waits:
    """How long tasks waited from being queued to their first run, in seconds."""

    count: int = 0
    median: float = 0.0
    longest: float = 0.0
    longest_task: str = ""


@dataclass(frozen=True, slots=True)
class Failure:
    """Runs that ended badly for one reason. A run that was tried again is among them."""

    reason: str
    tasks: tuple[str, ...]
    runs: int


@dataclass(frozen=True, slots=True)
class Report:
    """What happened in a workspace between two times (seconds since the epoch)."""

    workspace: str
    task_name: str
    since: float
    until: float
    runs: Sequence[Ran]
    counts: Mapping[str, int]  # of the runs, by outcome; `running` for those that go on
    tasks: Mapping[str, int]  # of all tasks, by state
    gpus: Sequence[GpuUse]
    run_seconds: float  # of all runs; one on two GPUs counts twice
    retries: int  # second and later attempts
    waits: Waits
    failures: Sequence[Failure]
    metrics: Mapping[str, metrics.Numbers]

    @property
    def gpu_hours(self) -> float:
        """How long GPUs were busy, together."""
        return sum(gpu.busy_seconds for gpu in self.gpus) / 3600

    @property
    def metric_names(self) -> list[str]:
        """What was measured: what most tasks have first."""
        count = Counter(name for numbers in self.metrics.values() for name in numbers)
        return [name for name, _ in count.most_common()]

    def json(self) -> dict[str, object]:
        """The versioned form for programs. Fields may be added; nothing is renamed or removed within a version."""
        return {
            "version": JSON_VERSION,
            "workspace": self.workspace,
            "task_name": self.task_name,
            "since": self.since,
            "until": self.until,
            "tasks": dict(self.tasks),
            "run_counts": dict(self.counts),
            "retries": self.retries,
            "gpu_hours": self.gpu_hours,
            "run_hours": self.run_seconds / 3600,
            "waits": {"count": self.waits.count, "median": self.waits.median, "longest": self.waits.longest,
                      "longest_task": self.waits.longest_task or None},
            "gpus": [
                {"index": gpu.index, "runs": gpu.runs, "busy_seconds": gpu.busy_seconds,
                 "idle_gaps": [list(gap) for gap in gpu.gaps]}
                for gpu in self.gpus
            ],
            "failures": [
                {"reason": item.reason, "runs": item.runs, "tasks": list(item.tasks)} for item in self.failures
            ],
            "runs": [_run_json(run) for run in self.runs],
            "metrics": {
                task: {name: value if math.isfinite(value) else None for name, value in numbers.items()}
                for task, numbers in self.metrics.items()
            },
        }  # fmt: skip


def report(workspace: Workspace, since: str | None = None) -> Report:
    """What happened, of all times or since a time: `2h`, `7d`, `2026-01-31`, `2026-01-31 08:00`.

    Raises:
        UsageError: that is no time.
        TinkschedError: the store can't be read.
    """
    now = time.time()
    begin = 0.0 if since is None else time_of(since, now)
    store = workspace.store()
    runs: list[Ran] = []
    tasks: Mapping[str, int] = {}
    if store is not None:
        with store, store.snapshot():
            runs, tasks = store.ran(begin), store.counts()
    newest = list(dict.fromkeys(run.task for run in reversed(runs)))[:MOST_MEASURED]
    measured = metrics.of_tasks(workspace.settings.output_dir, sorted(newest))
    return of_runs(
        str(workspace.settings.workspace), workspace.settings.task_name, runs, tasks, measured, begin, now
    )  # fmt: skip


def of_runs(
    workspace: str, task_name: str, runs: Sequence[Ran], tasks: Mapping[str, int],
    measured: Mapping[str, metrics.Numbers], begin: float, now: float,
) -> Report:  # fmt: skip
    """The report on these runs. Pure."""
    since = max(begin, min((run.started_at for run in runs), default=now))
    ends = [run.ended_at for run in runs if run.ended_at is not None]
    goes_on = len(ends) < len(runs)
    until = max(since, now if goes_on or not ends else max(ends))
    by_gpu: dict[int, list[Span]] = defaultdict(list)
    for run in runs:
        span = (max(run.started_at, since), max(since, run.ended_at if run.ended_at is not None else until))
        for gpu in run.gpus:
            by_gpu[gpu].append(span)
    return Report(
        workspace,
        task_name,
        since,
        until,
        runs,
        Counter(run.outcome.value if run.outcome else "running" for run in runs),
        tasks,
        [_use(index, by_gpu[index], since, until) for index in sorted(by_gpu)],
        sum(end - begin for spans in by_gpu.values() for begin, end in spans),
        sum(run.attempt > 1 for run in runs),
        _waits(runs, since),
        _failures(runs),
        measured,
    )


def time_of(text: str, now: float) -> float:
    """The time that is meant: a duration before now, or a date.

    Raises:
        UsageError: it is neither.
    """
    try:
        return now - duration(text)
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError, OSError):
        raise UsageError(
            f"{text!r} is no time", hint="a duration such as 2h or 7d, or a date such as 2026-01-31 or 2026-01-31T08:00"
        ) from None


def _use(index: int, spans: Sequence[Span], since: float, until: float) -> GpuUse:
    busy: list[Span] = []
    for begin, end in sorted(spans):
        if busy and begin <= busy[-1][1]:
            busy[-1] = (busy[-1][0], max(busy[-1][1], end))
        else:
            busy.append((begin, end))
    edges = [since, *(edge for span in busy for edge in span), until]
    gaps = [(begin, end) for begin, end in zip(edges[::2], edges[1::2], strict=True) if end > begin]
    return GpuUse(index, len(spans), busy, sorted(gaps, key=lambda gap: gap[0] - gap[1])[:GAPS])


def _waits(runs: Iterable[Ran], since: float) -> Waits:
    """Of the tasks whose first run since they were queued is among these."""
    waits: dict[str, float] = {}
    for run in runs:
        if run.started_at >= max(run.queued_at, since):
            waits.setdefault(run.task, run.started_at - run.queued_at)
    if not waits:
        return Waits()
    longest = max(waits, key=lambda task: waits[task])
    return Waits(len(waits), statistics.median(waits.values()), waits[longest], longest)


def _failures(runs: Iterable[Ran]) -> list[Failure]:
    bad: dict[str, list[str]] = defaultdict(list)
    for run in runs:
        if run.outcome not in (None, Outcome.COMPLETED, Outcome.CANCELLED):
            bad[run.reason.text if run.reason else run.outcome.value.replace("_", " ")].append(run.task)
    found = [Failure(reason, tuple(dict.fromkeys(tasks)), len(tasks)) for reason, tasks in bad.items()]
    return sorted(found, key=lambda failure: -failure.runs)


def _run_json(run: Ran) -> dict[str, object]:
    return {
        "task": run.task,
        "attempt": run.attempt,
        "outcome": run.outcome.value if run.outcome else "running",
        "reason": run.reason.text if run.reason else None,
        "exit_code": run.exit_code,
        "gpus": list(run.gpus),
        "started_at": run.started_at,
        "ended_at": run.ended_at,
    }
