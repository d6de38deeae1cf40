"""Ending runs: those that somebody wants to end, those that take too long, and what outlives them.

It takes as long as `stop_grace`, so each is ended in a task of its own, and the loop is woken when that is done.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from ..core.model import Run
from ..executors.base import Executor, Handle
from ..host import processes
from ..host.processes import Process
from ..host.rundir import RunDir
from .journal import Journal

STUCK_SECONDS = 30.0  # until ending a run is tried again whose processes would not die


class Stopping:
    """The runs that are being ended, by id, and what is known of those that were until their end is on record."""

    def __init__(
        self, executor: Executor, journal: Journal, *, wake: Callable[[], None], fail: Callable[[], None]
    ) -> None:
        """`wake` is called after each; `fail` before it if looking again at once would only repeat a failure."""
        self._executor = executor
        self._journal = journal
        self._wake = wake
        self._fail = fail
        self._threads = ThreadPoolExecutor(max_workers=64)  # where processes are waited for
        self._stuck: dict[str, float] = {}  # could not be ended, and when to try again (monotonic)
        self.now: dict[str, asyncio.Task[None]] = {}
        self.dead: dict[str, bool] = {}  # ended on request; whether their commands had ended before
        self.reaped: dict[str, tuple[str, ...]] = {}  # processes that outlived them and were killed
        self.stalled: set[str] = set()  # ended because they did nothing

    def has(self, run_id: str) -> bool:
        """Whether the run is being ended, or was."""
        return run_id in self.now or run_id in self.dead

    def is_stuck(self, run_id: str) -> bool:
        """Whether some of its processes could not be killed."""
        return run_id in self._stuck

    def is_resting(self, run_id: str) -> bool:
        """Whether it is stuck, and it is too early to try it again."""
        return self._stuck.get(run_id, 0.0) >= time.monotonic()

    def forget(self, run_id: str) -> None:
        """Its end is on record."""
        for known in (self._stuck, self.dead, self.reaped):
            known.pop(run_id, None)
        self.stalled.discard(run_id)

    def close(self) -> None:
        """Leave those that are being ended to the next scheduler: what was asked for is on record."""
        for ending in self.now.values():
            ending.cancel()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def end(self, run: Run, handle: Handle, grace: float, why: str) -> None:
        """End all processes of a run."""
        self._journal.say(f"{run.task}: {why}: its processes get TERM")
        self.now[run.id] = asyncio.create_task(self._end(run, handle, grace))

    def reap(self, run: Run, leftovers: Sequence[Process], grace: float) -> None:
        """End what outlives a run's command, if it doesn't end by itself within the grace."""
        named = ", ".join(f"{process.name} ({process.pid})" for process in leftovers[:5])
        self._journal.say(f"{run.task}: ended; {named} outlived it and may end by itself for a while")
        self.now[run.id] = asyncio.create_task(self._reap(run, leftovers, grace))

    async def _end(self, run: Run, handle: Handle, grace: float) -> None:
        dead, ended_first = False, RunDir(run.directory).exit_status() is not None
        try:
            dead = await self._executor.stop(handle, grace=grace)
        except OSError as error:
            self._journal.say(f"{run.task}: could not be ended: {error}")
        finally:
            del self.now[run.id]
            self._wake()
        if dead:
            self.dead[run.id] = ended_first
        else:
            self._stuck[run.id] = time.monotonic() + STUCK_SECONDS
            self._journal.say(f"{run.task}: some of its processes could not be killed; it keeps its slot")

    async def _reap(self, run: Run, leftovers: Sequence[Process], grace: float) -> None:
        names = tuple(process.name for process in leftovers)
        try:
            loop = asyncio.get_running_loop()
            if not await loop.run_in_executor(self._threads, processes.wait_for, leftovers, grace):
                await loop.run_in_executor(self._threads, functools.partial(processes.end, run.id, grace=1.0))
                self.reaped[run.id] = names
        except OSError as error:
            self._fail()
            self._journal.say(f"{run.task}: what outlived it could not be ended: {error}")
        finally:
            del self.now[run.id]
            self._wake()
