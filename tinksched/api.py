"""A workspace from Python: the operations of the command line, typed, with the same rules.

    from tinksched import Workspace

    lab = Workspace("~/experiments/first")
    lab.start()
    outcomes = lab.wait(timeout=3600)

Every error is a `TinkschedError`; its `message` says what happened and its `hint` what to do next. Nothing is printed.
Each call reads the configuration anew and opens the state only while it works, so that one object may be kept and used
from any thread. The scheduler is a process of its own, and outlives the program that started it.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from .config import Settings
from .errors import NothingToActOn, TinkschedError
from .operations import control, daemon, emergency, history, setup, waiting
from .operations import logs as logging
from .operations import report as reporting
from .operations import start as starting
from .operations import status as looking
from .operations import sweep as sweeping
from .operations import workspace as workspaces
from .operations.control import Cancelled, Killed, Stopped
from .operations.history import History
from .operations.report import Report
from .operations.selection import Wanted
from .operations.snapshot import Status, TaskStatus
from .operations.start import Plan, Wish
from .operations.sweep import Sweep

__all__ = [
    "Cancelled", "History", "Killed", "Plan", "Report", "Settings", "Status", "Stopped", "Sweep", "TaskStatus",
    "TinkschedError", "Workspace",
]  # fmt: skip

Value = str | int | float | bool | None | Sequence[object] | Mapping[str, object]
_PLAIN = re.compile(r"[A-Za-z_][\w./-]*")
_WORDS = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}


class Workspace:
    """A workspace: a folder with a `scheduler_config.yml`."""

    def __init__(self, folder: str | Path | None = None, *, config: str | Path | None = None) -> None:
        """The workspace in `folder`; by default the one that the current folder lies in.

        Raises:
            WorkspaceError: there is none.
            ConfigError: its configuration has problems, all of which are listed.
        """
        self._config = None if config is None else Path(config).expanduser().absolute()
        found = workspaces.find(None if folder is None else Path(folder).expanduser(), self._config)
        self.folder: Path = found.settings.workspace

    @classmethod
    def setup(cls, folder: str | Path, *, force: bool = False) -> Workspace:
        """Make a folder a workspace (`setup-workspace`); with `force` one that is there is brought up to date.

        Raises:
            TinkschedError: it is one already, or can't be written.
        """
        setup.setup_workspace(Path(folder).expanduser(), force=force)
        return cls(folder)

    def __repr__(self) -> str:
        return f"Workspace({str(self.folder)!r})"

    @property
    def settings(self) -> Settings:
        """The configuration as it is now. Raises ConfigError."""
        return self._found().settings

    # -- queueing

    def start(
        self, configs: str | Sequence[str] | None = None, gpus: str | Sequence[int] | None = None, *,
        rerun: bool = False, failed: bool = False, changed: bool = False,
    ) -> Plan:  # fmt: skip
        """Queue configs and have a scheduler run. Without a list: those that are new. Entry i of `gpus` pins config i.

        Returns:
            What was queued (`queued`), and what was left and why (`sorted`).

        Raises:
            TinkschedError: something is wrong, and nothing was queued.
        """
        found = self._found()
        prepared = starting.prepare(found.settings, _wish(configs, gpus, rerun, failed, changed))
        with found.open() as opened:
            plan = starting.queue(opened, prepared)
            if opened.store.has_queue() or opened.store.active_tasks():
                daemon.ensure(opened)
        return plan

    def plan(
        self, configs: str | Sequence[str] | None = None, gpus: str | Sequence[int] | None = None, *,
        rerun: bool = False, failed: bool = False, changed: bool = False,
    ) -> Plan:  # fmt: skip
        """What `start` would do (`start --dry-run`). Raises as it does."""
        found = self._found()
        return starting.plan(found, starting.prepare(found.settings, _wish(configs, gpus, rerun, failed, changed)))

    def retry(self, *tasks: str, failed: bool = False) -> tuple[str, ...]:
        """Queue finished tasks again: these, or all that failed. Returns their names.

        Raises:
            NothingToActOn: there is no such task, or none that is done.
        """
        with self._found().open_existing() as opened:
            return control.retry(opened, Wanted(tasks, failed=failed)).queued

    def sweep(
        self, template: str | Path, grid: Mapping[str, str | Sequence[Value]], *, out_dir: str | Path | None = None,
        dry_run: bool = False, start: bool = False, many: bool = False, force: bool = False,
    ) -> Sweep:  # fmt: skip
        """Write one config for each point of a grid. A text of the grid is read as on the command line (`"1,2,3"`).

        Raises:
            UsageError: the template or the grid can't be used, or it has more than 1,000 points without `many`.
        """
        found = self._found()
        assignments = [f"{key}={said if isinstance(said, str) else _said(said)}" for key, said in grid.items()]
        folder = None if out_dir is None else Path(out_dir).expanduser()
        made = sweeping.plan(found.settings, str(template), assignments, out_dir=folder, many=many or dry_run)
        if not dry_run:
            sweeping.write(made, force=force)
            if start:
                sweeping.queue(found, made)
        return made

    # -- looking

    def status(self) -> Status:
        """The workspace now: scheduler, GPUs, and every task."""
        return looking.status(self._found())

    def tasks(self) -> dict[str, TaskStatus]:
        """Every task by name, those included that were never queued."""
        return {task.name: task for task in self.status().tasks}

    def explain(self, task: str) -> list[str]:
        """Sentences on why a task waits, or how it ended. Raises NothingToActOn: there is no such task."""
        return looking.explain(self._found(last_good=True), task)[1]

    def show(self, task: str, attempt: int | None = None) -> History:
        """Everything on record about a task and its runs. Raises NothingToActOn: there is no such task or attempt."""
        return history.show(self._found(last_good=True), task, attempt)

    def logs(self, task: str, attempt: int | None = None) -> str:
        """What a run printed, without what a progress bar overwrote; of the newest one unless `attempt` is given.

        Raises:
            NothingToActOn: there is no such task, run or log.
        """
        log = logging.find(self._found(last_good=True), task, attempt)
        try:
            return logging.clean(log.path.read_bytes())
        except FileNotFoundError:
            return ""

    def follow(self, task: str) -> Iterator[bytes]:
        """What a run prints, from its beginning to its end, as it comes. Raises NothingToActOn as `logs` does."""
        found = self._found(last_good=True)
        return logging.follow(found, task, logging.find(found, task, None))

    def report(self, since: str | None = None) -> Report:
        """What ran where and when, what failed, what tasks measured; `since` as on the command line: `7d`, a date."""
        return reporting.report(self._found(), since)

    # -- waiting and ending

    def wait(self, *tasks: str, timeout: float | None = None) -> dict[str, str]:
        """Wait until these tasks are done, or all that are queued or running now. Returns their outcomes by name.

        Raises:
            NothingToActOn: there is no such task.
            TimedOut: they are not done after `timeout` seconds. They go on.
            TinkschedError: the scheduler was stopped meanwhile.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._found().open_existing() as opened:
            names = list(tasks) or waiting.choose(opened, Wanted())
            known = opened.store.named(names)
            missing = [name for name in names if name not in known]
            if missing:
                raise NothingToActOn(f"there is no task {missing[0]!r}", hint="tasks() has all of them")
            if names:
                for _ in waiting.follow(opened, names, deadline):
                    pass
            done = opened.store.named(names)
            return {name: done[name].outcome.value for name in names if done[name].outcome}  # type: ignore[union-attr]

    def cancel(self, *tasks: str) -> Cancelled:
        """Cancel tasks: a queued one leaves the queue, a running one is ended, verified dead.

        Raises:
            NothingToActOn: there is no such task, or none that is queued or running.
        """
        found = self._found(last_good=True)
        try:
            with found.open_existing() as opened:
                return control.cancel(opened, Wanted(tasks))
        except emergency.UNRECORDED as trouble:
            emergency.cancel(found, tasks, trouble)

    def stop(self) -> Stopped:
        """Stop the scheduler; runs go on. Raises TinkschedError: it did not end."""
        found = self._found(last_good=True)
        try:
            with found.open_existing() as opened:
                return control.stop(opened)
        except emergency.UNRECORDED as trouble:
            emergency.stop(found, trouble)

    def kill_all(self) -> Killed:
        """The emergency stop: end the scheduler and every run of this workspace, now."""
        found = self._found(last_good=True)
        try:
            with found.open() as opened:
                return control.kill_all(opened)
        except emergency.UNRECORDED as trouble:
            emergency.kill_all(found, trouble)

    def _found(self, *, last_good: bool = False) -> workspaces.Workspace:
        folder = getattr(self, "folder", None)
        return workspaces.find(folder, self._config, last_good=last_good)


def _wish(
    configs: str | Sequence[str] | None, gpus: str | Sequence[int] | None, rerun: bool, failed: bool, changed: bool
) -> Wish:
    names = configs if configs is None or isinstance(configs, str) else ",".join(configs)
    pins = gpus if gpus is None or isinstance(gpus, str) else ",".join(map(str, gpus))
    return Wish(names, pins, rerun, failed, changed)


def _said(values: Sequence[Value]) -> str:
    """Values of Python as the command line would have them."""
    return ",".join(
        value
        if isinstance(value, str) and _PLAIN.fullmatch(value) and value.lower() not in _WORDS
        else json.dumps(value, ensure_ascii=False)
        for value in values
    )
