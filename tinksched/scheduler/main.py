"""The scheduler's process: takes the workspace's lock, works, and gives it back."""

from __future__ import annotations

import asyncio
import contextlib

from ..config import Settings
from ..host import wake
from ..host.statedir import Home, SchedulerLock, StateDir
from ..store import STOPPED, Store
from .devices import BRIEF_SECONDS, Watch, gpus_if_any, resolve_gpus
from .journal import Journal
from .loop import Scheduler
from .result import Result
from .starting import Logs


def serve(settings: Settings, state: StateDir, home: Home) -> Result | None:
    """Be the workspace's scheduler until all is done or it is stopped. None if somebody else is it already.

    Raises:
        TinkschedError: it could not begin.
    """
    lock = SchedulerLock(state)
    journal = _journal(settings, home)
    try:
        while True:
            if not lock.acquire():
                journal.say("another scheduler works on this workspace already")
                wake.announce(state.path, b"ready")
                return None
            try:
                result = asyncio.run(_begin(settings, state, home, journal, lock).run())
            except Exception as error:
                journal.say(f"the scheduler ends: {error or type(error).__name__}")
                raise
            finally:
                lock.release()
            if result.deleted is not None:
                if result.deleted:
                    continue  # what was known is in its place again
                return result
            # What was asked for after the last look, and before the lock was free, is nobody's but ours.
            if result.terminated or not _wanted_again(state, result):
                _farewell(journal, result)
                wake.announce(state.path)
                return result
    finally:
        journal.close()


def settle_requests(settings: Settings, state: StateDir, home: Home) -> bool:
    """Without starting anything, do what was asked for about running tasks. False if a scheduler runs: it does it."""
    lock = SchedulerLock(state)
    if not lock.acquire():
        return False
    journal = _journal(settings, home, screen=False)
    try:
        asyncio.run(Scheduler(settings, state, home, {}, journal, lock, Watch(blind=True), launching=False).run())
    finally:
        lock.release()
        journal.close()
    return True


def _begin(settings: Settings, state: StateDir, home: Home, journal: Journal, lock: SchedulerLock) -> Scheduler:
    if _needs_no_gpu(state):  # GPUs that answer later are used from then on
        watch, find = Watch(patience=BRIEF_SECONDS), gpus_if_any
    else:
        watch, find = Watch(), resolve_gpus
    resolved = find(settings, watch.inventory)
    slots = settings.max_jobs_per_gpu
    note = f" ({resolved.note})" if resolved.note else ""
    indices = ", ".join(str(gpu.index) for gpu in resolved.gpus)
    where = f"GPU {indices}, {slots} slot{'s' * (slots > 1)} each" if indices else "no GPU"
    journal.say(f"tinksched works on {settings.workspace}: {where}{note}")
    return Scheduler(settings, state, home, resolved.names, journal, lock, watch)


def _needs_no_gpu(state: StateDir) -> bool:
    """Whether there is something to do without GPUs: tasks that need none, or runs to look after."""
    with Store(state.database, shared=state.shared) as store:
        return bool(store.active_runs()) or any(not task.spec.gpus for task in store.queued_sorts())


def _journal(settings: Settings, home: Home, *, screen: bool = True) -> Journal:
    if not settings.enable_logging:
        return Journal(None, screen=screen)
    logs = Logs(settings, home)
    with contextlib.suppress(OSError):  # a log that can't be written stops nobody
        logs.prepare()
    return Journal(logs.scheduler, screen=screen)


def _wanted_again(state: StateDir, result: Result) -> bool:
    """Whether somebody queued tasks, or took a stop back, while this scheduler was ending."""
    with Store(state.database, shared=state.shared) as store:
        if store.fact(STOPPED) is not None:
            return False
        return store.queue_length() > result.impossible or (result.stopped and bool(store.active_runs()))


def _farewell(journal: Journal, result: Result) -> None:
    outcomes = [f"{count} {kind.replace('_', ' ')}" for kind, count in sorted(result.counts.items())]
    tally = ", ".join(outcomes) or "no tasks"
    if result.stopped:
        journal.say(f"stopped; running tasks go on, and `tinksched start` finds them again ({tally})")
    elif result.impossible:
        journal.say(f"ended, but {result.impossible} queued can't run on these GPUs: see tinksched explain ({tally})")
    else:
        journal.say(f"all done: {tally}")
