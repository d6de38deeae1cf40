"""Time for runs. The time of day may be set, forth and back, while a run lives; the time since boot can't be.

So what is measured of a run (its time limit, how long it took) is measured since boot, and put on record as a time of
day: that of its beginning, and so much more. What only orders or delays (`startup_delay`, `retry_delay`) goes by the
time of day, and takes a time from which nothing can have been waiting yet for a clock that was set back: it waits no
longer than it was told to.
"""

from __future__ import annotations

import time
from dataclasses import replace

from ..core.model import Run
from ..executors.base import Exited, Observation
from ..host.processes import since_boot


def now_of(run: Run, boot: str) -> float:
    """Seconds since the epoch, by a clock that was not set since the run began. Of another boot: the time of day."""
    began = run.record.since_boot
    if began is None or run.boot_id != boot:
        return time.time()
    return run.created_at + since_boot() - began


def corrected(seen: Observation, run: Run, now: float) -> Observation:
    """An exit at a time by the clock of `now_of`: as long ago as its file is old, if the run was there by then."""
    if not isinstance(seen, Exited):
        return seen
    at = now - max(0.0, time.time() - seen.at)
    return replace(seen, at=at if at >= run.created_at else now)
