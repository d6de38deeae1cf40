"""Ending things where nothing can be recorded: the disk is full or read-only, or the database is damaged.

What runs is found by the folders of the runs and by the run ids in the environments of processes, so no database is
needed. Nothing is written. The store agrees later: the next scheduler finds each run's exit code.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Collection
from pathlib import Path
from threading import Thread
from typing import NoReturn

from ..errors import StoreError, TinkschedError
from ..host import processes
from ..host.rundir import RunDir
from .workspace import Workspace

UNRECORDED = (StoreError, OSError)  # what keeps a command from being recorded
SCHEDULER_SECONDS = 15.0
WRAPPER_SECONDS = 5.0


def kill_all(workspace: Workspace, trouble: Exception) -> NoReturn:
    """End the scheduler and every run.

    Raises:
        TinkschedError: always: it says what was ended, and why that is not on record. Where nothing ran it is the
            trouble itself.
    """
    scheduler = ["the scheduler"] if _end_scheduler(workspace, force=True) else []
    ended, stuck = _end_runs(workspace, None)
    _tell("killed", [*scheduler, *ended], stuck, trouble, "what was queued stays queued: repeat it then")


def cancel(workspace: Workspace, tasks: Collection[str] | None, trouble: Exception) -> NoReturn:
    """End the runs of these tasks, or of all.

    Raises:
        TinkschedError: always, as above.
    """
    stems = (
        None
        if tasks is None
        else {name.rpartition(".")[0] if name.endswith((".yml", ".yaml")) else name for name in tasks}
    )
    ended, stuck = _end_runs(workspace, stems)
    _tell("ended", ended, stuck, trouble, "repeat it then: the task may be queued, or be tried again")


def stop(workspace: Workspace, trouble: Exception) -> NoReturn:
    """End the scheduler and let the runs go on.

    Raises:
        TinkschedError: always, as above.
    """
    ended = ["the scheduler"] if _end_scheduler(workspace, force=False) else []
    _tell("stopped", ended, [], trouble, "`start --unless-stopped` doesn't know that it was stopped")


def _tell(verb: str, ended: list[str], stuck: list[str], trouble: Exception, later: str) -> NoReturn:
    if not ended and not stuck:
        raise trouble
    what = [f"{verb}: {', '.join(ended)}"] if ended else []
    left = [f"could not be killed: {', '.join(stuck)}"] if stuck else []
    hint = getattr(trouble, "hint", None) or "make room on the disk"
    raise TinkschedError(
        f"{'; '.join([*what, *left])}; this could not be recorded: {trouble}", hint=f"{hint}; {later}"
    ) from None


def _end_scheduler(workspace: Workspace, *, force: bool) -> bool:
    """TERM makes it end without a record, and its runs go on."""
    holder = workspace.lock.holder()
    if holder is None:
        return False
    processes.send(holder, signal.SIGTERM)
    if not processes.wait_for([holder], SCHEDULER_SECONDS):
        if not force:
            raise TinkschedError(f"the scheduler (process {holder.pid}) did not end", hint=f"kill -9 {holder.pid}")
        processes.send(holder, signal.SIGKILL)
        processes.wait_for([holder], WRAPPER_SECONDS)
    return True


def _end_runs(workspace: Workspace, tasks: Collection[str] | None) -> tuple[list[str], list[str]]:
    """End the runs that live, those of some tasks or all. Returns the tasks of those that are dead, and of the rest."""
    folders = [RunDir(path) for path in workspace.state.runs.iterdir()] if workspace.state.runs.is_dir() else []
    living = processes.of_runs(folder.path.name for folder in folders)
    named = {folder: _task(folder) for folder in folders}
    chosen = [
        folder
        for folder, task in named.items()
        if (tasks is None or task in tasks) and (living[folder.path.name] or processes.wrappers(str(folder.path)))
    ]
    dead: set[str] = set()
    threads = [Thread(target=_end_run, args=(folder, workspace.settings.stop_grace, dead)) for folder in chosen]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ended = sorted(named[folder] for folder in chosen if folder.path.name in dead)
    return ended, sorted(named[folder] for folder in chosen if folder.path.name not in dead)


def _task(folder: RunDir) -> str:
    return str(folder.about().get("task", {}).get("name", folder.path.name))


def _end_run(folder: RunDir, grace: float, dead: set[str]) -> None:
    """As the executor does it; the wrapper writes the exit code into the room that was kept for it."""
    with contextlib.suppress(OSError):
        folder.take_back()
    run_id = folder.path.name
    processes.end(run_id, grace=grace)
    wrappers = processes.wrappers(str(Path(folder.path)))
    if not processes.wait_for(wrappers, WRAPPER_SECONDS):
        for process in wrappers:
            processes.send(process, signal.SIGKILL)
        processes.wait_for(wrappers, 1.0)
    if not processes.end(run_id, grace=0)[1]:
        dead.add(run_id)
