"""What the runs of a workspace use, and what is odd about them: looked at, remembered, and put on record.

What NVML says is taken at every sample that it gives. The processes are looked at once every `check_interval`, in a
thread, so that no hand-over waits for it. Nothing here is worth a synced write: what is lost is seen again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence

from ..config import Settings
from ..core.model import Run
from ..core.usage import Sample, Usage
from ..core.watching import Listing, Sight, flags_of, is_idle, is_stalled
from ..errors import StoreError
from ..host import nvml, processes
from ..host.consumption import Consumption, consumption
from ..host.processes import Process
from ..store import Store
from .journal import Journal

WHO = "scheduler"


class Sampler:
    """Looks at the runs of one workspace."""

    def __init__(self, store: Store, journal: Journal, tell: Callable[[Run, str], None] = lambda *_: None) -> None:
        """`tell` is called each time that a run stalls, with the sentence."""
        self._tell = tell
        self._store = store
        self._journal = journal
        self._usage: dict[str, Usage] = {}  # by run id, as all of these
        self._sights: dict[str, Sight] = {}
        self._used: dict[str, tuple[float, Consumption]] = {}  # at the last round, with its time
        self._idle_since: dict[str, float] = {}
        self._news: list[tuple[Run, str]] = []  # flags that are to be noted as events
        self._listing = Listing({})
        self._seen = (0.0, False)  # when these were seen, and whether that was long ago
        self._stalled: set[str] = set()  # by the judgement of this scheduler, with these settings
        self.were_stalled: set[str] = set()  # by the judgement of an earlier scheduler

    def adopt(self, run_ids: Collection[str]) -> None:
        """Go on where another scheduler ended. What was odd to it may not be any more."""
        self._usage.update(self._store.usage_of(run_ids))
        self.were_stalled = {run_id for run_id, usage in self._usage.items() if is_stalled(usage.flags)}

    def use(self) -> None:
        """The configuration has changed: who is stalled is judged anew."""
        self._stalled.clear()

    def usage_of(self, run_id: str) -> Usage | None:
        """What a run was seen to use, if anybody looked."""
        return self._usage.get(run_id)

    def usages(self, run_ids: Collection[str]) -> dict[str, Usage]:
        """The same of several."""
        return {run_id: self._usage[run_id] for run_id in run_ids if run_id in self._usage}

    def is_stalled(self, run_id: str) -> bool:
        """Whether a run has done nothing for `stall_after`."""
        return run_id in self._stalled

    def forget(self, run_id: str) -> None:
        """A run has ended, and what it used is on record."""
        for kept in (self._usage, self._sights, self._used, self._idle_since):
            kept.pop(run_id, None)
        for judged in (self._stalled, self.were_stalled):
            judged.discard(run_id)

    def see(self, runs: Sequence[Run], sample: nvml.Sample, settings: Settings) -> None:
        """What NVML says, if that is new."""
        if (sample.at, sample.late) != self._seen:
            self._seen, self._listing = (sample.at, sample.late), Listing(sample.states)
            for run in runs:
                self._take(run, settings, sample.at, fresh=True)

    async def look(self, known: Mapping[str, Run], settings: Settings) -> None:
        """One round: the processes of all runs and their logs, and everything on record. `known` are those that go on,
        and may lose some meanwhile."""
        runs = list(known.values())
        found, written = await asyncio.to_thread(_measure, runs)
        now = time.time()
        runs = [run for run in runs if run.id in known]
        for run in runs:
            self.were_stalled.discard(run.id)
            used = found[run.id]
            self._judge_idleness(run, used, written[run.id], now)
            if used is not None:
                self._used[run.id] = (now, used)
            self._take(run, settings, now, fresh=False)
        self.record([run.id for run in runs])

    def record(self, run_ids: Collection[str]) -> None:
        """Put on record what these runs use."""
        usages = self.usages(run_ids)
        if not usages:
            return
        with contextlib.suppress(StoreError):
            with self._store.transaction(WHO, time.time(), synced=False) as tx:
                tx.record_usage(usages)
                for run, flag in self._news:
                    tx.note(run, "Flagged", flag)
            self._news.clear()

    def _take(self, run: Run, settings: Settings, now: float, *, fresh: bool) -> None:
        """`fresh` is what NVML says, which counts once."""
        sight = self._sights[run.id] = self._listing.sight_of(run)
        used = self._used[run.id][1] if run.id in self._used else None
        before = self._usage.get(run.id, Usage())
        flags = flags_of(run, sight, now, self._idle_since.get(run.id), settings.stall_after)
        if is_stalled(flags):
            self._stalled.add(run.id)
        else:
            self._stalled.discard(run.id)
        for flag in flags:
            if flag not in before.flags:
                self._news.append((run, flag))
                self._journal.say(f"{run.task}: {flag}")
                if is_stalled([flag]):
                    self._tell(run, flag)
        self._usage[run.id] = before.with_sample(
            Sample(
                now,
                sight.memory,
                sight.utilization if fresh else None,
                used.cpu_seconds if used else None,
                used.memory if used else None,
                tuple(flags),
            )
        )

    def _judge_idleness(self, run: Run, used: Consumption | None, written: float | None, now: float) -> None:
        """Since when it has done nothing that can be seen: neither computed nor printed."""
        before_at, before = self._used.get(run.id, (now, None))
        cpu = None
        if used is not None and before is not None and now > before_at:
            cpu = max(0.0, used.cpu_seconds - before.cpu_seconds) / (now - before_at)
        sight = self._sights.get(run.id) or self._listing.sight_of(run)
        if written is None or not is_idle(sight, cpu):
            self._idle_since.pop(run.id, None)
            return
        since = self._idle_since.setdefault(run.id, before_at if before is not None else now)
        self._idle_since[run.id] = max(since, written)


def _measure(runs: Sequence[Run]) -> tuple[dict[str, Consumption | None], dict[str, float | None]]:
    """What the processes of each run use, and when its log was last written to; one pass over `/proc`."""
    living: Mapping[str, list[Process]] = {}
    with contextlib.suppress(OSError):  # out of descriptors: the next round may know
        wrappers = {Process(run.pid, run.pid_started): run.id for run in runs if run.pid and run.pid_started}
        living = processes.of_runs([run.id for run in runs], wrappers=wrappers)
    found = {run.id: consumption(living.get(run.id, ())) for run in runs}
    return found, {run.id: _written(run.log) for run in runs}


def _written(log: str | None) -> float | None:
    with contextlib.suppress(OSError):
        return os.stat(log).st_mtime if log is not None else None
    return None
