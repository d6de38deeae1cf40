"""Why runs failed, from the ends of their logs.

A run's process may have ended before tmux has passed on the last that it printed. Where the diagnosis may decide
whether and where the task is tried again, the run's end waits a moment for its log; everywhere else it is recorded at
once, and the log is looked at once more later.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import replace

from ..core.lifecycle import is_retried
from ..core.model import OOM, Outcome, Task
from ..errors import StoreError
from ..host.completion import with_diagnosis
from ..store import Store
from .endings import Ending
from .journal import Journal

LOG_SECONDS = 0.25  # that an end waits for its log, at most


class Diagnosing:
    """Diagnoses the runs that end, and remembers those whose log may not have been whole."""

    def __init__(self, store: Store, journal: Journal) -> None:
        self._store = store
        self._journal = journal
        self._waiting: dict[str, float] = {}  # by run id, and until when (monotonic)
        self._again: list[Ending] = []

    @property
    def wake_at(self) -> float | None:
        """When to look again at an end that waits (monotonic); None if none does."""
        return min(self._waiting.values(), default=None)

    def of(self, ending: Ending, task: Task) -> Ending | None:
        """The ending with its diagnosis; None while it waits for its log."""
        reason = with_diagnosis(ending.run, ending.outcome, ending.reason, ending.exit_code)
        if reason is None or reason is ending.reason:
            return ending
        now = time.monotonic()
        late = reason.found is None and bool(ending.run.session)
        if late and _decides(task, ending) and now < self._waiting.setdefault(ending.run.id, now + LOG_SECONDS):
            return None
        return replace(ending, reason=reason)

    def recorded(self, endings: Sequence[Ending]) -> None:
        """These endings are on record."""
        for ending in endings:
            self._waiting.pop(ending.run.id, None)
            reason = ending.reason
            if ending.run.session and reason is not None and reason.found is None and ending.outcome is Outcome.FAILED:
                self._again.append(ending)

    def look_again(self) -> None:
        """Look once more at the logs of the runs that ended without a diagnosis; by now they are whole."""
        again, self._again = self._again, []
        better = [(end, with_diagnosis(end.run, end.outcome, end.reason, end.exit_code)) for end in again]
        known = [(end.run, reason) for end, reason in better if reason is not None and reason.found is not None]
        if not known:
            return
        with contextlib.suppress(StoreError), self._store.transaction("scheduler", time.time(), synced=False) as tx:
            for run, reason in known:
                tx.explain_end(run, reason)
        for run, reason in known:
            self._journal.say(f"{run.task}: {reason.text}")


def _decides(task: Task, ending: Ending) -> bool:
    """Whether a diagnosis may change what becomes of the task."""
    spec = task.spec
    if task.failures >= spec.max_retries or ending.outcome is None:
        return False
    return OOM in spec.retry_on or is_retried(spec.retry_on, ending.outcome, ending.reason, ending.exit_code)
