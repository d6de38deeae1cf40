"""Many tasks and their runs in a few words: what a page and a timeline need of thousands of them."""

from __future__ import annotations

from typing import Any, NamedTuple

from ..core.model import Outcome, Reason, TaskState
from . import records
from .packing import parsed_run


class Glance(NamedTuple):
    """A task and its newest run in a few words, for who follows thousands of them."""

    id: int
    name: str
    state: str
    outcome: str | None
    reason: Reason | None
    priority: int
    queue_number: int
    queued_at: float
    changed_at: float
    attempts: int
    run: str | None  # its newest run, as all of the following
    run_state: str | None
    run_outcome: str | None
    exit_code: int | None
    began_at: float | None
    ended_at: float | None
    gpus: tuple[int, ...]

    @property
    def has_run(self) -> bool:
        """Whether what it is now comes of its newest run: it may have been queued again, and given up there."""
        if self.run is None or self.state == TaskState.QUEUED.value:
            return False
        # By the clock, which may have been set, only where nothing else tells the two ends apart.
        later = self.outcome == Outcome.CANCELLED.value and self.queued_at > (self.ended_at or self.queued_at)
        return self.state == TaskState.ACTIVE.value or (self.run_outcome == self.outcome and not later)


GLANCES = (
    "SELECT tasks.id, name, tasks.state, tasks.outcome, tasks.reason, priority, queue_number, queued_at, changed_at, "
    "attempts, runs.id, runs.state, runs.outcome, exit_code, created_at, ended_at, ran.text FROM tasks "
    "LEFT JOIN runs ON runs.task_id = tasks.id "
    "AND runs.attempt = (SELECT max(attempt) FROM runs r WHERE r.task_id = tasks.id) "
    "LEFT JOIN texts ran ON ran.id = runs.shared"
)


def glance_of(*columns: Any) -> Glance:
    """A glance from its columns, in the order of `GLANCES`; the last one is what its run shares."""
    task_id, name, state, outcome, reason, *more, ran = columns
    gpus: tuple[int, ...] = parsed_run(ran)[0]["gpus"] if ran is not None else ()
    return Glance._make([task_id, name, state, outcome, records.reason_of(reason), *more, gpus])


class Bar(NamedTuple):
    """A run on a timeline. Times are seconds since the epoch."""

    run: str
    task_id: int
    began_at: float
    ended_at: float | None
    outcome: str | None
    gpus: tuple[int, ...]


BARS = "SELECT runs.id, task_id, created_at, ended_at, outcome, text FROM runs JOIN texts ON texts.id = runs.shared"


def bar_of(*columns: Any) -> Bar:
    """A bar from its columns, in the order of `BARS`."""
    *more, text = columns
    return Bar._make([*more, parsed_run(text)[0]["gpus"]])
