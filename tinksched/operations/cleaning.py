"""`clean`: forgetting finished tasks, with what is kept of them. What is queued or active is never touched, nor are
completion markers, nor files that are not ours.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..core.model import TaskState, in_words
from ..errors import NothingToActOn, TinkschedError
from ..host import wake
from ..host.rundir import RunDir
from ..host.tmux import Pane, Tmux
from ..scheduler.starting import OWNER
from ..store import Listed, Remains
from . import selection
from .selection import Wanted
from .workspace import OpenWorkspace, actor


@dataclass(frozen=True, slots=True)
class Kinds:
    """What is to be removed of the tasks."""

    records: bool = True
    sessions: bool = True
    logs: bool = True


@dataclass(frozen=True, slots=True)
class Rubbish:
    """What `clean` removes, or would remove."""

    kinds: Kinds
    tasks: tuple[Listed, ...]
    runs: tuple[Remains, ...]
    sessions: tuple[Pane, ...]
    logs: tuple[str, ...]
    log_bytes: int
    left: tuple[tuple[str, str], ...]  # tasks that were named and are not done

    def json(self, *, removed: bool) -> dict[str, object]:
        """For programs."""
        return {
            "removed": removed,
            "records": [task.name for task in self.tasks] if self.kinds.records else [],
            "sessions": len(self.sessions),
            "logs": list(self.logs),
            "log_bytes": self.log_bytes,
        }


def find(opened: OpenWorkspace, wanted: Wanted, older_than: float | None, kinds: Kinds) -> Rubbish:
    """What there is to remove of the tasks that are meant and have been done for `older_than` seconds.

    Raises:
        NothingToActOn: there is nothing.
    """
    store = opened.store
    roster = store.roster()
    if wanted.words or wanted.failed:
        chosen = set(selection.select(store, wanted))
        roster = [task for task in roster if task.name in chosen]
    limit = time.time() - (older_than or 0.0)
    done = [task for task in roster if task.state == TaskState.DONE.value and task.changed_at <= limit]
    left = [
        (task.name, f"is {in_words(task.state)}")
        for task in roster
        if task.state != TaskState.DONE.value and wanted.words
    ]
    if not done:
        age = " and old enough" if older_than else ""
        said = selection.listed([f"{name} {why}" for name, why in left])
        raise NothingToActOn(f"nothing to clean: no such task is done{age}{f' ({said})' if said else ''}")
    runs = store.remains(done)
    logs = _logs(opened, runs) if kinds.logs else {}
    sessions = _sessions(opened, runs) if kinds.sessions else []
    return Rubbish(
        kinds, tuple(done), tuple(runs), tuple(sessions), tuple(logs), sum(logs.values()), tuple(left)
    )  # fmt: skip


def remove(opened: OpenWorkspace, rubbish: Rubbish) -> int:
    """Remove it. Returns of how many tasks: one that was queued again meanwhile stays.

    The folders of runs go first: a folder without a record would look as if the database had lost it.
    """
    if rubbish.sessions:
        with contextlib.suppress(TinkschedError):
            Tmux(opened.settings.tmux_socket).kill_sessions(rubbish.sessions)
    gone: Sequence[Listed] = rubbish.tasks
    if rubbish.kinds.records:
        directories = {run.directory for run in rubbish.runs}
        for folder in opened.state.runs.iterdir():
            if str(folder) in directories:
                RunDir(folder).remove()
        with opened.store.transaction(actor("clean"), time.time()) as tx:
            gone = tx.remove_tasks(rubbish.tasks)
    ids = {task.id for task in gone}
    ours = {run.log for run in rubbish.runs if run.task_id in ids}
    for path in rubbish.logs:
        if path in ours:
            with contextlib.suppress(OSError):
                os.unlink(path)
    wake.announce(opened.state.path)
    return len(gone)


def _sessions(opened: OpenWorkspace, runs: Sequence[Remains]) -> list[Pane]:
    """The sessions that are kept of these runs, found by the ids of the runs."""
    ids = {run.id for run in runs if run.session}
    if not ids:
        return []
    with contextlib.suppress(TinkschedError):  # without a tmux there are no sessions
        return [pane for pane in Tmux(opened.settings.tmux_socket).panes() if pane.run in ids]
    return []


def _logs(opened: OpenWorkspace, runs: Sequence[Remains]) -> dict[str, int]:
    """The logs of these runs that are there, with their sizes: plain files in folders that say that they are ours."""
    ours: dict[str, bool] = {}
    found: dict[str, int] = {}
    for path in (run.log for run in runs if run.log is not None):
        folder = os.path.dirname(path)
        if folder not in ours:
            ours[folder] = _is_ours(Path(folder), opened.home.workspace_id)
        with contextlib.suppress(OSError):
            status = os.lstat(path)
            if ours[folder] and stat.S_ISREG(status.st_mode):
                found[path] = status.st_size
    return found


def _is_ours(folder: Path, workspace_id: str) -> bool:
    try:
        return (folder / OWNER).read_text().strip() == workspace_id
    except OSError:
        return False
