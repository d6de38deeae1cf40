"""The engine of a server: a workspace of its own, with a scheduler that lives in a thread of the server's process.

The workspace lies in the server's state folder, so that every command of the command line works on it as well:
`tinksched --workspace STATE_DIR status`, `attach`, `cancel`.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import TypeVar

from ..config import Settings
from ..config.server import ServerSettings
from ..core.model import Reason
from ..errors import TinkschedError, UsageError
from ..host import environments, gpus
from ..host.statedir import Home, SchedulerLock, StateDir
from ..scheduler.devices import Watch, gpus_if_any
from ..scheduler.journal import Journal
from ..scheduler.resident import Resident
from ..scheduler.starting import Logs
from ..store import STOPPED, Store
from ..store.transaction import Transaction
from . import isolation, services_setup, state

T = TypeVar("T")
WHO = "server"
_KEPT = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "LD_LIBRARY_PATH")  # of the server's environment, for jobs


class Engine:
    """Runs jobs. Its methods may be called from any thread."""

    def __init__(self, settings: ServerSettings) -> None:
        """Prepare the state folder; nothing runs yet.

        Raises:
            TinkschedError: the folder can't be used, or another server works there.
        """
        self.settings = settings
        self.folder = settings.state_dir
        self.trouble: TinkschedError | None = None
        self.gpus: Mapping[int, str] = {}  # index to device name
        self.note: str | None = None
        self.watch: Watch | None = None  # what looks at the GPUs, once it does
        self.on_renewed: Callable[[], object] = _nothing  # the database is another file now
        self.on_ended: Callable[[], object] = _nothing  # no job will be run any more
        self._begun = threading.Event()
        self._is_ending = False
        self._resident: Resident | None = None
        self._state, self._home = state.prepare(settings)
        state.make_results(settings)
        self._lock = SchedulerLock(self._state)
        self._take_lock()
        try:
            self.isolation = isolation.prepare(settings)
            services_setup.prepare(settings, self.isolation, self._state)
            self.workspace = state.configure(settings)
            self.environment = environments.save(self._state.environments, _environment())
            with Store(self._state.database) as store, store.transaction(WHO, 0.0) as tx:
                tx.set_fact(STOPPED, None)
        except OSError as error:
            self._lock.release()
            raise UsageError(f"{self.folder}: can't be written: {error.strerror}") from None
        except BaseException:
            self._lock.release()
            raise
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)

    @property
    def database(self) -> Path:
        """The database of the tasks, the jobs and the tokens."""
        return self._state.database

    @property
    def state(self) -> StateDir:
        """The private state of its workspace."""
        return self._state

    @property
    def gpus_per_job(self) -> int:
        """How many GPUs a job gets; 0 where there are none."""
        return self.settings.gpus_per_job if self.gpus else 0

    @property
    def nodes(self) -> list[int]:
        """The numbers of the nodes: the indices of the GPUs, or those of the CPU slots."""
        return list(self.gpus) if self.gpus_per_job else list(range(self.settings.cpu_slots))

    def start(self) -> None:
        """Begin to run what is queued.

        Raises:
            TinkschedError: it could not begin.
        """
        self._thread.start()
        self._begun.wait()
        if self.trouble is not None:
            raise self.trouble

    def is_alive(self) -> bool:
        """Whether jobs can be run."""
        return self._thread.is_alive()

    def do(self, work: Callable[[Transaction], T]) -> Future[T]:
        """Write: see `Resident.do`."""
        if self._resident is None:
            raise TinkschedError("the scheduler does not run")
        return self._resident.do(work, WHO)

    def reasons(self) -> Future[dict[str, Reason]]:
        """Why each job that waits does: see `Resident.reasons`."""
        if self._resident is None:
            raise TinkschedError("the scheduler does not run")
        return self._resident.reasons()

    def stop(self) -> None:
        """End; jobs that run go on, and are found again by the next server."""
        self._is_ending = True  # first: a resident that is being made looks at it
        if self._resident is not None:
            self._resident.end()
        if self._thread.is_alive():
            self._thread.join()
        self._lock.release()

    # -- the thread

    def _work(self) -> None:
        try:
            while self._once():
                self._begin_anew()
        except TinkschedError as error:
            self.trouble = error
        except Exception as error:  # a defect: `/health` says it, and no client waits for what will not come
            self.trouble = TinkschedError(f"the scheduler ended: {error!r}")
        finally:
            self._begun.set()
            self.on_ended()

    def _begin_anew(self) -> None:
        """The state was deleted, and what the scheduler knew is there again: in another file, under another lock."""
        self._lock.release()
        self._take_lock()
        environments.save(self._state.environments, _environment())  # what was put there is the server's own
        self.on_renewed()

    def _take_lock(self) -> None:
        if not self._lock.acquire():
            raise UsageError(f"{self.folder}: another server works here already", hint="name another state_dir")

    def _find_gpus(self, inventory: gpus.Inventory) -> tuple[Mapping[int, str], str | None]:
        """The GPUs for jobs, and what is to be said about them. None where nobody knows of any."""
        if not self.settings.gpus_per_job:
            return {}, None
        if not inventory.driver and self.settings.use_gpus is None:
            return {}, "no NVIDIA driver"
        found = gpus_if_any(self.workspace, inventory)
        return found.names, found.note

    def _once(self) -> bool:
        """Be the scheduler until it ends. Returns whether to begin anew: its state was deleted, and put back."""
        journal = Journal(_log_of(self.workspace, self._home), screen=False)
        try:
            watch = self.watch = Watch()
            self.gpus, self.note = self._find_gpus(watch.inventory)
            self._resident = Resident(
                self.workspace, self._state, self._home, self.gpus, journal, self._lock, watch,
                begun=self._begun.set,
            )  # fmt: skip
            if self._is_ending:
                self._resident.end()
            result = asyncio.run(self._resident.run())
            if result.deleted is False:
                raise TinkschedError(f"{self._state.path} was deleted while the server worked, and is not there again")
            return result.deleted is True
        finally:
            journal.close()


def _nothing() -> None:
    """Nobody wants to know."""


def _environment() -> dict[str, str]:
    """The environment of the jobs: clean, so that nothing of the server's secrets is in it."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    return {"PATH": os.defpath, "LANG": "C.UTF-8", **kept}


def _log_of(settings: Settings, home: Home) -> Path:
    logs = Logs(settings, home)
    try:
        logs.prepare()
    except OSError as error:
        raise UsageError(f"{logs.folder}: can't be written: {error.strerror}") from None
    return logs.scheduler
