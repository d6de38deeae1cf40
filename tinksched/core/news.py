"""What happened, for people and programs elsewhere: events as records that JSON can hold, and messages. Pure.

`OF_ALL`, `OF_TASKS` and `OF_BATCHES` say what an event holds. Fields may be added; nothing is renamed or removed within
a version.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .model import Outcome, Reason, Run, Task

VERSION = 1
KINDS = ("started", "completed", "failed", "cancelled", "retried", "stalled", "batch_done")
TOLD = ("failed", "stalled", "batch_done")  # of which people are told unless they say otherwise
OF_ALL = {  # the fields of every event, and what they say
    "version": "of this form: 1",
    "event": "the kind, one of those above",
    "at": "when, in seconds since the epoch",
    "workspace": "its folder",
    "task_name": "of `scheduler_config.yml`",
    "host": "the machine",
}
OF_TASKS = {  # of all but `batch_done`; null where there is nothing to say
    "task": "its name",
    "attempt": "1 for the first run of it",
    "run": "the run's id",
    "gpus": "indices; empty where it ran on none, or never ran",
    "outcome": "`completed`, `failed`, `timed_out`, `lost` or `cancelled`",
    "reason": "why, as a sentence",
    "reason_code": "the same for programs",
    "exit_code": "of the run",
    "seconds": "that the run took",
    "log": "the file",
    "retry_at": "of `retried`: not before, in seconds since the epoch",
}
OF_BATCHES = {  # of `batch_done`
    "counts": "tasks by outcome",
    "seconds": "from the first start to the last end",
    "not_completed": "up to 20 tasks that did not complete, each with `task`, `outcome`, `reason`",
}
_MOST_NAMED = 20  # tasks in one record or message
_KINDS = {Outcome.COMPLETED: "completed", Outcome.CANCELLED: "cancelled"}

News = Mapping[str, Any]


def of_task(
    event: str, at: float, task: str, run: Run | None = None, *, outcome: Outcome | None = None,
    reason: Reason | None = None, exit_code: int | None = None, ended_at: float | None = None,
    retry_at: float | None = None,
) -> News:  # fmt: skip
    """The event of a task, or of one of its runs."""
    return {
        "event": event,
        "at": at,
        "task": task,
        "attempt": run.attempt if run else None,
        "run": run.id if run else None,
        "gpus": list(run.gpus) if run else [],
        "outcome": outcome.value if outcome else None,
        "reason": reason.text if reason else None,
        "reason_code": reason.code.value if reason else None,
        "exit_code": exit_code,
        "seconds": max(0.0, ended_at - run.created_at) if run and ended_at is not None else None,
        "log": run.log if run else None,
        "retry_at": retry_at,
    }


def kind_of(outcome: Outcome) -> str:
    """The event of a task that is done so. Timed out and lost ones have failed."""
    return _KINDS.get(outcome, "failed")


class Tally:
    """What has become of the tasks of a batch so far."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._done: dict[str, tuple[Outcome, Reason | None]] = {}

    def begin(self, at: float) -> None:
        """A run began."""
        self._since = at if self._since is None else min(self._since, at)

    def done(self, task: Task) -> None:
        """A task is done. One that is done once more counts once."""
        if task.outcome is not None:
            self.begin(task.changed_at)
            self._done[task.name] = (task.outcome, task.reason)

    def close(self, at: float) -> News | None:
        """The summary, after which the next batch begins; None if nothing was done."""
        done, since = self._done, self._since
        self._done, self._since = {}, None
        if not done or since is None:
            return None
        outcomes = [outcome for outcome, _ in done.values()]
        bad = [
            {"task": name, "outcome": outcome.value, "reason": reason.text if reason else None}
            for name, (outcome, reason) in done.items()
            if outcome is not Outcome.COMPLETED
        ]
        counts = {kind.value: outcomes.count(kind) for kind in Outcome if kind in outcomes}
        return {"event": "batch_done", "at": at, "counts": counts, "seconds": max(0.0, at - since),
                "not_completed": bad[:_MOST_NAMED]}  # fmt: skip


def message(events: Sequence[News]) -> tuple[str, str]:
    """Title and text for a person about these events, of which there is at least one."""
    where = f"{events[0]['task_name']} on {events[0]['host']}"
    lines = [_line(event) for event in events]
    if len(events) == 1:
        title, _, rest = lines[0].partition("\n")
        text = rest or str(events[0].get("log") or "")
        return f"{where}: {title}", text or str(events[0]["workspace"])
    kinds = [str(event["event"]) for event in events]
    counts = ", ".join(f"{kinds.count(kind)} {_words(kind)}" for kind in KINDS if kind in kinds)
    more = [f"and {len(lines) - _MOST_NAMED} more"] if len(lines) > _MOST_NAMED else []
    return f"{where}: {counts}", "\n".join([*lines[:_MOST_NAMED], *more])


def _line(event: News) -> str:
    if event["event"] != "batch_done":
        what = _words(str(event["outcome"] or event["event"]))
        if event["event"] == "retried":
            what += ", will be tried again"
        why = f": {event['reason']}" if event["reason"] else ""
        return f"{event['task']} {what}{why}"
    counts = ", ".join(f"{count} {_words(outcome)}" for outcome, count in event["counts"].items())
    bad = [
        f"{item['task']} {_words(item['outcome'])}" + (f": {item['reason']}" if item["reason"] else "")
        for item in event["not_completed"]
    ]
    return "\n".join([f"all done: {counts}", *bad])


def _words(kind: str) -> str:
    return "batches done" if kind == "batch_done" else kind.replace("_", " ")
