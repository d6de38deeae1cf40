"""Copies of the server's database: made while it works, put back while it doesn't, and looked at."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..config.server import ServerSettings
from ..core.lifecycle import Dropped
from ..core.model import Outcome, Reason, ReasonCode
from ..errors import Damaged, StoreError, UsageError
from ..host.leases import Leases
from ..host.rundir import RunDir, sync
from ..host.statedir import SchedulerLock, StateDir
from ..store import Store
from ..store.database import connect, connect_new
from . import state, tables
from .folders import Folders

WHO = "db restore"


@dataclass(frozen=True, slots=True)
class Restored:
    """What `restore` has done."""

    kept: Path | None  # the database of before
    given_up: tuple[str, ...]  # jobs that waited in the backup, and have run since


def backup(settings: ServerSettings, file: Path, *, force: bool) -> None:
    """Write everything that is committed at this instant to a file that only its owner can read. The server goes on.

    Raises:
        UsageError: the file is there already and `force` is false, or it can't be written.
        StoreError: the database can't be read.
    """
    place = state.existing(settings)
    file = Path(os.path.abspath(file))
    if file.resolve().is_relative_to(place.path.resolve()):
        raise UsageError(f"{file}: lies in the state itself", hint="name a file elsewhere, best on another disk")
    aside = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        if file.exists() and not force:
            raise UsageError(f"{file}: is there already", hint="--force replaces it")
        with contextlib.closing(connect(place.database, create=False)) as source:
            _copy(source, aside)
        _put(aside, file, force=force)
    except OSError as error:
        raise UsageError(f"{file}: can't be written: {error.strerror}") from None
    except sqlite3.Error as error:
        raise StoreError(f"{file}: the backup can't be written: {error}") from None
    finally:
        aside.unlink(missing_ok=True)


def restore(settings: ServerSettings, file: Path) -> Restored:
    """Put a backup in the place of the database, which is kept beside it.

    Raises:
        UsageError: a server works, or jobs run of which the backup knows nothing.
        StoreError: the file is no backup of a server, damaged, or newer than this program.
    """
    place = state.place(settings)
    lock = SchedulerLock(place)
    if not lock.acquire():
        raise UsageError(f"{settings.state_dir}: a server works here", hint="stop it first")
    aside = place.path / f"restored.{os.getpid()}"
    try:
        _read(file, aside)
        with Store(aside) as store:
            strangers = _strangers(settings, place, store)
            given_up = _give_up(settings, strangers, store)
        with contextlib.closing(connect(aside, create=False)) as whole:
            whole.execute("PRAGMA journal_mode = DELETE")  # so that this one file is all of it
        kept = _set_aside(place, strangers)
        aside.rename(place.database)
        sync(place.path)
        return Restored(kept, given_up)
    except OSError as error:
        raise UsageError(f"{place.database}: can't be restored: {error.strerror}") from None
    finally:
        for ending in ("", "-wal", "-shm"):
            Path(f"{aside}{ending}").unlink(missing_ok=True)
        lock.release()


def problems(settings: ServerSettings) -> tuple[list[str], str]:
    """What is wrong with the database, and what it holds in a few words. Nothing is changed.

    Raises:
        StoreError: it can't be read at all.
    """
    place, folders = state.existing(settings), Folders(settings.state_dir)
    with Store.reading(place.database) as store:
        found = store.problems()
    known = tables.Tables(place.database)
    try:
        jobs, lost = known.job_ids(), known.without_task()
        found += [f"job {job}: its task is gone" for job in lost]
        waiting = [job for job in (*known.waiting(), *known.running()) if not folders.work(job.id).is_dir()]
        found += [f"job {job.id}: is {job.status}, and its folder is gone" for job in waiting]
        found += [f"{folder}: belongs to no job" for folder in folders.strange(jobs)]
        good = sum(token.is_good(time.time()) for token in known.tokens())
    except sqlite3.Error as error:
        raise Damaged(f"{place.database}: the server's tables can't be read: {error}") from None
    finally:
        known.close()
    size = place.database.stat().st_size / 1e6
    return found, f"{len(jobs)} jobs, {good} good tokens, {size:.1f} MB"


def _read(file: Path, aside: Path) -> None:
    """Copy a backup and look at the copy. Raises StoreError: it is none."""
    try:
        with contextlib.closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as source:
            _copy(source, aside)
    except sqlite3.Error as error:
        raise Damaged(f"{file}: can't be read as a backup: {error}") from None
    try:
        with Store(aside) as store:
            if store.fact(tables.VERSION) is None:
                raise Damaged(f"{file}: is no backup of a server's database")
            found = store.problems()
            with store.transaction(WHO, time.time()) as tx:
                tables.migrate(tx)
    except StoreError as error:
        raise type(error)(str(error).replace(str(aside), str(file))) from None
    if found:
        raise Damaged(f"{file}: the backup is damaged: {found[0]}")


def _copy(source: sqlite3.Connection, aside: Path) -> None:
    with contextlib.closing(connect_new(aside)) as copy:
        source.backup(copy)
        copy.execute("PRAGMA journal_mode = DELETE")  # so that this one file is all of it


def _put(aside: Path, file: Path, *, force: bool) -> None:
    """Whole, or not at all. Raises UsageError: somebody else was faster."""
    if force:
        aside.replace(file)
    else:
        try:
            os.link(aside, file)
        except FileExistsError:
            raise UsageError(f"{file}: is there already", hint="--force replaces it") from None
    sync(file.parent)


def _strangers(settings: ServerSettings, place: StateDir, store: Store) -> list[RunDir]:
    """The runs that have begun since the backup. Raises UsageError: one of them still runs."""
    names = os.listdir(place.runs) if place.runs.is_dir() else []
    unknown = store.unknown_runs(names)
    living = {claim.run_id: claim.task for claim in Leases().of_workspace(str(settings.state_dir.resolve()))}
    if running := sorted(living[run] for run in store.unknown_runs(living)):
        raise UsageError(
            f"jobs run of which the backup knows nothing: {', '.join(running[:3])}",
            hint=f"wait for them, or end them: tinksched --workspace {settings.state_dir} kill-all",
        )
    return [RunDir(place.runs / name) for name in unknown]


def _give_up(settings: ServerSettings, strangers: list[RunDir], store: Store) -> tuple[str, ...]:
    """Jobs that waited when the backup was made and have run since must not run again."""
    folders = Folders(settings.state_dir)
    ran = {str(folder.about().get("task", {}).get("name")) for folder in strangers}
    why = Reason(ReasonCode.NO_EXIT_STATUS, {"why": ": it ran after the backup was made that was restored"})
    given_up = [task for task in store.queue() if task.name in ran or folders.has_run(task.name)]
    if given_up:
        with store.transaction(WHO, time.time()) as tx:
            for task in given_up:
                tx.apply(task, Dropped(Outcome.LOST, why))
    return tuple(task.name for task in given_up)


def _set_aside(place: StateDir, strangers: list[RunDir]) -> Path | None:
    """Out of the way, and nothing deleted. The files of a database belong together."""
    ending = f"before-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    if strangers:
        runs = place.path / f"runs.{ending}"
        runs.mkdir(mode=0o700)
        for folder in strangers:
            folder.path.rename(runs / folder.path.name)
    kept = place.path / f"{place.database.name}.{ending}"
    for side in _files(place.database):
        Path(f"{place.database}{side}").rename(f"{kept}{side}")
    return kept if kept.exists() else None


def _files(database: Path) -> Iterator[str]:
    """The log first: a database without it is not the same one."""
    return (side for side in ("-wal", "-shm", "") if Path(f"{database}{side}").exists())
