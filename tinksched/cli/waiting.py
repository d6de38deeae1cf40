"""The commands about what waits: `wait`, `pause`, `resume`, `hold`, `release`, `priority`."""

from __future__ import annotations

import json
import re
import shlex
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Annotated

import typer

from ..core import instants
from ..core.model import Outcome, Task, TaskState
from ..errors import UsageError
from ..operations import queue, times, waiting
from ..operations.queue import Changed
from ..operations.selection import Wanted
from ..operations.workspace import OpenWorkspace
from . import render
from .answers import JSON_VERSION, answer
from .finding import find, wanted
from .options import AllOption, ConfigOption, FailedOption, JsonOption, SelectorsArgument, WorkspaceOption
from .tables import printable

AtOption = Annotated[str | None, typer.Option("--at", metavar="TIME", help=f"Not before: {times.FORMS}.")]

_OLD_NEWS = 30.0  # seconds, after which a change is said to be so long ago


def wait(
    context: typer.Context,
    selectors: SelectorsArgument = None,
    any_of_them: Annotated[bool, typer.Option("--any", help="Only until the first of them is done.")] = False,
    timeout: Annotated[
        str | None, typer.Option("--timeout", metavar="TIME", help="Give up after 90s, 30m, 2h …: exit code 124.")
    ] = None,
    failed: FailedOption = False,
    everything: AllOption = False,
    workspace: WorkspaceOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Wait until tasks are done. All that are queued or running if none are named; exit code 0 if all completed.

    Prints each change with its time; of tasks that are done already, how they ended, which counts as well. Where none
    is named and nothing is queued or running: how those ended that were queued last. Exit code 1 if one did not
    complete, 3 if there is no such task, 124 after --timeout.

    \b
    Examples:
      tinksched wait
      tinksched wait 'exp*' --timeout 2h
      tinksched wait --any 3-5    # until the first of them is done
    """
    seconds = None if timeout is None else times.span(timeout, "--timeout")
    with find(context, workspace, config).open_existing() as opened:
        for name in waiting.finished_before(opened, selectors or ()).values():
            render.message(f"{name} completed: its completion marker was there before any run of it")
        names = waiting.choose(opened, wanted(selectors, failed, everything))
        raise typer.Exit(until_done(opened, names, only_first=any_of_them, seconds=seconds, as_json=as_json))


def pause(
    context: typer.Context, workspace: WorkspaceOption = None, config: ConfigOption = None, as_json: JsonOption = False
) -> None:
    """Start nothing new until `resume`; what runs goes on. To drain the GPUs, before an update, say.

    \b
    Example:
      tinksched pause
    """
    with find(context, workspace, config, last_good=True).open() as opened:
        found, is_new = queue.pause(opened)
        running = [task.name for task in opened.store.active_tasks()]
        queued = opened.store.queue_length()
    if as_json:
        answer("pause", new=is_new, user=found.user, since=found.since, running=running, queued=queued)
        return
    print("paused: nothing new starts" if is_new else f"{found_text(found.user, found.since)} already")
    if running:
        print(f"{len(running)} running on: {render.names(running)}")
    if queued:
        print(f"{queued} queued, and waiting for `tinksched resume`")


def resume(
    context: typer.Context, workspace: WorkspaceOption = None, config: ConfigOption = None, as_json: JsonOption = False
) -> None:
    """Let tasks start again after `pause`.

    \b
    Example:
      tinksched resume
    """
    with find(context, workspace, config).open_existing() as opened:
        before = queue.resume(opened)
        if as_json:
            answer("resume", user=before.user, since=before.since)
        else:
            print(f"resumed: it was {found_text(before.user, before.since)}")
        render.message(queue.keep_going(opened))


def hold(
    context: typer.Context,
    selectors: SelectorsArgument = None,
    at: Annotated[str | None, typer.Option("--at", hidden=True)] = None,
    failed: FailedOption = False,
    everything: AllOption = False,
    workspace: WorkspaceOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Keep queued tasks from starting until `release`.

    \b
    Examples:
      tinksched hold exp1 'big_*'
      tinksched hold 3-5
    """
    if at is not None:
        hint = f"until a time: tinksched release {shlex.join(selectors or ['TASK'])} --at {shlex.quote(at)}"
        raise UsageError("hold keeps tasks until `release`, and takes no --at", hint=hint)
    chosen = required(wanted(selectors, failed, everything), "hold")
    with find(context, workspace, config).open_existing() as opened:
        report("hold", "held", queue.hold(opened, chosen), as_json=as_json)


def release(
    context: typer.Context,
    selectors: SelectorsArgument = None,
    at: AtOption = None,
    failed: FailedOption = False,
    everything: AllOption = False,
    workspace: WorkspaceOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let held tasks start. With --at, have queued ones wait until then.

    \b
    Examples:
      tinksched release exp1
      tinksched release 'big_*' --at 22:00
      tinksched release 7 --at +2h
    """
    chosen = required(wanted(selectors, failed, everything), "release")
    until = None if at is None else times.moment(at, "--at", time.time())
    with find(context, workspace, config).open_existing() as opened:
        done = queue.release(opened, chosen, until)
        started = queue.keep_going(opened)
        when = "" if until is None else f" at {instants.both(until, time.time())}"
        try:
            report("release", f"released{when}", done, as_json=as_json, **({} if until is None else {"until": until}))
        finally:
            render.message(started)


def priority(
    context: typer.Context,
    words: Annotated[
        list[str], typer.Argument(metavar="TASK... [N]", help="Selectors of queued tasks, then a number.")
    ],
    failed: FailedOption = False,
    everything: AllOption = False,
    workspace: WorkspaceOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give queued tasks a priority: higher numbers start first. +1 and -1 change the one that they have.

    A single word that is no number is a selector: it goes before all that wait now. For a negative number that is not
    a change write =-5.

    \b
    Examples:
      tinksched priority exp7 10
      tinksched priority 'big_*' -1
      tinksched priority @ +5
      tinksched priority @    # before all that wait
    """
    given = re.fullmatch(r"(=|)([+-]?[0-9]{1,7})", words[-1])
    if given is None and len(words) == 1:
        with find(context, workspace, config).open_existing() as opened:
            done, front = queue.put_first(opened, wanted(words, failed, everything))
            report("priority", f"first, with priority {front}", done, as_json=as_json, priority=front)
        return
    *selectors, number = words
    if given is None:
        raise UsageError(f"the last word must be the priority, a whole number such as 5, +1 or -1, not {number!r}")
    chosen = required(wanted(selectors, failed, everything), "priority")
    relative = not given[1] and given[2][0] in "+-"
    with find(context, workspace, config).open_existing() as opened:
        done = queue.prioritise(opened, chosen, int(given[2]), relative=relative)
        now = {task.priority for task in opened.store.named(done.done).values()} if relative else ()
        result = f", now {' to '.join(map(str, sorted({min(now), max(now)})))}" if now else ""
        report("priority", f"priority {number.lstrip('=')}{result}", done, as_json=as_json)


def required(chosen: Wanted, command: str) -> Wanted:
    """Raises UsageError: no task is named."""
    if not chosen:
        raise UsageError(f"{command} needs tasks: names, globs, numbers (1-3,5), @ for the newest, --failed or --all")
    return chosen


def report(command: str, said: str, done: Changed, *, as_json: bool, **more: object) -> None:
    """Say what was done, and what was not and why: exit code 1 then."""
    if as_json:
        answer(command, done.done, done.left, **more)
    else:
        print(f"{said}: {render.names(done.done)}")
    render.left(done.left)
    if done.left:
        raise typer.Exit(1)


def found_text(user: str, since: float) -> str:
    """Who paused, and since when."""
    return f"paused by {user} {instants.ago(since, time.time())}"


def until_done(
    opened: OpenWorkspace, names: Sequence[str], *, only_first: bool = False, seconds: float | None = None,
    as_json: bool = False, quiet: bool = False,
) -> int:  # fmt: skip
    """Follow tasks until they are done, and print what becomes of them, unless `quiet`. 0 if they completed, else 1.

    Raises:
        TinkschedError: the time is over, or no scheduler runs that would start them.
    """
    changes = _Changes(as_json=as_json, quiet=quiet)
    paused = opened.store.pause()
    if paused is not None and opened.store.has_queue():
        render.message(f"{found_text(paused.user, paused.since)}: what is queued does not start before `resume`")
    _say_held(opened.store.named(names).values())
    deadline = None if seconds is None else time.monotonic() + seconds
    for tasks in waiting.follow(opened, names, deadline):
        changes.show(tasks)
        if only_first and changes.done:
            return 0 if waiting.went_well(changes.done.values()) else 1
    known = opened.store.named(names)
    kinds = Counter((known[name].outcome or known[name].state).value if name in known else "removed" for name in names)
    render.message(", ".join(f"{count} {kind.replace('_', ' ')}" for kind, count in sorted(kinds.items())))
    return 0 if set(kinds) <= {Outcome.COMPLETED.value} else 1


def _say_held(tasks: Iterable[Task]) -> None:
    """Say of those that are held by whom, or until when."""
    held: dict[str, list[str]] = {}
    for task in tasks:
        if task.hold is not None:
            until = "" if task.hold.until is not None else ", and does not start before `release`"
            held.setdefault(f"{task.hold.reason.said(time.time())}{until}", []).append(task.name)
    for said, names in held.items():
        render.message(f"{said}: {render.names(names)}")


class _Changes:
    """Prints a line for every change of a task."""

    def __init__(self, *, as_json: bool, quiet: bool) -> None:
        self._as_json = as_json
        self._quiet = quiet
        self._seen: dict[str, str] = {}
        self.done: dict[str, Task] = {}

    def show(self, tasks: Sequence[Task]) -> None:
        """Tell what is new since the last time; of tasks that are not done their first state is no news."""
        for task in tasks:
            state = (task.outcome or task.state).value
            before = self._seen.get(task.name)
            self._seen[task.name] = state
            if task.state is TaskState.DONE:
                self.done[task.name] = task
            if not self._quiet and state != before and (before is not None or task.outcome is not None):
                self._print(task, "running" if state == "active" else state)

    def _print(self, task: Task, state: str) -> None:
        reason = task.reason.text if task.reason else None
        if self._as_json:
            record = {"version": JSON_VERSION, "at": task.changed_at, "task": task.name, "number": task.id}
            print(json.dumps({**record, "state": state, "reason": reason}, ensure_ascii=False), flush=True)
            return
        at, now = time.strftime("%H:%M:%S", time.localtime(task.changed_at)), time.time()
        before = f" ({instants.ago(task.changed_at, now)})" if now - task.changed_at > _OLD_NEWS else ""
        why = f": {printable(reason)}" if reason else ""
        print(f"{at}  {printable(task.name)} {state.replace('_', ' ')}{why}{before}", flush=True)
