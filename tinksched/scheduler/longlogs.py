"""Logs that grow too long lose their middle."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path

from ..config import Settings
from ..core.model import Run
from .journal import Journal

FLOOD_SECONDS = 1.0  # how often to look at the logs while one of them grows too fast


class LongLogs:
    """Cuts the middle out of logs that are too long: once every check_interval, and soon again after one that was."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.look_at = 0.0  # monotonic
        self.flooded = False  # whether a log was too long at the last look
        self.ended: list[Run] = []  # to be looked at once more

    def look(self, runs: Iterable[Run], settings: Settings) -> None:
        """Look at the logs of what runs, if it is time."""
        now = time.monotonic()
        if now < self.look_at:
            return
        self.flooded = True in [self._shorten(run, settings) for run in runs]
        interval = settings.check_interval
        self.look_at = now + (min(FLOOD_SECONDS, interval) if self.flooded else interval)

    def finish(self, settings: Settings) -> None:
        """Look at the logs of what has ended."""
        while self.ended:
            self._shorten(self.ended.pop(), settings)

    def _shorten(self, run: Run, settings: Settings) -> bool:
        cut = run.log is not None and shorten(Path(run.log), settings.log_max_size)
        if cut:
            self._journal.say(f"{run.task}: its log was longer than log_max_size, so its middle was cut out")
        return cut


def shorten(log: Path, limit: int) -> bool:
    """Cut the middle out of a log that is longer than `limit` bytes: half of them stay at its head, a quarter below.

    The writer appends, so it goes on at the new end. What it adds while this runs may be lost with the middle.
    """
    try:
        with log.open("r+b") as file:
            size = file.seek(0, os.SEEK_END)
            if size <= limit:
                return False
            head, tail = limit // 2, limit // 4
            file.seek(size - tail)
            end = file.read(tail)
            note = f"\r\n[tinksched: {size - head - tail} bytes were cut out here, see log_max_size]\r\n"
            os.ftruncate(file.fileno(), head)
            file.seek(head)
            file.write(note.encode() + end[end.find(b"\n") + 1 :])
        return True
    except OSError:
        return False
