"""What guards the state folder while a scheduler works: one that a task or a user deletes must not cost a task.

The database stays readable for who has it open, so everything that was committed can be put back in its place. The
runs are not touched: they hold their leases, and their wrappers write how they ended into folders that are made again.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection

from ..core.model import Run
from ..errors import TinkschedError
from ..host import environments, inotify, statedir
from ..host.rundir import RunDir
from ..host.statedir import Home, SchedulerLock, StateDir
from ..store import Store
from .journal import Journal
from .starting import clean_environment

QUIET_SECONDS = 0.2  # nobody who deletes a folder of this size rests so long


class Guard:
    """Notices that the state was deleted, and puts it back."""

    def __init__(self, state: StateDir, home: Home, lock: SchedulerLock, journal: Journal) -> None:
        self._state = state
        self._home = home
        self._lock = lock
        self._journal = journal

    def watch(self) -> inotify.Watch:
        """Hears of what may be a deletion.

        Raises:
            OSError: the kernel's limits are reached; then check_interval is the net.
        """
        watch = inotify.Watch()
        for path in (self._state.path, self._state.lock, self._state.database):
            watch.add(path, inotify.ATTRIB | inotify.DELETE_SELF | inotify.MOVE_SELF)
        return watch

    def is_deleted(self, store: Store) -> bool:
        """Whether the lock or the database that this scheduler works with is no longer in its place."""
        try:
            return self._lock.is_deleted() or store.is_deleted()
        except PermissionError:
            # It is private and ours; no other mode makes sense.
            try:
                self._state.path.chmod(0o700)
                self._journal.say(f"{self._state.path} had lost its permissions, and has them again")
            except OSError as error:
                self._journal.say(f"{self._state.path} can't be read any more: {error}")
            return False

    def put_back(self, store: Store, runs: Collection[Run]) -> bool:
        """Put everything back in its place. False if that can't be done; the runs go on in any case.

        Whoever deletes is let finish first, or what is put back would be deleted as well.
        """
        self._wait_for_quiet()
        running = ", ".join(run.task for run in runs) or "nothing"
        what = f"{self._state.path} was deleted or replaced while the scheduler worked"
        try:
            statedir.put_back(self._state, self._home)
            for run in runs:
                RunDir(run.directory).put_back(run.pid)
            for reference in {task.spec.environment_ref for task in store.queue()}:
                if environments.put_back(self._state.environments, reference, clean_environment(os.environ)):
                    self._journal.say("what is queued runs in the scheduler's environment: its own was deleted")
            if not store.is_deleted() or store.put_back():
                self._journal.say(f"{what}: all that it knew is there again, and it goes on ({running} running)")
                return True
            self._journal.say(f"{what}, and somebody has made a new one: this scheduler ends ({running} running on)")
        except (OSError, TinkschedError) as error:
            self._journal.say(f"{what}, and can't be put back ({error}): the scheduler ends ({running} running on)")
        return False

    def _wait_for_quiet(self) -> None:
        before: list[tuple[str, list[str], list[str]]] | None = None
        while True:
            now = sorted(os.walk(self._state.path))
            if now == before:
                return
            before = now
            time.sleep(QUIET_SECONDS)
