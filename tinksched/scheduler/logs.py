"""The logs of runs, which must not grow beyond what the user allows."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

from ..config import Settings
from ..core.model import Run
from .disk import shorten
from .journal import Journal

FLOOD_SECONDS = 1.0  # how often to look at the logs while one of them grows too fast


class Logs:
    """Shortens them now and then."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.look_at = 0.0  # monotonic
        self.flooded = False  # whether one was too long at the last look
        self._of_ended: list[tuple[str, str | None]] = []  # by task, to be looked at once more

    def ended(self, run: Run) -> None:
        """A run has ended, and the last of its log is still to come."""
        self._of_ended.append((run.task, run.log))

    def shorten(self, runs: Iterable[Run], settings: Settings) -> None:
        """Once every check_interval, and soon again after one that was: logs that are too long lose their middle."""
        now = time.monotonic()
        if now < self.look_at:
            return
        cut = [self._shorten(run.task, run.log, settings) for run in runs]
        self.flooded = True in cut
        interval = settings.check_interval
        self.look_at = now + (min(FLOOD_SECONDS, interval) if self.flooded else interval)

    def shorten_ended(self, settings: Settings) -> None:
        """Look for the last time at those of runs that have ended."""
        while self._of_ended:
            self._shorten(*self._of_ended.pop(), settings)

    def _shorten(self, task: str, log: str | None, settings: Settings) -> bool:
        cut = log is not None and shorten(Path(log), settings.log_max_size)
        if cut:
            self._journal.say(f"{task}: its log was longer than log_max_size, so its middle was cut out")
        return cut
