"""`doctor --repair`: a damaged database is kept aside, and a new one is made of all that is left.

What SQLite can still read comes first. The rest comes from the folders of the runs, which tell of each run what was on
record when it was launched, whether it began, and how it ended. A run that may still live, or whose end is not on
record, comes back as active: the next scheduler finds it by its run id, and decides from the evidence as always.
Nothing is started here.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..config.served import is_served
from ..core.model import Outcome, Reason, ReasonCode
from ..errors import Damaged, TinkschedError, UsageError
from ..host import processes, statedir
from ..host.completion import conclude
from ..host.leases import Leases
from ..host.rundir import RunDir
from ..store import STOPPED, Store, records, salvage
from . import selection
from .markers import is_marked
from .workspace import Workspace, actor

Row = dict[str, Any]
_ACTIVE = ("starting", "running")


@dataclass(slots=True)
class Repaired:
    """What was done. Names of tasks, except for `aside` (paths)."""

    aside: list[str] = field(default_factory=list)  # where the damaged files are kept
    from_database: list[str] = field(default_factory=list)
    from_runs: list[str] = field(default_factory=list)  # tasks or runs that only their folders told of
    active: list[str] = field(default_factory=list)  # have a run that lives, or whose end is still to be recorded
    lost: list[str] = field(default_factory=list)  # were active, and nothing is left of their run
    unknown: list[str] = field(default_factory=list)  # tasks with runs that live, of which nothing else is known
    new: list[str] = field(default_factory=list)  # configs without any record: `start` will queue them


def trouble(workspace: Workspace) -> TinkschedError | None:
    """What is wrong with the database; None if nothing is.

    Raises:
        TinkschedError: it can't be used now, but is not damaged: it is locked, newer, or on a full disk.
    """
    state = workspace.state
    try:
        if not state.exists:
            return None
        with Store.reading(state.database, shared=state.shared) as store:
            problems = store.problems()
            known = store.run_ids()
            store.check_rows()
    except Damaged as error:
        return error
    if problems:
        return Damaged(f"{state.database}: {'; '.join(problems[:3])}")
    strangers = [folder for folder in _folders(state.runs) if folder.path.name not in known and folder.is_prepared]
    begun = [folder.path.name for folder in strangers if folder.began() is not None]
    return Damaged(f"{state.database}: it knows nothing of the runs {', '.join(begun[:3])}") if begun else None


def repair(workspace: Workspace) -> Repaired | None:
    """Repair the database. None if nothing is wrong with it.

    Raises:
        TinkschedError: a scheduler runs, the state can't be written, or a server's jobs and tokens are in it.
    """
    if is_served(workspace.settings.file):
        raise UsageError(
            f"{workspace.state.database}: holds a server's jobs and tokens, which a repair would lose",
            hint="tinksched db restore FILE puts a backup in its place and keeps what is there",
        )
    state, home = statedir.prepare(workspace.settings.workspace, workspace.settings.state_dir)
    lock = workspace.lock
    if not lock.acquire():
        raise TinkschedError("a scheduler works on this database; nothing was changed", hint="tinksched stop")
    try:
        if trouble(workspace) is None:
            return None
        done = Repaired()
        rows = salvage.salvage(state.database)
        _Merge(workspace, rows, done).merge()
        place = next((row["value"] for row in rows["facts"] if row["key"] == "place"), home.path)
        rows["facts"] = [
            *(row for row in rows["facts"] if row["key"] not in (STOPPED, "place")),
            {"key": STOPPED, "value": "by doctor --repair"},
            {"key": "place", "value": place},
        ]
        _replace(state.database, rows, done)
        return done
    finally:
        lock.release()


def _replace(database: Path, rows: Mapping[str, list[Row]], done: Repaired) -> None:
    """Put a new database in place; the damaged one keeps its content under another name, its log with it."""
    fresh = database.with_name(f"state.db.new-{os.urandom(4).hex()}")
    try:
        salvage.build(fresh, rows)
        aside = f"{database}.damaged-{time.strftime('%Y%m%d-%H%M%S')}-{os.urandom(2).hex()}"
        # The log goes first: a new database must never meet the log of an old one.
        for ending in ("-wal", "-shm", ""):
            old = Path(f"{database}{ending}")
            if old.exists() or old.is_symlink():
                old.rename(f"{aside}{ending}")
                done.aside.insert(0, f"{aside}{ending}")
        fresh.rename(database)
        descriptor = os.open(database.parent, os.O_RDONLY | os.O_CLOEXEC)
        os.fsync(descriptor)
        os.close(descriptor)
    finally:
        for ending in ("", "-journal"):
            Path(f"{fresh}{ending}").unlink(missing_ok=True)


class _Merge:
    """Brings together what was read from the database and what the folders of the runs tell."""

    def __init__(self, workspace: Workspace, rows: dict[str, list[Row]], done: Repaired) -> None:
        self._workspace = workspace
        self._rows = rows
        self._done = done
        self._tasks: dict[str, Row] = {row["name"]: row for row in rows["tasks"]}
        self._runs: dict[str, Row] = {row["id"]: row for row in rows["runs"]}
        self._now = time.time()

    def merge(self) -> None:
        """Change the rows in place, and say what was done."""
        self._done.from_database = sorted(self._tasks)
        folders = {folder.path.name: folder for folder in _folders(self._workspace.state.runs)}
        self._living = processes.of_runs(folders)
        added = [run for name, folder in folders.items() if name not in self._runs if (run := self._found(folder))]
        self._number()
        for task in self._tasks.values():
            self._settle(task, {run["id"] for run in added})
        self._rows["tasks"] = list(self._tasks.values())
        self._rows["runs"] = list(self._runs.values())
        for run in added:
            self._log(run)
        self._done.from_runs = sorted({run["task"] for run in added})
        self._done.new = self._without_record()
        leased = Leases().of_workspace(str(self._workspace.settings.workspace))
        self._done.unknown = sorted(claim.task for claim in leased if claim.run_id not in self._runs)

    def _found(self, folder: RunDir) -> Row | None:
        """The run of a folder that the database knows nothing of; None if it never began, and now never will."""
        try:
            if folder.began() is None and folder.take_back():
                return None
        except OSError:
            return None
        name = folder.path.name
        about = folder.about()
        try:
            task: Row = dict(about["task"])
            run: Row = dict(about["run"])
            old, new = self._places(str(run["directory"]), folder.path)
            task, run = records.moved(task, old, new), records.moved(run, old, new)
            for column in ("spec", "record"):
                row = task if column == "spec" else run
                row[column] = json.dumps(records.moved(json.loads(row[column]), old, new))
            run |= {"task": task["name"], "state": "running", "started_at": run["created_at"]}
            records.run_of({**run, "task_id": 0})
            task.setdefault("id", 0)
            records.task_of({"request": None, **task})
        except (KeyError, ValueError, TypeError, AttributeError):
            return None
        self._tasks.setdefault(str(task["name"]), {**task, "id": 0, "attempts": 0})
        self._runs[name] = run
        return run

    def _places(self, before: str, now: Path) -> tuple[str, str]:
        """Where the workspace was when the run was launched, and where it is."""
        here = self._workspace.settings.workspace
        if not now.is_relative_to(here):
            return str(here), str(here)
        return before.removesuffix(f"/{now.relative_to(here)}"), str(here)

    def _number(self) -> None:
        """Ids for the tasks that have none, and the runs' references to them."""
        last = max((task["id"] for task in self._tasks.values()), default=0)
        for task in self._tasks.values():
            if not task["id"]:
                last += 1
                task["id"] = last
        for run in self._runs.values():
            run["task_id"] = self._tasks[run["task"]]["id"]

    def _settle(self, task: Row, added: set[str]) -> None:
        """Make a task and its runs agree. At most its newest run is active."""
        runs = sorted((run for run in self._runs.values() if run["task"] == task["name"]), key=_attempt)
        for run in runs[:-1]:
            if run["state"] in _ACTIVE:
                self._end(run)
        if runs and self._is_open(task, runs[-1], added):
            if runs[-1]["id"] in added:
                task["config_hash"] = json.loads(runs[-1]["record"] or "{}").get("config_hash")
            task |= {"state": "active", "outcome": None, "reason": None, "not_before": None}
            task["attempts"] = max(task["attempts"], runs[-1]["attempt"])
            self._done.active.append(task["name"])
            return
        if runs and runs[-1]["state"] in _ACTIVE:
            self._end(runs[-1])
        if task["state"] == "active":
            last = runs[-1] if runs and runs[-1]["attempt"] == task["attempts"] else None
            reason = Reason(ReasonCode.NO_EXIT_STATUS, {"why": ": its record is gone (doctor --repair)"})
            outcome = last["outcome"] if last else Outcome.LOST.value
            task |= {"state": "done", "outcome": outcome, "request": None, "requested_by": None}
            task["reason"] = last["reason"] if last else records.reason_text(reason)
            if outcome == Outcome.LOST.value:
                self._done.lost.append(task["name"])

    def _is_open(self, task: Row, newest: Row, added: set[str]) -> bool:
        """Whether the task's newest run lives, or how it ended is not on record yet."""
        if newest["state"] not in _ACTIVE:
            return False
        if newest["id"] not in added or self._living.get(newest["id"]):
            return True
        return bool(newest["attempt"] > task["attempts"] or task["state"] == "active")

    def _end(self, run: Row) -> None:
        """End a run on record that is not its task's newest: as its exit code says."""
        status = RunDir(run["directory"]).exit_status()
        outcome, reason = Outcome.LOST, Reason(ReasonCode.NO_EXIT_STATUS)
        if status is not None:
            strict = self._workspace.settings.strict_exit
            found = conclude(status.code, fresh_marker=False, require_marker=False, strict_exit=strict)
            outcome, reason = found[0], found[1]  # type: ignore[assignment]
        run |= {
            "state": "ended",
            "outcome": outcome.value,
            "reason": records.reason_text(reason),
            "exit_code": status.code if status else None,
            "ended_at": max(status.at, run["created_at"]) if status else self._now,
        }

    def _log(self, run: Row) -> None:
        who, why = actor("doctor --repair"), "from the run's folder"
        event = {"at": self._now, "who": who, "task_id": run["task_id"], "run_id": run["id"], "what": "Recovered"}
        self._rows["events"].append({**event, "from_state": None, "to_state": run["state"], "why": why})

    def _without_record(self) -> list[str]:
        """Configs of which neither a record nor a marker tells."""
        try:
            configs = selection.available(self._workspace.settings)
        except TinkschedError:
            return []
        unknown = [config for config in configs if config.name not in self._tasks]
        return [config.name for config in unknown if not is_marked(self._workspace.settings, config)]


def _attempt(run: Row) -> int:
    return int(run["attempt"])


def _folders(runs: Path) -> list[RunDir]:
    return [RunDir(entry) for entry in sorted(runs.iterdir()) if entry.is_dir()] if runs.is_dir() else []
