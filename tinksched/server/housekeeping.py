"""Forgetting jobs that ended long ago, and what is kept of them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..config.server import ServerSettings
from ..errors import TinkschedError
from ..host import wake
from ..host.rundir import RunDir
from ..host.statedir import StateDir
from ..host.tmux import Tmux
from ..store import Remains, Store
from .folders import Folders
from .tables import Old, Tables

_AT_ONCE = 200  # jobs in one transaction, for which the server has to wait


@dataclass(frozen=True, slots=True)
class Rubbish:
    """What `db clean` removes, or would remove."""

    jobs: tuple[Old, ...]
    folders: tuple[Path, ...]  # of no job on record
    results: bool  # results files, too

    @property
    def words(self) -> str:
        """In words."""
        jobs, files = len(self.jobs), sum(len(job.results_files) for job in self.jobs)
        said = [f"{jobs} job{'s' * (jobs != 1)} with what {'they' if jobs != 1 else 'it'} printed"]
        said += [f"{files} results file{'s' * (files != 1)}"] if self.results else []
        said += [f"{len(self.folders)} folders of no job"] if self.folders else []
        return ", ".join(said)


def find(settings: ServerSettings, place: StateDir, before: float, *, results: bool) -> Rubbish:
    """What has ended before a time.

    Raises:
        StoreError: the database can't be read.
    """
    known = Tables(place.database)
    try:
        jobs, ids = known.ended_before(before), known.job_ids()
    finally:
        known.close()
    strange = [path for path in Folders(settings.state_dir).strange(ids) if _changed_at(path) < before]
    return Rubbish(tuple(jobs), tuple(strange), results)


def remove(settings: ServerSettings, place: StateDir, rubbish: Rubbish) -> int:
    """Remove it, while a server works or not. Returns how many jobs: one that was queued again meanwhile stays.

    Raises:
        StoreError: the database can't be written.
    """
    folders, count = Folders(settings.state_dir), 0
    for folder in rubbish.folders:
        folders.remove(folder.name)
    with Store(place.database) as store:
        for jobs in _parts(rubbish.jobs):
            for job in _forget(settings, place, store, jobs):
                count += 1
                folders.remove(job.id)
                if rubbish.results:
                    _unlink(*job.results_files)
    wake.announce(place.path)
    return count


def expire(folders: Folders, database: Path, before: float) -> int:
    """Delete outputs and results files of jobs that ended before a time; the jobs stay on record. Returns how many."""
    known = Tables(database)
    try:
        old = [job for job in known.ended_before(before) if folders.has_any(job.id)]
    finally:
        known.close()
    for job in old:
        _unlink(*job.results_files)
        folders.remove(job.id)
    return len(old)


def _forget(settings: ServerSettings, place: StateDir, store: Store, jobs: Sequence[Old]) -> list[Old]:
    """Their records. The folders of runs go first: one without a record would look as if the database had lost it."""
    tasks = list(store.named([job.id for job in jobs]).values())
    runs = store.remains(tasks)
    _close_sessions(settings, runs)
    for run in runs:
        if Path(run.directory).parent == place.runs:
            RunDir(run.directory).remove()
    with store.transaction("db clean", time.time()) as tx:
        gone = {task.id: task.name for task in tx.remove_tasks(tasks)}  # their jobs go with them
    for run in runs:
        if run.task_id in gone and run.log:
            _unlink(run.log)
    names = frozenset(gone.values())
    return [job for job in jobs if job.id in names]


def _close_sessions(settings: ServerSettings, runs: Sequence[Remains]) -> None:
    ids = {run.id for run in runs if run.session}
    if ids:
        with contextlib.suppress(TinkschedError):  # without a tmux there are no sessions
            tmux = Tmux(settings.tmux_socket)
            tmux.kill_sessions([pane for pane in tmux.panes() if pane.run in ids])


def _parts(jobs: Sequence[Old]) -> Iterator[Sequence[Old]]:
    return (jobs[first : first + _AT_ONCE] for first in range(0, len(jobs), _AT_ONCE))


def _changed_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return time.time()


def _unlink(*paths: str) -> None:
    for path in paths:
        with contextlib.suppress(OSError):
            Path(path).unlink()
