"""A workspace from Python: the operations of the command line, typed, with the same rules.

    from tinksched import Workspace

    lab = Workspace("~/experiments/first")
    lab.start()
    outcomes = lab.wait(timeout=3600)

Every error is a `TinkschedError`; its `message` says what happened and its `hint` what to do next. Nothing is printed.
Each call reads the configuration anew and opens the state only while it works, so that one object may be kept and used
from any thread. The scheduler is a process of its own, and outlives the program that started it.

Tasks are named as on the command line: by name, glob, number (`"1-3,5"`), `"@"` for the one queued last, with `failed`
for those that failed, were lost or took too long, and with `everything` for all to which it applies.
`COMMAND_LINE_ONLY` says which commands have no method here, and why.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Literal

from .config import Settings, asked
from .core.model import Hold
from .errors import TinkschedError, UsageError
from .operations import (
    cleaning,
    commands,
    control,
    daemon,
    doctor,
    emergency,
    history,
    occupancy,
    personal,
    queue,
    repair,
    selection,
    setup,
    times,
    waiting,
)  # fmt: skip
from .operations import logs as logging
from .operations import report as reporting
from .operations import start as starting
from .operations import status as looking
from .operations import sweep as sweeping
from .operations import workspace as workspaces
from .operations.cleaning import Kinds, Rubbish
from .operations.commands import Order
from .operations.control import Cancelled, Killed, Stopped
from .operations.doctor import Check
from .operations.history import History
from .operations.occupancy import Occupancy
from .operations.queue import Changed
from .operations.repair import Repaired
from .operations.report import Report
from .operations.selection import Wanted
from .operations.snapshot import Status, TaskStatus
from .operations.start import Plan, Wish
from .operations.sweep import Sweep

__all__ = [
    "COMMAND_LINE_ONLY", "Cancelled", "Changed", "Check", "History", "Hold", "Killed", "Occupancy", "Plan", "Repaired",
    "Report", "Rubbish", "Settings", "Status", "Stopped", "Sweep", "TaskStatus", "TinkschedError", "Workspace",
]  # fmt: skip

COMMAND_LINE_ONLY: Mapping[str, str] = {  # commands that have no method, and why
    "watch": "it needs a terminal; `status`, `gpus`, `logs` and `follow` have what it shows",
    "attach": "it needs a terminal; `status` has the session and the command that shows it",
    "serve": "a server is a process of its own, started by a person or by systemd",
    "token": "of a server, whose HTTP API is what programs use",
    "scan": "of a server, as above",
    "register": "of a server: a person does it once",
    "dashboard": "a page for people; `status` and `report` have what it shows",
    "remote": "speaks to a server, whose HTTP API is what programs use",
    "db": "of a server: upkeep that a person or cron does",
    "completion": "for shells",
    "help": "the docstrings are here",
}
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

    @classmethod
    def personal(cls) -> Workspace:
        """The workspace of commands that belong to no other one; it is made where it isn't there.

        Raises:
            TinkschedError: it can't be made.
        """
        return cls(personal.make())

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

    def run(
        self, command: Sequence[str], *, gpus: int | None = None, memory: int | str | None = None,
        after: str | Sequence[str] = (), name: str | None = None, at: float | datetime | str | None = None,
        cwd: str | Path | None = None,
    ) -> str:  # fmt: skip
        """Queue any command as a task, with this program's environment, and have a scheduler run.

        Args:
            command: the program and its arguments, as for `subprocess`.
            gpus: how many, one slot on each.
            memory: what must be free on each of them: bytes, `"20GiB"`, or `"auto"`.
            after: tasks that must have completed first.
            name: the task's; by default one is made of the command.
            at: not before: seconds since the epoch, a datetime, or as on the command line (`"22:30"`, `"+2h"`).
            cwd: the folder in which it runs; by default the current one.

        Returns:
            The name of the task.

        Raises:
            TinkschedError: something is wrong, and nothing was queued.
        """
        if isinstance(command, str) or not command:
            raise UsageError("run takes a program and its arguments, as a list", hint='["sh", "-c", "a && b"]')
        order = Order(
            command=tuple(command),
            cwd=Path.cwd() / Path(cwd or ".").expanduser(),
            name=name,
            gpus=None if gpus is None else asked.gpus(str(gpus), "gpus"),
            memory=_memory(memory),
            after=(after,) if isinstance(after, str) else tuple(after),
            at=_moment(at),
        )
        with self._found().open() as opened:
            return commands.queue(opened, order)[0].name

    def retry(self, *tasks: str, failed: bool = False, everything: bool = False) -> tuple[str, ...]:
        """Queue finished tasks again: these, or all that failed, or all. Returns their names.

        Raises:
            NothingToActOn: there is no such task, or none that is done.
        """
        with self._found().open_existing() as opened:
            return control.retry(opened, Wanted(tasks, failed, everything)).queued

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

    # -- what waits

    def hold(self, *tasks: str, failed: bool = False, everything: bool = False) -> Changed:
        """Keep queued tasks from starting until `release`. Raises NothingToActOn: none of them is queued."""
        with self._found().open_existing() as opened:
            return queue.hold(opened, _some(Wanted(tasks, failed, everything), "hold"))

    def release(
        self, *tasks: str, at: float | datetime | str | None = None, failed: bool = False, everything: bool = False
    ) -> Changed:
        """Let held tasks start; with `at`, have queued ones wait until then, which is given as to `run`.

        Raises:
            NothingToActOn: there is none.
        """
        with self._found().open_existing() as opened:
            done = queue.release(opened, _some(Wanted(tasks, failed, everything), "release"), _moment(at))
            queue.keep_going(opened)
            return done

    def priority(
        self, *tasks: str, to: int | None = None, by: int | None = None, failed: bool = False, everything: bool = False
    ) -> Changed:
        """Give queued tasks a priority, higher ones start first: `to` this one, or `by` so much more than they have.
        With neither they go before all that wait now.

        Raises:
            NothingToActOn: none of them is queued.
        """
        if to is not None and by is not None:
            raise UsageError("priority takes to or by, not both")
        wanted = _some(Wanted(tasks, failed, everything), "priority")
        with self._found().open_existing() as opened:
            if to is None and by is None:
                return queue.put_first(opened, wanted)[0]
            return queue.prioritise(opened, wanted, to if to is not None else by or 0, relative=to is None)

    def pause(self) -> Hold:
        """Start nothing new until `resume`; what runs goes on. Returns the pause: this one, or one that was before."""
        with self._found(last_good=True).open() as opened:
            return queue.pause(opened)[0]

    def resume(self) -> Hold:
        """Let tasks start again. Returns the pause that was. Raises NothingToActOn: there was none."""
        with self._found().open_existing() as opened:
            before = queue.resume(opened)
            queue.keep_going(opened)
            return before

    # -- looking

    def status(self, *tasks: str, failed: bool = False) -> Status:
        """The workspace now: scheduler, GPUs, and every task, or these.

        Raises:
            NothingToActOn: these are none.
        """
        return looking.status(self._found(), wanted=Wanted(tasks, failed))

    def tasks(self) -> dict[str, TaskStatus]:
        """Every task by name, those included that were never queued."""
        return {task.name: task for task in self.status().tasks}

    def gpus(self) -> Occupancy:
        """This machine's GPUs, and who is on them: all users, and other programs."""
        return occupancy.occupancy()

    def explain(self, task: str) -> list[str]:
        """Sentences on why a task waits, or how it ended. Raises NothingToActOn: there is no such task."""
        found = self._found(last_good=True)
        return looking.explain(found, selection.one_of(found, task))[1]

    def show(self, task: str, attempt: int | None = None) -> History:
        """Everything on record about a task and its runs. Raises NothingToActOn: there is no such task or attempt."""
        found = self._found(last_good=True)
        return history.show(found, selection.one_of(found, task), attempt)

    def logs(self, task: str, attempt: int | None = None) -> str:
        """What a run printed, without what a progress bar overwrote; of the newest one unless `attempt` is given.

        Raises:
            NothingToActOn: there is no such task, run or log.
        """
        found = self._found(last_good=True)
        log = logging.find(found, selection.one_of(found, task), attempt)
        try:
            return logging.clean(log.path.read_bytes())
        except FileNotFoundError:
            return ""

    def follow(self, task: str) -> Iterator[bytes]:
        """What a run prints, from its beginning to its end, as it comes. Raises NothingToActOn as `logs` does."""
        found = self._found(last_good=True)
        name = selection.one_of(found, task)
        return logging.follow(found, name, logging.find(found, name, None))

    def report(self, since: str | None = None) -> Report:
        """What ran where and when, what failed, what tasks measured; `since` as on the command line: `7d`, a date."""
        return reporting.report(self._found(), since)

    def doctor(self) -> list[Check]:
        """Whether this machine and the workspace are in order: what was looked at, how bad it is, and what to do."""
        return doctor.examine(self._found(last_good=True))

    def repair(self) -> Repaired | None:
        """Keep a damaged database aside, and make a new one of what is left (`doctor --repair`); None: it is whole.

        Raises:
            TinkschedError: it can't be done, or a scheduler works on it.
        """
        return repair.repair(self._found(last_good=True))

    # -- waiting and ending

    def wait(
        self, *tasks: str, timeout: float | None = None, first: bool = False, failed: bool = False
    ) -> dict[str, str]:
        """Wait until these tasks are done, or all that are queued or running now; with `first` until one of them is.
        Where all are done already and none is named: those that were queued last.

        Returns:
            The outcomes of those that are done, by name.

        Raises:
            NothingToActOn: there is no such task.
            TimedOut: they are not done after `timeout` seconds. They go on.
            TinkschedError: the scheduler was stopped meanwhile.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._found().open_existing() as opened:
            names = waiting.choose(opened, Wanted(tasks, failed))
            for found in waiting.follow(opened, names, deadline):
                if first and any(task.outcome for task in found):
                    break
            done = opened.store.named(names)
            before = dict.fromkeys(waiting.finished_before(opened, tasks).values(), "completed")
            return before | {name: task.outcome.value for name in names if (task := done.get(name)) and task.outcome}

    def cancel(self, *tasks: str, failed: bool = False, everything: bool = False) -> Cancelled:
        """Cancel tasks: a queued one leaves the queue, a running one is ended, verified dead.

        Raises:
            NothingToActOn: there is no such task, or none that is queued or running.
        """
        found, wanted = self._found(last_good=True), _some(Wanted(tasks, failed, everything), "cancel")
        try:
            with found.open_existing() as opened:
                return control.cancel(opened, wanted)
        except emergency.UNRECORDED as trouble:
            emergency.cancel(found, None if everything else tasks, trouble)

    def clean(
        self, *tasks: str, older_than: float | str | None = None, records: bool = True, sessions: bool = True,
        logs: bool = True, dry_run: bool = False, failed: bool = False, everything: bool = False,
    ) -> Rubbish:  # fmt: skip
        """Forget finished tasks: these, or all that have been done for `older_than` (seconds, or `"30d"`), or all. It
        asks nobody. `dry_run` only tells.

        Raises:
            NothingToActOn: there is nothing to forget.
        """
        age = times.span(older_than, "older_than") if isinstance(older_than, str) else older_than
        with self._found().open_existing() as opened:
            kinds = Kinds(records=records, sessions=sessions, logs=logs)
            found = cleaning.find(opened, Wanted(tasks, failed, everything), age, kinds)
            if not dry_run:
                cleaning.remove(opened, found)
            return found

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


def _some(wanted: Wanted, what: str) -> Wanted:
    """Raises UsageError: no task is named."""
    if not wanted:
        raise UsageError(f"{what} needs tasks: names, globs, numbers, failed or everything")
    return wanted


def _memory(said: int | str | None) -> int | Literal["auto"] | None:
    if said is None:
        return None
    return "auto" if said == "auto" else asked.size(str(said), "memory")


def _moment(said: float | datetime | str | None) -> float | None:
    """Seconds since the epoch. Raises UsageError: it is no time, or is over."""
    if isinstance(said, str):
        return times.moment(said, "at", time.time())
    return said.timestamp() if isinstance(said, datetime) else said


def _said(values: Sequence[Value]) -> str:
    """Values of Python as the command line would have them."""
    return ",".join(
        value
        if isinstance(value, str) and _PLAIN.fullmatch(value) and value.lower() not in _WORDS
        else json.dumps(value, ensure_ascii=False)
        for value in values
    )
